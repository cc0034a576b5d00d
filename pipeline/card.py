"""The card: CORPUS/README.md, a Hugging Face dataset card, and CORPUS/contact-sheet.png beside it.

    complete tables → counted shard by shard → front matter and sections → README.md

A card is made to be published: nothing in it depends on the clock, and no path of this machine is named.
"""

import collections
import html
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import DatasetCardData

from pipeline.contact_sheet import samples, write_contact_sheet
from pipeline.corpus import Table, atomic_writer, complete
from pipeline.records import SCHEMAS

CARD, SHEET = "README.md", "contact-sheet.png"
MAX_DISTINCT = 10_000  # values of a column of free text that are told apart: memory stays flat
SHOWN_VALUES, SAMPLES, SAMPLE_CHARACTERS, EXAMPLES = 20, 5, 300, 3
TASKS = {"image": "image-to-text", "video": "video-text-to-text"}
FLAGS = {
    "boilerplate": "an opening or closing phrase of the model was removed",
    "cut": "the answer reached the token limit and was trimmed at its last full sentence",
    "fragment": "it ended before its first full sentence; kept as it came",
    "loop": "the same words over and over; cut before the second round",
    "markdown": "list marks, headings or emphasis were removed",
    "refusal": "the model declined or spoke of itself; kept as it came",
    "unsure": "the classifier was unsure, and the text says so",
}
# Licences of pictures and text that the Hugging Face Hub has an id for.
HUB_LICENSES = r"cc-by(-sa|-nc|-nc-sa|-nc-nd)?-[34]\.0|cc-by-(2\.[05]|nc-2\.0|nc-sa-2\.0|nd-4\.0)|cc0-1\.0|pddl|mit"
LENGTHS = "Smallest / median / largest; words are what spaces separate (Chinese, Japanese, Thai: see the characters)."
EMBEDDED_WARNING = """> [!WARNING]
> **No multimodal LLM wrote these descriptions.** The embedded describer did: an image classifier that knows a thousand
> classes, together with measurements of colour, put into sentences. It cannot count, read or tell what happens, and it
> is often wrong. It reads no prompt: a view's name alone tells it what to say. For descriptions to train on or to
> publish, use a multimodal LLM: `--mllm-url` or `--mllm`."""
READING = """## How to read it

Each table is a config, each file an Arrow IPC stream. In this folder:

```python
import os, datasets

rows = datasets.load_dataset("arrow", data_files="{main}/*.arrow", split="train")
same = datasets.load_dataset(os.getcwd(), "{main}", split="train")
```

```python
import pathlib, pyarrow

for path in sorted(pathlib.Path("{main}").glob("*.arrow")):
    with pyarrow.memory_map(str(path)) as source:
        rows = pyarrow.ipc.open_stream(source).read_all()
```

Files of the same number hold rows of the same items in every table, so tables join file by file, by `item_id`. The
split of an item is its column `split`; that `datasets` calls every table `train` means nothing.

## Before you publish it

The pictures and videos are not in this folder: `items.uri` says where they lay on the machine that made the corpus, so
look through it first. Leave out `.state`, which only serves to go on with the work."""
NO_MLLM = ", an image classifier and no multimodal LLM"

Counts = collections.Counter[tuple]


def write_card(corpus: Path) -> None:
    """Write README.md and contact-sheet.png from the corpus's complete tables; the same corpus gives the same bytes.

    Raises UsageError where table `items` is not complete.
    """
    tables = {name: Table(corpus, name) for name in SCHEMAS if name == "items" or complete(corpus, name)}
    name = corpus.absolute().name
    text = f"---\n{front_matter(name, tables)}\n---\n\n{body(name, corpus, tables)}\n"
    write_contact_sheet(corpus, corpus / SHEET, name, (_summary(tables), _writer(tables)))
    with atomic_writer(corpus / CARD) as stream:
        stream.write(text.encode("utf-8"))


def front_matter(name: str, tables: dict[str, Table]) -> str:
    """The card's YAML. An empty table gets no config: `datasets` cannot make a split of no rows."""
    texts = [tables[table] for table in ("captions", "descriptions") if table in tables]
    languages = {language.split("-")[0].lower() for table in texts for (language,) in values(table, "language")}
    return DatasetCardData(
        language=sorted(languages) or None,
        license=hub_license([text for (text,) in values(tables["items"], "license")]),
        task_categories=[TASKS[media] for (media,) in sorted(values(tables["items"], "media_type"))],
        size_categories=[size_category(tables["items"].num_rows)],
        pretty_name=name,
        tags=["caption-corpus", *(["synthetic"] if "descriptions" in tables else [])],
        configs=[
            {
                "config_name": table,
                "data_files": f"{table}/*.arrow",
                **({"default": True} if table == _main(tables) else {}),
            }
            for table in tables
            if tables[table].num_rows
        ],
    ).to_yaml()


def size_category(rows: int) -> str:
    """The Hub's category for a number of rows, for example `10K<n<100K`."""
    steps = ["1", "1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    power = max(0, len(str(rows)) - 3)
    return f"{steps[power]}<n<{steps[power + 1]}" if power else "n<1K"


def hub_license(texts: Sequence[str]) -> str:
    """The Hub's id of the one licence that all items share, `other` where there are several or it is not known."""
    text = texts[0].lower() if len(texts) == 1 else ""
    if deed := re.search(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)", text):
        text = f"cc-{deed[1]}-{deed[2]}"
    text = {"cc0": "cc0-1.0"}.get(text, "-".join(text.split()))
    return text if re.fullmatch(HUB_LICENSES, text) else "other"


def body(name: str, corpus: Path, tables: dict[str, Table]) -> str:
    """The card's Markdown, section by section."""
    writer = _writer(tables)
    blocks = [f"# {plain(name)}", f"{_summary(tables)}. {plain(writer[0].upper() + writer[1:])}."]
    blocks += [EMBEDDED_WARNING] if NO_MLLM in writer else []
    blocks += [f"![Pictures of the corpus with what was written about them]({SHEET})"]
    blocks += ["## Sample rows", _samples(corpus), *_items(tables)]
    blocks += _captions(tables["captions"]) if "captions" in tables else []
    blocks += _descriptions(tables["descriptions"]) if "descriptions" in tables else []
    blocks += [*_licenses(tables["items"]), *_failures(tables), *_provenance(tables)]
    return "\n\n".join([*blocks, READING.replace("{main}", _main(tables))])


def _main(tables: dict[str, Table]) -> str:
    return "descriptions" if "descriptions" in tables and tables["descriptions"].num_rows else "items"


def counted(table: Table, project: Callable[[pa.Table], pa.Table], limit: int | None = None) -> Counts:
    """How often each row of `project(shard)` occurs in the table, in order of first occurrence.

    A shard is memory-mapped, and only the columns that are counted are touched. With `limit`, what is new after that
    many distinct rows is counted together, as `(others)`.
    """
    counts: Counts = collections.Counter()
    for index in range(table.num_shards):
        part = project(table.shard(index))
        grouped = part.group_by(part.column_names, use_threads=False).aggregate([([], "count_all")]).to_pydict()
        numbers = grouped.pop("count_all")
        for key, number in zip(zip(*grouped.values(), strict=True), numbers, strict=True):
            full = limit and len(counts) >= limit and key not in counts
            counts[("(others)",) * len(key) if full else key] += number
    return counts


def values(table: Table, *columns: str) -> Counts:
    return counted(table, lambda shard: shard.select(list(columns)), MAX_DISTINCT)


def numbers_by(table: Table, keys: list[str], number: Callable[[pa.Table], Any]) -> dict[tuple, dict[Any, int]]:
    """By the values of `keys`, how often each value of `number(shard)` occurs; nulls are left out."""
    found: dict[tuple, dict[Any, int]] = {}
    for (*key, value), count in counted(table, lambda s: s.select(keys).append_column("number", number(s))).items():
        if value is not None:
            found.setdefault(tuple(key), {})[value] = count
    return found


def spread(counts: dict[Any, int]) -> str:
    """Smallest value / median / largest, of values with how often each occurs; of two in the middle, the lower."""
    ordered = sorted(counts)
    seen = list(itertools.accumulate(counts[value] for value in ordered))
    middle = next(value for value, reached in zip(ordered, seen, strict=True) if 2 * reached >= seen[-1])
    return f"{ordered[0]:,} / {middle:,} / {ordered[-1]:,}"


def lengths(table: Table, keys: list[str]) -> dict[tuple, tuple[str, str]]:
    """By the values of `keys`, words and characters as smallest / median / largest."""
    words = numbers_by(table, keys, lambda shard: pc.count_substring_regex(shard["text"], r"\S+"))
    characters = numbers_by(table, keys, lambda shard: pc.utf8_length(shard["text"]))
    return {key: (spread(words[key]), spread(characters[key])) for key in words}


def covered(table: Table) -> int:
    """Items with at least one row. No item is in two shards."""
    return sum(pc.count_distinct(table.shard(index)["item_id"]).as_py() for index in range(table.num_shards))


def doubled(items: Table) -> tuple[int, int]:
    """(items whose content another item has too, distinct contents among those); 8 bytes of memory an item."""
    heads = [np.empty(0, ">u8")]
    for index in range(items.num_shards):
        column = pc.utf8_slice_codeunits(items.shard(index)["sha256"], 0, 16)
        heads.append(np.frombuffer(bytes.fromhex("".join(column.to_pylist())), ">u8"))
    _, counts = np.unique(np.concatenate(heads), return_counts=True)
    return int(counts[counts > 1].sum()), int((counts > 1).sum())


def plain(text: str, limit: int | None = None) -> str:
    """Text as Markdown shows it literally, on one line: it cannot open a tag, a cell, a link or a heading."""
    text = " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())
    if limit and len(text) > limit:
        text = f"{text[: limit - 1].rstrip()}…"
    # Within a word an underscore is literal as it stands, and file names stay readable.
    return re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^#", r"\\\g<0>", html.escape(text, quote=False))


def public(text: str) -> str:
    """The text with `…/` for the folders of absolute paths, and for all of a URL but its last part.

    >>> public("/home/me/my photos/a.jpg: there is no such file")
    '…/a.jpg: there is no such file'
    """
    text = re.sub(r"[A-Za-z][\w+.-]*://[^\s'\"?#]*?([^\s'\"/?#]*)/?([?#][^\s'\"]*)?(?=[\s'\"]|$)", r"…/\1", text)
    return re.sub(r"(?<![^\s'\"(\[=])~?/([^:'\"]*/)?(?=\S)", "…/", text)


def grid(header: Sequence[str], rows: Iterable[Sequence[Any]], limit: int | None = None) -> str:
    """A Markdown table, empty columns left out; cells are escaped and cut to `limit` characters."""
    columns = [column for column in zip(header, *rows, strict=True) if any(cell != "" for cell in column[1:])]
    if not columns:
        return "None."
    marks = ["---:" if isinstance(column[1], int) else "---" for column in columns]
    cells = [[f"{cell:,}" if isinstance(cell, int) else plain(cell, limit) for cell in column] for column in columns]
    head, *rest = zip(*cells, strict=True)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rest))


def total(counts: dict[Any, int]) -> Any:
    return sum(value * count for value, count in counts.items())


def some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ranked(counts: Counts) -> list[tuple]:
    """The commonest rows, each with its count at the end; the others are one row."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rows: list[tuple] = [(*key, count) for key, count in ordered[:SHOWN_VALUES]]
    if rest := ordered[SHOWN_VALUES:]:
        rows.append((f"({len(rest):,} others)", *[""] * (len(rest[0][0]) - 1), sum(count for _, count in rest)))
    return rows


def matrix(counts: Counts, totals: Counts) -> str:
    """Counts of (view, value) as a table of views by values, each with its share of the view's total."""
    columns = sorted({column for _, column in counts})
    shares = ([(counts[view, column], total) for column in columns] for (view,), total in totals.items())
    cells = ([f"{count:,} ({count / total:.1%})" if count else "0" for count, total in row] for row in shares)
    return grid(["view", *columns], ([view, *row] for (view,), row in zip(totals, cells, strict=True)))


def _summary(tables: dict[str, Table]) -> str:
    media = sorted(values(tables["items"], "media_type").items())
    parts = [some(count, kind) for (kind,), count in media] or ["no items"]
    if "captions" in tables and (languages := sorted(key for (key,) in values(tables["captions"], "language"))):
        parts.append(f"{some(tables['captions'].num_rows, 'caption')} ({', '.join(languages)})")
    if "descriptions" in tables:
        views = len(values(tables["descriptions"], "view"))
        parts.append(f"{some(tables['descriptions'].num_rows, 'description')} in {some(views, 'view')}")
    return " · ".join(parts)


def _writer(tables: dict[str, Table]) -> str:
    if "descriptions" not in tables:
        return "not described yet"
    captioner = tables["descriptions"].manifest["settings"]["captioner"]
    return f"described by {public(captioner)}{NO_MLLM if captioner.startswith('embedded:') else ''}"


def _samples(corpus: Path) -> str:
    rows = []
    for number, sample in enumerate(samples(corpus, SAMPLES)):
        said = sample.descriptions[number % len(sample.descriptions)] if sample.descriptions else {}
        caption = sample.captions[0]["text"] if sample.captions else ""
        size = f"{sample.item['media_type']}, {sample.item['width']} × {sample.item['height']}"
        rows.append([sample.item["item_id"], size, said.get("view", ""), said.get("text", ""), caption])
    return grid(["item", "media", "view", "description", "first caption"], rows, SAMPLE_CHARACTERS)


def _items(tables: dict[str, Table]) -> list[str]:
    items, rows = tables["items"], []
    widths, heights = (numbers_by(items, ["media_type"], itemgetter(c)) for c in ("width", "height"))
    seconds = numbers_by(items, ["media_type"], lambda shard: pc.round(shard["duration_s"], 1))
    for (media,), count in sorted(values(items, "media_type").items()):
        times = seconds.get((media,), {})
        lasting = [spread(times), f"{total(times) / 60:,.1f}"] if times else ["", ""]
        rows.append([media, count, spread(widths[media,]), spread(heights[media,]), *lasting])
    splits = ((*key, count) for key, count in sorted(values(items, "split", "media_type").items()))
    copies, contents = doubled(items)
    shared = f"{some(copies, 'item')} share {some(contents, 'content')} (`sha256`): copies of one another."
    return [
        "## What it holds",
        grid(["table", "rows", "shards"], ([name, table.num_rows, table.num_shards] for name, table in tables.items())),
        "Sizes in pixels, durations in seconds: smallest / median / largest.",
        grid(["media", "items", "width", "height", "duration", "minutes in all"], rows),
        grid(["split", "media", "items"], splits),
        grid(["source", "items"], ranked(values(items, "source"))),
        shared if copies else "No two items have the same content (`sha256`).",
    ]


def _captions(captions: Table) -> list[str]:
    if not captions.num_rows:
        return ["## Captions", "The source came with none."]
    measures = lengths(captions, ["language", "origin"])
    counts = sorted(values(captions, "language", "origin").items())
    return [
        "## Captions",
        f"Of {some(covered(captions), 'item')}. {LENGTHS}",
        grid(["language", "origin", "captions", "words", "characters"], ((*k, n, *measures[k]) for k, n in counts)),
    ]


def _descriptions(table: Table) -> list[str]:
    totals, measures = values(table, "view"), lengths(table, ["view"])
    if not totals:
        return ["## Descriptions", "None could be made: see the failures."]
    tokens = [numbers_by(table, ["view"], itemgetter(column)) for column in ("prompt_tokens", "completion_tokens")]
    sums = {key: [total(counts[key]) if key in counts else "" for counts in tokens] for key in totals}
    rows = ([*key, count, *measures[key], *sums[key]] for key, count in totals.items())
    flags = counted(table, _flags)
    legend = "; ".join(f"**{flag}**: {meaning}" for flag, meaning in FLAGS.items() if any(flag in key for key in flags))
    writers = ((public(name), *rest) for name, *rest in ranked(values(table, "captioner", "revision")))
    asked = ((*key, n) for key, n in values(table, "view", "prompt_id", "decoding").items())
    prompts = ([name, view["prompt"]] for name, view in sorted(table.manifest["settings"]["views"].items()))
    return [
        "## Descriptions",
        f"Of {some(covered(table), 'item')}. {LENGTHS}",
        grid(["view", "descriptions", "words", "characters", "prompt tokens", "completion tokens"], rows),
        "How the answers ended (`finish_reason`; `length` is the token limit):",
        matrix(values(table, "view", "finish_reason"), totals),
        f"What was noticed in them (`flags`): {legend if flags else 'nothing'}.",
        *([matrix(flags, totals)] if flags else []),
        "### Who wrote them, and how",
        grid(["captioner", "revision", "descriptions"], writers),
        grid(["view", "prompt_id", "decoding", "descriptions"], asked),
        "The prompts. `{media}` stands for “picture” or “video”; a video's prompt begins with its frames' times.",
        grid(["view", "prompt"], prompts),
    ]


def _flags(shard: pa.Table) -> pa.Table:
    """(view, flag), one row a flag."""
    rows = shard.select(["view", "flags"]).combine_chunks()
    views = rows["view"].take(pc.list_parent_indices(rows["flags"]))
    return pa.table({"view": views, "flag": pc.list_flatten(rows["flags"])})


def _licenses(items: Table) -> list[str]:
    counts = values(items, "license")
    blank = f"The source states no licence for {some(counts['',], 'item')}: whether you may use it is yours to clear. "
    return [
        "## Licences",
        grid(["licence", "items"], ((text or "not stated", count) for text, count in ranked(counts))),
        f"{blank if counts['',] else ''}Licences are as the sources state them for the media, unchecked. Captions and "
        "descriptions may be under other terms: their authors', and those of the model that wrote them.",
    ]


def _failures(tables: dict[str, Table]) -> list[str]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for table in tables.values():
        for failure in table.failures():
            found.setdefault((failure["stage"], failure["error"]), []).append(failure)
    rows = []
    for (stage, error), group in sorted(found.items()):
        examples = [f"{failure['id']}: {public(failure['message'])}" for failure in group[:EXAMPLES]]
        rows.append([stage, error, len(group), " — ".join(examples)])
    told = grid(["stage", "reason", "records", "for example"], rows, 3 * SAMPLE_CHARACTERS)
    return ["## Failures", told if rows else "No record failed."]


def _provenance(tables: dict[str, Table]) -> list[str]:
    blocks = ["## Provenance"]
    for stage in dict.fromkeys(table.manifest["stage"] for table in tables.values()):
        made = [table for table in tables.values() if table.manifest["stage"] == stage]
        manifest = made[0].manifest
        settings = ([name, _shown(value)] for name, value in manifest["settings"].items() if name != "views")
        tools = ", ".join(f"{tool} {version}" for tool, version in manifest["tools"].items())
        blocks += [
            f"Stage `{stage}` made {' and '.join(table.name for table in made)} with {plain(tools)}; settings "
            f"fingerprint `{manifest['fingerprint']}`, schema version {manifest['schema_version']}.",
            grid(["setting", "value"], settings),
        ]
    return blocks


def _shown(value: Any) -> str:
    shown = (public(str(part).rstrip("/")) for part in (value if isinstance(value, list) else [value]))
    return f"{value:,}" if isinstance(value, int) else ", ".join(shown) or "none"
