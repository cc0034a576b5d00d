"""Train LECCR on one or more corpora.

    accelerate launch stages/train.py --recipe NAME [--data CORPUS]… --output RUN [key=value …]

A run that was ended or killed goes on, with --resume, as if it had not been.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from pipeline.engine.run_state import locked
from pipeline.errors import UsageError
from stages.processes import Parser, accelerated, on_main, run_program
from stages.recipes import load_recipes
from stages.scoring.embed import embed_split
from stages.training import building, curves
from stages.training import run_folder as runs
from stages.training.settings import Settings, describe_settings, find_recipe, resolve
from stages.training.trainer import Plan, Trainer
from stages.training.validation import label, validation_line


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    settings = resolve(options.recipe, options.settings, **options.given)
    accelerator = accelerated(settings.mixed_precision)
    with held(options.output):
        train(options, settings, accelerator)
    accelerator.free_memory()  # what DDP holds: freed after the process group, it waits for a thread of it for ever
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def train(options: argparse.Namespace, settings: Settings, accelerator: Accelerator) -> None:
    say = print if accelerator.is_main_process else silent
    run: Path = options.output
    corpora = corpora_of(options, run)
    data, validation = building.open_data(settings, corpora, accelerator.num_processes)
    checkpoint = on_main(lambda: runs.look(run, settings, corpora, options.resume, options.overwrite, say))
    if checkpoint:
        model, processor = building.restore(checkpoint, settings)
    else:
        model, processor = building.create(settings, data, accelerator)
    validation.expect(processor, f"media={settings.media}")
    on_main(lambda: runs.begin(run, settings, corpora, options.overwrite))
    building.use_states(settings, data, model.to(accelerator.device), processor, accelerator)
    batches = building.StepBatches(data, processor, settings, accelerator)
    steps = settings.steps or settings.epochs * batches.steps_per_epoch
    plan = Plan(steps, batches.steps_per_epoch, lambda step: batches.item_ids(step - 1))
    record = runs.record(settings, corpora, **circumstances(settings, accelerator), languages=list(data.languages))

    def validate(step: int) -> dict[str, Any]:
        embedded = embed_split(model, processor, validation, accelerator, settings.eval_batch_size)
        return on_main(lambda: validation_line(embedded, settings.global_weights, settings.select_on, step))

    trainer = Trainer(settings, accelerator, model, batches, plan, validate, runs.Keeper(run, model, processor, record))
    if checkpoint:
        trainer.resume(checkpoint)
    say(opening(settings, accelerator, model, data, plan))
    trainer.run()
    on_main(lambda: say(closing(run, settings, trainer)))


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """The folder of the run is this run's alone; another one on it is refused."""
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(locked(run)))
        yield


def corpora_of(options: argparse.Namespace, run: Path) -> list[Path]:
    """The corpora given, or the one that the recipe makes."""
    make_corpus = find_recipe(options.recipe).make_corpus
    if options.data:
        return options.data
    if make_corpus is None:
        raise UsageError(f"--recipe {options.recipe} makes no corpus of its own: give --data CORPUS")
    corpus = run / "corpus"
    on_main(lambda: make_corpus(corpus))
    return [corpus]


def circumstances(settings: Settings, accelerator: Accelerator) -> dict[str, Any]:
    """What a record tells beside settings and corpora."""
    return {
        "processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "mixed_precision": accelerator.mixed_precision,
        "label": label(settings.select_on, settings.train_on),
    }


def opening(settings: Settings, accelerator: Accelerator, model: torch.nn.Module, data: Any, plan: Plan) -> str:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    precision = "" if accelerator.mixed_precision == "no" else f" in {accelerator.mixed_precision}"
    parts = f", {settings.micro_batch} at once" if settings.micro_batch else ""
    lines = [
        f"recipe {settings.recipe} ({settings.method}): {len(data):,} samples of {', '.join(data.languages)} · "
        f"{trained:,} weights to train · {plan.steps:,} steps of {settings.batch_size:,} samples{parts} on "
        f"{accelerator.num_processes} × {accelerator.device.type}{precision}"
    ]
    notes = [f"note: {note}" for note in data.notes] + [label(settings.select_on, settings.train_on) or ""]
    if (count := data.index.undescribed) and settings.to_json()["num_slots"]:
        notes.append(f"note: {count:,} items have no description for slots to read: run --stage captions, then pack")
    return "\n".join([*lines, *filter(None, notes)])


def closing(run: Path, settings: Settings, trainer: Trainer) -> str:
    """Draws the curves; what the run came to."""
    best = trainer.position.best or {"step": 0, "sum_r": 0.0, "chance": 0.0}
    told = (
        f"best SumR {best['sum_r']:.1f} on {settings.select_on} (chance {best['chance']:.1f}) at step {best['step']:,}"
    )
    page = curves.draw(run, f"recipe {settings.recipe} · {trainer.position.step:,} steps · {told}")
    return f"{told}: {run / 'best'} · curves: {page or 'none'}"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options; `given`: settings that have an option of their own."""
    options = parser().parse_intermixed_args(argv)
    if options.resume and options.overwrite:
        raise UsageError("got --resume and --overwrite, wanted one: the one goes on with what the other deletes")
    if above := next((folder for folder in options.output.parents if folder.is_file()), None):
        raise UsageError(f"--output: got {options.output}, but {above} is a file: give another folder")
    options.given = {"data": tuple(str(path) for path in options.data)} if options.data else {}
    if options.micro_batch is not None:
        options.given["micro_batch"] = options.micro_batch
    return options


def parser() -> argparse.ArgumentParser:
    named = "\n".join(f"  {name:<14} {recipe.summary}" for name, recipe in load_recipes().items())
    made = Parser(
        "train.py",
        description=__doc__.splitlines()[0],
        epilog=f"recipes:\n{named}\n\nsettings, as key=value, with their defaults:\n{describe_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--recipe", required=True, metavar="NAME", help="where the settings come from, see below")
    add("--data", action="append", type=Path, metavar="CORPUS", help="a corpus with a table training; may be repeated")
    add("--output", required=True, type=Path, metavar="RUN", help="folder of the run: checkpoints, metrics, curves")
    add("--micro-batch", type=int, metavar="N", help="samples encoded at once on each process; memory is that of N")
    add("--resume", action="store_true", help="go on from the newest whole checkpoint")
    add("--overwrite", action="store_true", help="delete what an earlier run left in RUN, and start")
    add("settings", nargs="*", metavar="key=value", help="settings that differ from the recipe's")
    return made


def silent(_line: str) -> None:
    """What processes other than the first say."""


if __name__ == "__main__":
    sys.exit(run_program(main))
