"""Train LECCR on one or more corpora.

    accelerate launch stages/train.py --recipe NAME [--data CORPUS]… --output RUN [key=value …]

A run that was stopped or killed continues with --resume: bit-identically on a CPU in float32 with as many processes.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.storage.files import location, path_on_disk
from stages.processes import Parser, accelerated, on_main, run_program
from stages.recipes import load_recipes
from stages.training.settings import Settings, describe_settings, find_recipe, resolve

if TYPE_CHECKING:  # heavy imports happen after parsing, so that --help answers at once
    from accelerate import Accelerator

    from stages.data.batches import EvaluationData, TrainingData
    from stages.training.trainer import Trainer

PROBED = 32  # samples that memory and time are estimated from


def main(argv: Sequence[str]) -> int:
    """Run the program and return its exit status."""
    from pipeline.engine.run_state import locked

    options = parse(argv)
    settings = resolve_settings(options)
    accelerator = accelerated(settings.mixed_precision)
    with contextlib.ExitStack() as stack:
        on_main(lambda: stack.enter_context(locked(options.output)))  # another run in the folder is refused
        train(options, settings, accelerator)
    accelerator.free_memory()  # before the process group goes: DDP would wait forever for one of its threads
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def train(options: argparse.Namespace, settings: Settings, accelerator: "Accelerator") -> None:
    """Train the model of `settings` and leave it in the run folder."""
    from stages.data.batches import StepBatches
    from stages.data.media import Augmentation
    from stages.scoring.embed import embed_split
    from stages.training import building, run_folder
    from stages.training.trainer import Trainer
    from stages.training.validation import selection_label, validation_line

    run, say = options.output, print if accelerator.is_main_process else lambda line: None
    rank, world = accelerator.process_index, accelerator.num_processes
    corpora = find_corpora(options.recipe, options.data, run)
    data, validation = building.open_data(settings, corpora, world)
    checkpoint = on_main(
        lambda: run_folder.checkpoint_to_resume(run, settings, corpora, options.resume, options.overwrite, say)
    )
    if checkpoint:
        model, processor = building.restore_model(checkpoint, settings)
    elif settings.init:
        model, processor = building.start_from(settings.init, settings, data)
    else:
        model, processor = building.create_model(settings, data, accelerator)
    validation.expect(processor, f"media={settings.media}")
    on_main(lambda: run_folder.begin_run(run, settings, corpora, options.overwrite))
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    building.use_states(settings, data, validation, model.to(accelerator.device), processor, accelerator)

    batches = StepBatches(
        data,
        processor,
        settings.batch_size,
        seed=settings.seed,
        augmentation=Augmentation(settings.horizontal_flip, settings.smallest_crop),
        rank=rank,
        world=world,
    )
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

    steps = settings.steps or settings.epochs * batches.steps_per_epoch
    writer = run_folder.ModelWriter(run, model, processor, record)
    trainer = Trainer(settings, accelerator, model, batches, steps, validate, writer)
    if checkpoint:
        trainer.resume(checkpoint)
    elif accelerator.is_main_process:
        say(cost_message(trainer))
    say(opening_message(trainer, data, validation, record["label"]))
    trainer.run()
    if settings.media not in building.KEYWORDS:
        on_main(lambda: say(trainer.writer.export_best()))
    on_main(lambda: say(closing_message(trainer)))


def find_corpora(recipe: str, data: Sequence[Path], run: Path) -> list[Path]:
    """The corpora of the command line, or the one that the recipe makes in the run folder."""
    make_corpus = find_recipe(recipe).make_corpus
    if data:
        return list(data)
    if make_corpus is None:
        raise UsageError(f"--recipe {recipe} does not make a corpus: give --data CORPUS")
    corpus = run / "corpus"
    on_main(lambda: make_corpus(corpus))
    return [corpus]


def opening_message(trainer: "Trainer", data: "TrainingData", validation: "EvaluationData", label: str | None) -> str:
    """What the run trains, and what the user should know of its data."""
    settings, accelerator = trainer.settings, trainer.accelerator
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    precision = "" if accelerator.mixed_precision == "no" else f" in {accelerator.mixed_precision}"
    micro_batch = f", {settings.micro_batch} at once" if settings.micro_batch else ""
    lines = [
        f"recipe {settings.recipe} ({settings.method}): {len(data):,} samples of {', '.join(data.languages)} · "
        f"{trained:,} weights to train · {trainer.steps:,} steps of {settings.batch_size:,} samples{micro_batch} on "
        f"{accelerator.num_processes} × {accelerator.device.type}{precision}"
    ]
    lines += [f"note: {note}" for note in (*data.index.notes, *validation.notes)] + ([label] if label else [])
    if (most := trainer.batches.processor.policy.max_tokens) < settings.max_tokens:
        lines.append(f"note: texts are cut at {most:,} tokens, the positions of text={settings.text}")
    if settings.init:
        lines.append(f"note: the weights are those of {settings.init}")
    if (count := data.index.undescribed) and trainer.model.config.slots != "none":
        lines.append(f"note: {count:,} items have no description for slots to read: run --stage captions, then pack")
    return "\n".join(lines)


def cost_message(trainer: "Trainer") -> str:
    """What training takes of memory and time, from a forward and backward pass of PROBED samples on this machine."""
    import torch

    from model.batch import to_device
    from stages.training.trainer import split_batch

    settings, accelerator, model = trainer.settings, trainer.accelerator, trainer.model
    batch = to_device(split_batch(trainer.batches[0], PROBED)[0], accelerator.device)
    weights = sum(parameter.numel() for parameter in model.parameters())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained = sum(parameter.numel() for parameter in parameters)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = dict[int, int]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    for _ in range(2):  # the first is slower
        began = time.monotonic()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), accelerator.autocast():
            features = model(batch)
        size = sum(count for place, count in kept.items() if place not in own)
        kept.clear()
        total = torch.stack([field.float().sum() for field in features]).sum()
        torch.autograd.grad(total, parameters, allow_unused=True)  # `backward` would call DDP's hooks
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
    seconds, samples = time.monotonic() - began, settings.batch_size // accelerator.num_processes
    at_once = min(settings.micro_batch or samples, samples)
    passes = 4 / 3 if at_once < samples else 1  # see `cached_step`
    hours = trainer.steps * samples * seconds * passes / len(batch.item_ids) / 3600
    sizes = 4 * weights, 4 * trained, 8 * trained, size * at_once / len(batch.item_ids)
    *parts, whole = (f"{count / 1e9:.2g}" for count in (*sizes, sum(sizes)))
    return (
        f"estimate per process: {whole} GB (weights {parts[0]}, gradients {parts[1]}, optimiser {parts[2]}, "
        f"activations of {at_once:,} samples {parts[3]}) and {hours:.2g} h, loading and validation not counted; "
        f"from a pass over {len(batch.item_ids)} samples"
    )


def closing_message(trainer: "Trainer") -> str:
    """Draw the curves, and say where the best weights are and how good they are."""
    from stages.training.metrics import draw_curves

    run, settings = trainer.writer.run, trainer.settings
    best = trainer.position.best or {"step": 0, "sum_r": 0.0, "chance": 0.0}
    start = trainer.position.start
    score = f"SumR {best['sum_r']:.1f} on {settings.select_on}"
    if start:
        score += f", {start['sum_r']:.1f} before training (step 0)"
    details = f"best step {best['step']:,}, chance {best['chance']:.1f}"
    page = draw_curves(run, f"recipe {settings.recipe} · {trainer.position.step:,} steps · {score} · {details}")
    unhelpful = (
        "note: training did not help: the best weights are those of the start\n" if start and best["step"] == 0 else ""
    )
    return f"{unhelpful}{score} · {details}: {run / 'best'} · curves: {page or 'none'}"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; raises UsageError for a mistake."""
    parsed = parser().parse_intermixed_args(argv)
    if parsed.resume and parsed.overwrite:
        raise UsageError("--resume continues a run that --overwrite deletes: give only one of them")
    return parsed


def resolve_settings(options: argparse.Namespace) -> Settings:
    """The settings of the run."""
    given: dict[str, Any] = {name: tuple(map(str, getattr(options, name))) or None for name in ("data", "log_with")}
    given |= {"micro_batch": options.micro_batch, "val_fraction": options.val_fraction}
    given = {name: value for name, value in given.items() if value is not None}
    return resolve(options.recipe, options.overrides, **given)


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
    add(
        "--data", action="append", default=[], type=location, metavar="CORPUS", help="what to train on; may be repeated"
    )
    add("--output", required=True, type=path_on_disk, metavar="RUN", help="run folder: checkpoints, metrics, curves")
    add("--micro-batch", type=int, metavar="N", help="samples encoded at once per process; bounds memory")
    add("--val-fraction", type=float, metavar="F", help="share of split train to validate on, where there is no val")
    add("--log-with", action="append", default=[], metavar="TRACKER", help="the setting log_with; may be repeated")
    add("--resume", action="store_true", help="continue from the newest complete checkpoint")
    add("--overwrite", action="store_true", help="delete an earlier run in RUN, then start")
    add("overrides", nargs="*", metavar="key=value", help="settings that differ from the recipe")
    return command_line


if __name__ == "__main__":
    sys.exit(run_program(main))
