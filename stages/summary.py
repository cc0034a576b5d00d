"""What a run tells at its end: counts, reasons of failures, a few rows for the eye, and what to type next."""

import argparse
import collections
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.counting import counted, values
from pipeline.corpus.table import FAILURES, Table
from pipeline.engine.stage import Stage

COUNTED_BY = {
    "items": "media_type",
    "captions": "language",
    "descriptions": "view",
    "translations": "target_language",
    "training": "split",
}
NEXT = {
    "ingest": "beam_runner.py --stage captions --output {}",
    # to Portuguese, which needs no model beside what is installed
    "captions": "beam_runner.py --stage translate --text descriptions --languages pt --output {}",
    "translate": "beam_runner.py --stage pack --output {}",
    "pack": "stages/index.py --checkpoint embedded --data {} --output INDEX",
}
ROWS = 5


def tell(
    corpus: Path, stages: Sequence[Stage], fresh: bool, options: argparse.Namespace, say: Callable[[str], None]
) -> int:
    """Say what the stages' tables hold; returns the number of failed records."""
    if not fresh:
        say("nothing to do: every shard is there, made with these settings")
    failed = 0
    for stage in stages:
        for table in (Table(corpus, name) for name in stage.tables):
            say(f"{table.name:<14}{table.num_rows:>10,} rows  {table.num_shards:>6,} shards")
            for (value,), count in sorted(values(table, COUNTED_BY[table.name]).items()):
                say(f"  {value:<12}{count:>10,}")
            for line in _noted(table):
                say(f"  {line}")
        failures = Table(corpus, stage.tables[0]).failures()
        failed += len(failures)
        reasons = collections.Counter(failure["error"] for failure in failures)
        for reason, count in reasons.most_common():
            say(f"  failed: {reason:<12}{count:>6,}  (listed in {corpus / stage.tables[0] / FAILURES})")
    for line in _rows(Table(corpus, stages[-1].tables[0])):
        say(f"  {line}")
    say(f"card: {options.output / 'README.md'}")
    say(f"next: python {NEXT[stages[-1].name].format(options.output)}")
    return failed


def _noted(table: Table) -> Iterator[str]:
    """Flags of translations and pairs that packing dropped, by language."""
    if table.name == "translations":
        counts = counted(table, _flags)
        for language in sorted({language for language, _ in counts}):
            flags = {flag: count for (of, flag), count in counts.items() if of == language}
            yield f"flagged in {language}: " + ", ".join(f"{flag} {count:,}" for flag, count in ranked(flags))
    for language, count in table.manifest.get("not_given", {}).items():
        yield f"{language}: {count:,} captions came without a translation, and have none"
    if count := table.manifest.get("without_media"):
        yield f"{count:,} items left out that have no media (--allow-missing-media)"
    for language, counts in table.manifest.get("dropped", {}).items():
        rules = {rule: count for rule, count in counts.items() if rule not in ("pairs", "kept")}
        dropped = counts["pairs"] - counts["kept"]
        why = ", ".join(f"{rule} {count:,}" for rule, count in ranked(rules))
        yield f"{language}: {counts['kept']:,} of {counts['pairs']:,} pairs kept, {dropped:,} dropped ({why or 'none'})"


def _flags(shard: pa.Table) -> pa.Table:
    """(language, flag), one row a flag."""
    rows = shard.select(["target_language", "flags"]).combine_chunks()
    languages = rows["target_language"].take(pc.list_parent_indices(rows["flags"]))
    return pa.table({"language": languages, "flag": pc.list_flatten(rows["flags"])})


def ranked(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _rows(table: Table) -> Iterator[str]:
    """A few rows, spread over the table's first shard."""
    width = shutil.get_terminal_size((120, 24)).columns - 2
    shard = table.shard(0, check=True)
    count = min(ROWS, shard.num_rows)
    for number in range(count):
        row = shard.slice(number * shard.num_rows // count, 1).to_pylist()[0]
        line = f"{row['item_id']}  {_shown(table.name, row)}"
        yield line if len(line) <= width else f"{line[: width - 1]}…"


def _shown(table: str, row: dict[str, Any]) -> str:
    if table in ("captions", "descriptions"):
        return f"{row[COUNTED_BY[table]]}: {row['text']}"
    if table == "translations":
        return f"{row['target_language']} {row['scores']['quality']:.2f}: {row['text']}  ← {row['source_text']}"
    if table == "training":
        languages = collections.Counter(caption["language"] for caption in row["captions"])
        captions = ", ".join(f"{count} {language}" for language, count in sorted(languages.items()))
        return f"{row['split']}: captions {captions or 'none'}; {len(row['descriptions'])} descriptions"
    return f"{row['media_type']} {row['width']}×{row['height']}"
