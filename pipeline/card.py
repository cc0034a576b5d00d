"""The card: CORPUS/README.md, a Hugging Face dataset card, and CORPUS/contact-sheet.png beside it.

    complete tables → counted shard by shard → front matter and sections → README.md

A card is made to be published: nothing in it depends on the clock, and no path of this machine is named.
"""

import re
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import DatasetCardData

from pipeline.contact_sheet import samples, write_contact_sheet
from pipeline.corpus import Table, atomic_writer, complete
from pipeline.counting import counted, covered, doubled, lengths, numbers_by, spread, total, values
from pipeline.markdown import grid, matrix, plain, public, ranked, some
from pipeline.records import SCHEMAS

CARD, SHEET = "README.md", "contact-sheet.png"
SAMPLES, SAMPLE_CHARACTERS, EXAMPLES = 5, 300, 3
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
