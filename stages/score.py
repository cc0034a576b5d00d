"""Score a model on a split: recalls in both directions, by language.

    accelerate launch stages/score.py --checkpoint RUN|FOLDER|NAME|embedded --data CORPUS… [--output FILE.json]
    python stages/score.py --checkpoint RUN|FOLDER|NAME|embedded --mteb TASK,TASK

The score is a·⟨query, item⟩ + (1 − a)·pool_k w_k⟨query, view_k⟩, late fusion. A LECCR model has its own, chosen in
validation; for another model it is chosen on val, if the corpus has descriptions. `translate:MODEL` translates queries
to English and scores MODEL. The table goes to standard output, everything else to standard error. `--explain N` writes
FILE-explain.html about N queries.
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
from pipeline.storage.files import location, path_on_disk
from stages.processes import Parser, accelerated, on_main, run_program
from stages.scoring.checkpoint import TRANSLATE, Checkpoint, find_checkpoint

if TYPE_CHECKING:
    from model.fusion import Fusion
    from stages.scoring.arms import Arm, Splits
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
    pooling: str | None = option(
        None, "of the views' similarities; the model's own if not given", choices=("mean", "max", "logsumexp")
    )
    fuse: str | None = option(
        None, "split to choose the late fusion on (default: val for a model without one of its own)", metavar="SPLIT"
    )
    baselines: tuple[str, ...] = option(
        (), "other checkpoints to compare with, separated by commas, each without and with late fusion"
    )
    translate_queries: str = option(
        "embedded", "translator of translate:MODEL: embedded (pt), or a model as for --mt-model", metavar="TRANSLATOR"
    )
    slot_views: tuple[str, ...] | None = option(
        None, "views to read, separated by commas, or none; as in the run, or all, if not given"
    )
    mteb: tuple[str, ...] = option((), "tasks of MTEB to score too, without descriptions", metavar="TASK,TASK")
    folds: int = option(
        1,
        "parts of the split, in its order, to average recalls over too; 5 on MSCOCO's 5K: its 1K protocol",
        at_least=1,
    )
    batch_size: int = option(64, "items, or texts, encoded at once in each process", at_least=1)
    seed: int = option(0, "seed of the bootstrap", at_least=0)
    card: bool = option(False, "write the comparison with --baselines into the model card of the run")
    output: Path | None = option(None, "JSON file for all figures", parse=path_on_disk, metavar="FILE")
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
        if not (self.data or self.mteb):
            raise UsageError("give --data CORPUS, --mteb TASK or both")
        if self.card and not (self.data and self.baselines):
            raise UsageError("--card needs --data CORPUS and --baselines NAME, whose comparison it writes")
        if self.fuse and (self.global_weight is not None or self.pooling):
            raise UsageError(f"--fuse {self.fuse} chooses --global-weight and --pooling: leave them out")
        if self.explain and not self.output:
            raise UsageError(f"--explain {self.explain} needs --output FILE.json: its page is written next to that")


def main(argv: Sequence[str]) -> int:
    """Score a checkpoint and print the table; returns the exit status."""
    parsed = parser().parse_args(argv)
    options = read_options(ScoreOptions, parsed, checkpoint=parsed.checkpoint, data=tuple(parsed.data))
    options.check()
    checkpoint = find_checkpoint(options.checkpoint.removeprefix(TRANSLATE))
    accelerator = accelerated("no")
    tasks = on_main(lambda: score_mteb(options, accelerator.device)) if options.mteb else []
    if options.data:
        score_split(options, checkpoint, accelerator, tasks)
    elif output := options.output:
        on_main(lambda: write_json(output, {"checkpoint": checkpoint.summary(), "mteb": tasks}))
    if tasks and accelerator.is_main_process:
        from stages.scoring.mteb_tasks import format_tasks

        print(format_tasks(tasks), flush=True)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def score_mteb(options: ScoreOptions, device: Any) -> list[dict[str, Any]]:
    """The results of the tasks of `--mteb`. Raises UsageError for an unknown one, or without the package."""
    try:
        from stages.scoring.mteb_tasks import score_tasks
    except ImportError as error:
        raise UsageError("--mteb needs the package mteb. Install it: pip install 'leccr[mteb]'") from error
    return score_tasks(options.checkpoint, options.mteb, options.languages, options.batch_size, device)


def score_split(options: ScoreOptions, checkpoint: Checkpoint, accelerator: Any, tasks: list[dict[str, Any]]) -> None:
    """Score the split, and what it is compared with; write the report, with the results of MTEB's tasks next to it."""
    from stages.scoring.arms import Arm, Splits, score_arm, without_descriptions

    views = checkpoint.slot_views if options.slot_views is None else checkpoint.align_views(options.slot_views)
    splits = Splits(options.data, options.languages, views, options.translate_queries, checkpoint.val_fraction)
    arm = Arm(options.checkpoint, splits, accelerator, options.batch_size, "--checkpoint")
    fusion, fused_on = choose_fusion(arm, splits, options)
    embedded = arm.embed(options.split)
    scores = []
    fuse_on = options.fuse or (splits.default_to_fuse_on(options.split) if options.baselines else None)
    if options.baselines and arm.model.slots_are_views and any(views):
        scores += without_descriptions(arm, options.split, options.seed)
    for name in options.baselines:
        baseline = Arm(name, splits, accelerator, options.batch_size, "--baselines")
        scores += score_arm(baseline, options.split, fuse_on, options.seed)

    def finish() -> None:
        try:
            too_good = options.split in (fused_on, fuse_on)
            ranks = report(options, arm, embedded, fusion, fused_on, scores, too_good, tasks)
            if options.explain:
                from stages.scoring.explain import Explainer, write_page

                explainer = Explainer(arm.model, arm.processor, arm.data(options.split), embedded, ranks, fusion)
                count = write_page(options.page, explainer, options.explain)
                print(f"{options.page} explains {count:,} queries", file=sys.stderr, flush=True)
        except OSError as error:
            raise EnvironmentTrouble(f"{error.filename}: cannot be written: {error.strerror}") from error

    on_main(finish)


def choose_fusion(arm: "Arm", splits: "Splits", options: ScoreOptions) -> "tuple[Fusion, str | None]":
    """The late fusion to score with, and the split that it was chosen on; None for one that was given."""
    from model.fusion import Fusion

    given = options.global_weight is not None or options.pooling
    fuse_on = options.fuse
    if not (fuse_on or arm.fusion or given):
        fuse_on = splits.default_to_fuse_on(options.split)
    if fuse_on or not arm.fusion:
        arm.describe()
    if fuse_on:
        return arm.choose_fusion(fuse_on), fuse_on
    own = arm.fusion or Fusion()
    weight = own.global_weight if options.global_weight is None else options.global_weight
    return Fusion(weight, options.pooling or own.pooling, own.view_weights), None


def report(
    options: ScoreOptions,
    arm: "Arm",
    embedded: "Embedded",
    fusion: "Fusion",
    fused_on: str | None,
    baselines: Sequence[dict[str, Any]],
    too_good: bool,
    tasks: Sequence[dict[str, Any]],
) -> "dict[str, LanguageRanks]":
    """Rank the split, write the files that the options name, print the tables.

    Args:
        options: What to write.
        arm: The model.
        embedded: The split as vectors, not fused.
        fusion: How its score is fused.
        fused_on: The split that the fusion was chosen on.
        baselines: Scores to compare with.
        too_good: Whether a fusion was chosen on the split that is scored.
        tasks: Results of MTEB's tasks.

    Returns:
        The ranks by language.
    """
    from stages.scoring.arms import arm_row, format_arms, score_text
    from stages.scoring.report import figures, fold_figures, format_table, gallery_notes, write_queries

    data, checkpoint = arm.data(options.split), arm.checkpoint
    try:
        result, ranks = figures(embedded.fused(fusion), fusion.global_weight, options.seed)
    except ValueError as error:
        raise UsageError(f"--checkpoint {checkpoint.name}: {error}") from error
    num_items = len(embedded.item_ids)
    if options.folds > num_items:
        raise UsageError(f"--folds {options.folds}: split {options.split} has only {num_items:,} items")
    if options.folds > 1:
        result["folds"] = fold_figures(embedded.fused(fusion), fusion.global_weight, options.folds)
    notes = [*data.notes, *checkpoint.notes, *gallery_notes(result, num_items)]
    if too_good:
        notes.append(f"late fusion was chosen on {options.split}, the split that is scored: its figures are too good")
    arms = [arm_row(arm.name, fusion, embedded, result), *baselines] if baselines else []
    summary: dict[str, Any] = {
        "checkpoint": checkpoint.summary(),
        "corpora": [{"name": path.name, "training": manifest_hash(path, "training")} for path in options.data],
        "split": options.split,
        "items": num_items,
        "settings": {
            **dataclasses.asdict(fusion),
            "fused_on": fused_on,
            "views": list(embedded.views),
            "slot_views": list(arm.splits.views),
            "batch_size": options.batch_size,
        },
        "notes": notes,
        **result,
        "arms": arms,
        "mteb": tasks,
    }
    if options.output:
        write_json(options.output, summary)
    if options.card:
        checkpoint.write_card({"split": options.split, "items": num_items, "arms": arms})
    if options.per_query:
        item_names = dict(zip(embedded.item_ids.tolist(), data.item_names, strict=True))
        write_queries(options.per_query, ranks, item_names, data.caption_ids)
    corpora = ", ".join(str(path) for path in options.data)
    score = score_text(embedded, fusion) + (f", chosen on {fused_on}" if fused_on else "")
    print(f"{arm.name} on {options.split} of {corpora}: {num_items:,} items, {score}\n")
    print(format_table(result, notes), flush=True)
    if arms:
        print(f"\n{format_arms(arms)}", flush=True)
    return ranks


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command_line = Parser("score.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    command_line.add_argument(
        "--checkpoint",
        required=True,
        help="a run folder (its best weights), a model folder, a name on the Hub, or embedded",
    )
    command_line.add_argument(
        "--data", action="append", default=[], type=location, help="a corpus with a table training; may be repeated"
    )
    add_options(command_line, ScoreOptions)
    return command_line


if __name__ == "__main__":
    sys.exit(run_program(main))
