"""Train LECCR on one or more corpora.

    accelerate launch stages/train.py --recipe NAME [--data CORPUS]… --output RUN [key=value …]

A run that was stopped or killed resumes bit-identically with --resume.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine.run_state import locked
from pipeline.errors import UsageError
from stages.processes import Parser, accelerated, on_main, run_program
from stages.recipes import load_recipes
from stages.training.settings import Settings, describe_settings, find_recipe, resolve

if TYPE_CHECKING:  # heavy imports happen after parsing, so that --help answers at once
    from accelerate import Accelerator

    from stages.data.batches import TrainingData
    from stages.training.trainer import Plan, Trainer


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The command line.

    Attributes:
        recipe: Name of the recipe.
        output: Run folder.
        data: Corpora; empty for the one that the recipe makes.
        overrides: Settings as `key=value`.
        micro_batch: The setting of that name, if given as an option.
        resume: Continue from the newest complete checkpoint.
        overwrite: Delete an earlier run in the folder first.
    """

    recipe: str
    output: Path
    data: tuple[Path, ...] = ()
    overrides: tuple[str, ...] = ()
    micro_batch: int | None = None
    resume: bool = False
    overwrite: bool = False

    def settings(self) -> Settings:
        """The resolved settings of the run."""
        given: dict[str, Any] = {"data": tuple(map(str, self.data))} if self.data else {}
        if self.micro_batch is not None:
            given["micro_batch"] = self.micro_batch
        return resolve(self.recipe, self.overrides, **given)


def main(argv: Sequence[str]) -> int:
    """Run the program and return its exit status."""
    options = parse(argv)
    settings = options.settings()
    accelerator = accelerated(settings.mixed_precision)
    with lock_run(options.output):
        train(options, settings, accelerator)
    accelerator.free_memory()  # before the process group goes: DDP would wait forever for one of its threads
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def train(options: TrainOptions, settings: Settings, accelerator: "Accelerator") -> None:
    """Train the model of `settings` and leave it in the run folder."""
    from stages.data.batches import StepBatches
    from stages.scoring.embed import embed_split
    from stages.training import building, run_folder
    from stages.training.trainer import Plan, Trainer
    from stages.training.validation import selection_label, validation_line

    run, say = options.output, print if accelerator.is_main_process else _discard
    rank, world = accelerator.process_index, accelerator.num_processes
    corpora = find_corpora(options)
    data, validation = building.open_data(settings, corpora, world)
    checkpoint = on_main(
        lambda: run_folder.checkpoint_to_resume(run, settings, corpora, options.resume, options.overwrite, say)
    )
    if checkpoint:
        model, processor = building.restore_model(checkpoint, settings)
    else:
        model, processor = building.create_model(settings, data, accelerator)
    validation.expect(processor, f"media={settings.media}")
    on_main(lambda: run_folder.begin_run(run, settings, corpora, options.overwrite))
    building.use_states(settings, data, model.to(accelerator.device), processor, accelerator)

    batches = StepBatches(
        data, processor, settings.batch_size, seed=settings.seed, flip=settings.horizontal_flip, rank=rank, world=world
    )
    steps = settings.steps or settings.epochs * batches.steps_per_epoch
    plan = Plan(steps, batches.steps_per_epoch, lambda step: batches.item_ids(step - 1))
    record = run_folder.make_record(
        settings,
        corpora,
        processes=world,
        device=accelerator.device.type,
        mixed_precision=accelerator.mixed_precision,
        label=selection_label(settings.select_on, settings.train_on),
        languages=list(data.languages),
    )

    def validate(step: int) -> dict[str, Any]:
        embedded = embed_split(model, processor, validation, accelerator, settings.eval_batch_size)
        return on_main(lambda: validation_line(embedded, settings.global_weights, settings.select_on, step))

    writer = run_folder.ModelWriter(run, model, processor, record)
    trainer = Trainer(settings, accelerator, model, batches, plan, validate, writer)
    if checkpoint:
        trainer.resume(checkpoint)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    say(opening_message(settings, accelerator, trained, data, plan, record["label"]))
    trainer.run()
    on_main(lambda: say(closing_message(run, settings, trainer)))


@contextlib.contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Hold the run folder; another run in it is refused."""
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(locked(run)))
        yield


def find_corpora(options: TrainOptions) -> list[Path]:
    """The corpora of the command line, or the one that the recipe makes."""
    make_corpus = find_recipe(options.recipe).make_corpus
    if options.data:
        return list(options.data)
    if make_corpus is None:
        raise UsageError(f"--recipe {options.recipe} does not make a corpus: give --data CORPUS")
    corpus = options.output / "corpus"
    on_main(lambda: make_corpus(corpus))
    return [corpus]


def opening_message(
    settings: Settings, accelerator: "Accelerator", trained: int, data: "TrainingData", plan: "Plan", label: str | None
) -> str:
    """What the run trains, and what the user should know of its data; `trained` is the number of weights."""
    precision = "" if accelerator.mixed_precision == "no" else f" in {accelerator.mixed_precision}"
    micro_batch = f", {settings.micro_batch} at once" if settings.micro_batch else ""
    lines = [
        f"recipe {settings.recipe} ({settings.method}): {len(data):,} samples of {', '.join(data.languages)} · "
        f"{trained:,} weights to train · {plan.steps:,} steps of {settings.batch_size:,} samples{micro_batch} on "
        f"{accelerator.num_processes} × {accelerator.device.type}{precision}"
    ]
    lines += [f"note: {note}" for note in data.notes] + ([label] if label else [])
    if (count := data.index.undescribed) and settings.to_json()["num_slots"]:
        lines.append(f"note: {count:,} items have no description for slots to read: run --stage captions, then pack")
    return "\n".join(lines)


def closing_message(run: Path, settings: Settings, trainer: "Trainer") -> str:
    """Draw the curves, and say where the best weights are and how good they are."""
    from stages.training import curves

    best = trainer.position.best or {"step": 0, "sum_r": 0.0, "chance": 0.0}
    score = (
        f"best SumR {best['sum_r']:.1f} on {settings.select_on} (chance {best['chance']:.1f}) at step {best['step']:,}"
    )
    page = curves.draw(run, f"recipe {settings.recipe} · {trainer.position.step:,} steps · {score}")
    return f"{score}: {run / 'best'} · curves: {page or 'none'}"


def parse(argv: Sequence[str]) -> TrainOptions:
    """Parse the command line; raises UsageError for a mistake."""
    parsed = parser().parse_intermixed_args(argv)
    if parsed.resume and parsed.overwrite:
        raise UsageError("--resume continues a run that --overwrite deletes: give only one of them")
    if file := next((folder for folder in parsed.output.parents if folder.is_file()), None):
        raise UsageError(f"--output {parsed.output}: {file} is a file, give another folder")
    lists = {"data": tuple(parsed.data or ()), "overrides": tuple(parsed.overrides)}
    return TrainOptions(**{**vars(parsed), **lists})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    recipes = "\n".join(f"  {name:<15} {recipe.summary}" for name, recipe in load_recipes().items())
    command_line = Parser(
        "train.py",
        description=__doc__.splitlines()[0],
        epilog=f"recipes:\n{recipes}\n\nsettings, as key=value, with their defaults:\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = command_line.add_argument
    add("--recipe", required=True, metavar="NAME", help="recipe that the settings come from, see below")
    add("--data", action="append", type=Path, metavar="CORPUS", help="corpus with a training table; may be repeated")
    add("--output", required=True, type=Path, metavar="RUN", help="run folder: checkpoints, metrics, curves")
    add("--micro-batch", type=int, metavar="N", help="samples encoded at once per process; bounds memory")
    add("--resume", action="store_true", help="continue from the newest complete checkpoint")
    add("--overwrite", action="store_true", help="delete an earlier run in RUN, then start")
    add("overrides", nargs="*", metavar="key=value", help="settings that differ from the recipe")
    return command_line


def _discard(_line: str) -> None:
    """What processes other than the first print."""


if __name__ == "__main__":
    sys.exit(run_program(main))
