"""The closing report of a Beam stage: counts, reasons of failures, a few rows, and the next command."""

import collections
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.corpus.counting import values
from pipeline.corpus.table import FAILURES, MANIFEST, Table
from pipeline.engine.stage import Say, Stage
from pipeline.packing.contents import TRAIN
from pipeline.packing.near_duplicates import MOVED
from pipeline.sources.account import sentence

COUNTED_BY = {
    "items": "media_type",
    "captions": "language",
    "descriptions": "view",
    "translations": "target_language",
    "training": "split",
    "vectors": "part",
}
NEXT = {
    "ingest": "beam_runner.py --stage captions --output {}",
    # to Portuguese, which needs no model except the installed one
    "captions": "beam_runner.py --stage translate --text descriptions --languages pt --output {}",
    "translate": "beam_runner.py --stage pack --output {}",
    "embed": "stages/index.py --data {} --output INDEX",
    "pack": "stages/index.py --checkpoint embedded --data {} --output INDEX",
}
ROWS = {
    "items": "{item_id}  {media_type} {width}×{height}",
    "captions": "{item_id}  {language}: {text}",
    "descriptions": "{item_id}  {view}: {text}",
    "translations": "{item_id}  {target_language} {scores[quality]:.2f}: {text}  ← {source_text}",
    "training": "{item_id}  {media_type}, split {split}",
    "vectors": "{item_id}  {part} {view}",
}
NUM_ROWS = 5


def report(corpus: Path, output: Path, stages: Sequence[Stage], changed: bool, say: Say) -> int:
    """Print what the stages' tables hold.

    Args:
        corpus: The corpus folder.
        output: The corpus folder as the user typed it.
        stages: The stages of the run.
        changed: Whether the run made any shard.
        say: Prints a line.

    Returns:
        The number of records that failed or were not taken.
    """
    if not changed:
        say("nothing to do: every shard is complete (--stage update takes new files in --input)")
    num_failed = 0
    for stage in stages:
        for table in (Table(corpus, name) for name in stage.tables):
            say(f"{table.name:<14}{table.num_rows:>10,} rows  {table.num_shards:>6,} shards")
            for (value,), count in sorted(values(table, COUNTED_BY[table.name]).items()) if changed else ():
                say(f"  {value:<12}{count:>10,}")
            if table.name == "items" and changed:
                splits = sorted(values(table, "split").items())
                say(f"  splits: {', '.join(f'{split} {count:,}' for (split,), count in splits)}")
            for line in _notes(table):
                say(f"  {line}")
        table = Table(corpus, stage.tables[0])
        failures = table.failures()
        num_failed += len(failures)
        kinds = collections.Counter(failure["error"] for failure in failures if failure["shard"] is not None)
        for kind, count in kinds.most_common():
            say(f"  failed: {kind:<12}{count:>6,}  (listed in {table.folder / FAILURES})")
        for entry in table.manifest.get("not_taken", ()):
            say(f"  {'not taken' if entry['kind'] else 'ignored'}: {sentence(entry)}")
        if any(failure["shard"] is None for failure in failures):
            say(f"  what was not taken is listed in {table.folder / FAILURES}")
    for line in _rows(Table(corpus, stages[-1].tables[0])):
        say(f"  {line}")
    say(f"card: {output / 'README.md'}")
    say(f"next: python {NEXT[stages[-1].name].format(shlex.quote(str(output)))}")
    return num_failed


def _notes(table: Table) -> Iterator[str]:
    """What the manifest records about items and pairs that are left out."""
    for language, count in table.manifest.get("not_given", {}).items():
        yield f"{language}: {count:,} captions came without a translation, and have none"
    if count := table.manifest.get("without_media"):
        yield f"{count:,} items left out because they have no media (--allow-missing-media)"
    if copies := table.manifest.get("near_duplicates"):
        moved = f"{len(copies['moved']):,} pictures moved out of split {TRAIN}, to {MOVED}"
        yield f"{len(copies['pairs']):,} pairs of near-duplicates, listed in {MANIFEST}: {moved}"
    if flagged := dict(table.manifest.get("dropped_descriptions", {})):
        num_rows = flagged.pop("rows")
        reasons = ", ".join(f"{flag} {count:,}" for flag, count in sorted(flagged.items()))
        yield f"{num_rows:,} descriptions left out because of their flags ({reasons}); --filters can keep them"
    for language, counts in table.manifest.get("dropped", {}).items():
        rules = sorted((rule, count) for rule, count in counts.items() if rule not in ("pairs", "kept") and count)
        reasons = ", ".join(f"{rule} {count:,}" for rule, count in rules) or "nothing dropped"
        yield f"{language}: {counts['kept']:,} of {counts['pairs']:,} pairs kept ({reasons})"


def _rows(table: Table) -> Iterator[str]:
    """A few rows, spread over the table's first shard."""
    width = shutil.get_terminal_size((120, 24)).columns - 2
    shard: pa.Table = table.shard(0, check=True)
    count = min(NUM_ROWS, shard.num_rows)
    spread = pa.array([number * shard.num_rows // count for number in range(count)], pa.int64())
    for row in shard.take(spread).to_pylist():
        line = ROWS[table.name].format_map(row)
        yield line if len(line) <= width else f"{line[: width - 1]}…"
