"""Score a model on a split: recalls in both directions, by language.

    accelerate launch stages/score.py --checkpoint RUN|FOLDER|NAME --data CORPUS… --split val [--output FILE.json]

The table goes to standard output, everything else to standard error. `--explain N` writes FILE-explain.html about N
queries.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.corpus.table import manifest_hash, write_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.options import add_options, option, read_options
from stages.processes import Parser, accelerated, on_main, run_program
from stages.scoring.checkpoint import Checkpoint, find_checkpoint

if TYPE_CHECKING:
    from stages.data.batches import EvaluationData
    from stages.scoring.embed import Embedded
    from stages.scoring.report import LanguageRanks


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """What to score, how, and which files to write."""

    checkpoint: str
    data: tuple[Path, ...]
    split: str = option("val", "split to score")
    languages: tuple[str, ...] = option((), "BCP 47 tags, separated by commas; all that the split has if not given")
    global_weight: float | None = option(
        None, "share of the global similarity in the score; the model's own if not given", at_least=0, at_most=1
    )
    slot_views: tuple[str, ...] | None = option(
        None, "views that the slots read, separated by commas; as in the run, or all, if not given"
    )
    batch_size: int = option(64, "items, or texts, encoded at once in each process", at_least=1)
    seed: int = option(0, "seed of the bootstrap", at_least=0)
    output: Path | None = option(None, "JSON file for all figures", metavar="FILE")
    per_query: Path | None = option(None, "Parquet file for the rank of every query", metavar="FILE")
    explain: int = option(0, "queries to explain in FILE-explain.html next to --output", at_least=0)

    @property
    def page(self) -> Path:
        """The HTML page of `--explain`."""
        assert self.output
        return self.output.with_name(f"{self.output.stem}-explain.html")

    def check(self) -> None:
        """Refuse, before any work, files that cannot be written.

        Raises:
            UsageError: The message names the option.
        """
        for name, path in (("--output", self.output), ("--per-query", self.per_query)):
            if path and (path.is_dir() or not path.absolute().parent.is_dir()):
                raise UsageError(
                    f"{name} {path} cannot be written there. Give the name of a file in an existing folder"
                )
        if self.explain and not self.output:
            raise UsageError(f"--explain {self.explain} needs --output FILE.json: its page is written next to that")


def main(argv: Sequence[str]) -> int:
    """Score a checkpoint and print the table; returns the exit status."""
    parsed = parser().parse_args(argv)
    options = read_options(ScoreOptions, parsed, checkpoint=parsed.checkpoint, data=tuple(parsed.data))
    options.check()
    checkpoint = find_checkpoint(options.checkpoint)
    from stages.data.batches import EvaluationData  # now that the command is known to be right
    from stages.scoring.embed import embed_split

    accelerator = accelerated("no")
    views = checkpoint.slot_views if options.slot_views is None else options.slot_views
    data = EvaluationData(options.data, options.split, options.languages, views)
    model, processor, fusion = checkpoint.load()
    data.expect(processor, f"--checkpoint {checkpoint.name}")
    model.to(accelerator.device)
    if options.global_weight is not None:
        fusion = dataclasses.replace(fusion, global_weight=options.global_weight)
    data.use_stored(model, processor)
    embedded = embed_split(model, processor, data, accelerator, options.batch_size)

    def finish() -> None:
        try:
            ranks = report(options, checkpoint, data, embedded.fused(fusion), fusion.global_weight, views)
            if options.explain:
                from stages.scoring.explain import Explainer, write_page

                explainer = Explainer(model, processor, data, embedded, ranks, fusion)
                count = write_page(options.page, explainer, options.explain)
                print(f"{options.page} explains {count:,} queries", file=sys.stderr, flush=True)
        except OSError as error:
            raise EnvironmentTrouble(f"{error.filename}: cannot be written: {error.strerror}") from error

    on_main(finish)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def report(
    options: ScoreOptions,
    checkpoint: Checkpoint,
    data: "EvaluationData",
    embedded: "Embedded",
    global_weight: float,
    views: Sequence[str],
) -> "dict[str, LanguageRanks]":
    """Rank the split, write the files that the options name, print the table; returns the ranks by language."""
    from stages.scoring.report import figures, format_table, gallery_notes, write_queries

    try:
        result, ranks = figures(embedded, global_weight, options.seed)
    except ValueError as error:
        raise UsageError(f"--checkpoint {checkpoint.name}: {error}") from error
    num_items = len(embedded.item_ids)
    notes = [*data.notes, *checkpoint.notes, *gallery_notes(result, num_items)]
    summary: dict[str, Any] = {
        "checkpoint": checkpoint.summary(),
        "corpora": [{"name": path.name, "training": manifest_hash(path, "training")} for path in options.data],
        "split": options.split,
        "items": num_items,
        "settings": {"global_weight": global_weight, "slot_views": list(views), "batch_size": options.batch_size},
        "notes": notes,
        **result,
    }
    if options.output:
        write_json(options.output, summary)
    if options.per_query:
        item_names = dict(zip(embedded.item_ids.tolist(), data.item_names, strict=True))
        write_queries(options.per_query, ranks, item_names, data.caption_ids)
    corpora = ", ".join(str(path) for path in options.data)
    score = f"global weight {global_weight:g}" if embedded.slots_NKE.shape[1] else "only global similarity"
    print(f"{checkpoint.name} on {options.split} of {corpora}: {num_items:,} items, {score}\n")
    print(format_table(result, notes), flush=True)
    return ranks


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command_line = Parser("score.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    command_line.add_argument(
        "--checkpoint", required=True, help="a run folder (its best weights), a model folder, or a name on the Hub"
    )
    command_line.add_argument(
        "--data", required=True, action="append", type=Path, help="a corpus with a table training; may be repeated"
    )
    add_options(command_line, ScoreOptions)
    return command_line


if __name__ == "__main__":
    sys.exit(run_program(main))
