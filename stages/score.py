"""Score a model on a split: recalls in both directions, by language.

    accelerate launch stages/score.py --checkpoint RUN|FOLDER|NAME --data CORPUS… --split val [--output FILE.json]

The table goes to standard output, everything else to standard error; `--explain N` draws N queries in FILE-explain/.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.corpus.table import manifest_hash, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from stages.data.batches import EvaluationData
from stages.processes import Parser, accelerated, on_main, run_program
from stages.scoring.checkpoint import Checkpoint, find_checkpoint
from stages.scoring.embed import Embedded, embed_split
from stages.scoring.report import LanguageRanks, figures, table, write_queries


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    check(options)
    checkpoint = find_checkpoint(options.checkpoint)
    accelerator = accelerated("no")
    views = checkpoint.slot_views if options.slot_views is None else options.slot_views
    data = EvaluationData(options.data, options.split, options.languages, views)
    model, processor, own_weight = checkpoint.load()
    data.expect(processor, f"--checkpoint {checkpoint.name}")
    model.to(accelerator.device)
    weight = own_weight if options.global_weight is None else options.global_weight
    embedded = embed_split(model, processor, data, accelerator, options.batch_size)

    def finish() -> None:
        found = report(options, checkpoint, data, embedded, weight, list(views))
        if options.explain:
            from stages.scoring.explain import (
                Explainer,  # late: a score without pictures starts without what draws them
            )
            from stages.scoring.explain_picture import write

            explainer = Explainer(model, processor, data, embedded, found, weight)
            write(explained(options.output), explainer, options.explain, say)

    on_main(finish)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def report(
    options: argparse.Namespace,
    checkpoint: Checkpoint,
    data: EvaluationData,
    embedded: Embedded,
    weight: float,
    views: list[str],
) -> dict[str, LanguageRanks]:
    """Ranks everything, writes the files that were asked for, prints the table; the ranks."""
    try:
        result, found = figures(embedded, weight, options.seed)
    except ValueError as error:
        raise UsageError(f"--checkpoint {checkpoint.name}: {error}") from error
    notes = [*data.notes, *checkpoint.notes, *fewer_items(result, len(embedded.item_ids))]
    told = {
        "checkpoint": checkpoint.summary(),
        "corpora": [{"name": path.name, "training": manifest_hash(path, "training")} for path in options.data],
        "split": options.split,
        "items": len(embedded.item_ids),
        "settings": {"global_weight": weight, "slot_views": views, "batch_size": options.batch_size},
        "notes": notes,
        **result,
    }
    try:
        if options.output:
            write_json(options.output, told)
        if options.per_query:
            names = dict(zip(embedded.item_ids.tolist(), data.item_names, strict=True))
            write_queries(options.per_query, found, names, data.caption_ids)
    except OSError as error:
        raise EnvironmentTrouble(f"{error.filename}: cannot be written: {error.strerror}") from error
    corpora = ", ".join(str(path) for path in options.data)
    score = f"global weight {weight:g}" if embedded.slots_NKE.shape[1] else "global similarity alone"
    print(f"{checkpoint.name} on {options.split} of {corpora}: {len(embedded.item_ids):,} items, {score}\n")
    print(table(result, notes), flush=True)
    return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def explained(output: Path) -> Path:
    """The folder of pictures beside the JSON file."""
    return output.with_name(f"{output.stem}-explain")


def fewer_items(result: Mapping[str, Any], items: int) -> list[str]:
    """Of languages whose figures are not to be compared with the others'."""
    return [
        f"{name}: {row['items']:,} of {items:,} items have a text: its gallery is smaller, and so easier"
        for name, row in result["languages"].items()
        if row["items"] < items
    ]


def check(options: argparse.Namespace) -> None:
    """What would otherwise be found out after the work is done."""
    for option, path in (("--output", options.output), ("--per-query", options.per_query)):
        if path and not path.parent.is_dir():
            raise UsageError(f"{option} {path}: there is no folder {path.parent}: make it first")
        if path and path.is_dir():
            raise UsageError(f"{option} {path}: got a folder, wanted the name of a file")
    if options.explain < 0:
        raise UsageError(f"--explain: got {options.explain}, wanted a number of queries, 0 or more")
    if options.explain and not options.output:
        raise UsageError(f"--explain {options.explain}: wanted --output FILE.json too: the pictures go beside it")
    if options.explain and explained(options.output).is_file():
        raise UsageError(f"--explain: {explained(options.output)} is a file, wanted a folder for pictures: move it")
    if options.global_weight is not None and not 0 <= options.global_weight <= 1:
        raise UsageError(f"--global-weight: got {options.global_weight}, wanted a share from 0 to 1")
    if options.seed < 0:
        raise UsageError(f"--seed: got {options.seed}, wanted 0 or more")
    if options.batch_size < 1:
        raise UsageError(f"--batch-size: got {options.batch_size}, wanted 1 or more")


def tags(text: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in text.split(",") if tag.strip())


def parser() -> argparse.ArgumentParser:
    made = Parser("score.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = made.add_argument
    add("--checkpoint", required=True, help="a run's folder (its best weights), a model's folder, or a name on the Hub")
    add("--data", required=True, action="append", type=Path, help="a corpus with a table training; may be repeated")
    add("--split", default="val", help="that is scored (val)")
    add("--languages", default=(), type=tags, help="BCP 47 tags, with commas between them (all that the split has)")
    add("--global-weight", type=float, help="share of the global similarity in the score (what the model says)")
    add("--slot-views", type=tags, help="descriptions that the slots read (as the run had it, or all)")
    add("--batch-size", type=int, default=64, help="items, or texts, encoded at once on each process (64)")
    add("--seed", type=int, default=0, help="of the bootstrap (0)")
    add("--output", type=Path, help="JSON file for all figures")
    add("--per-query", type=Path, help="Parquet file for the rank of every query")
    add(
        "--explain",
        type=int,
        default=0,
        metavar="N",
        help="queries to draw, with what the slots read (0); see --output",
    )
    return made


if __name__ == "__main__":
    sys.exit(run_program(main))
