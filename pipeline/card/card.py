"""The card: CORPUS/README.md, a Hugging Face dataset card, with contact-sheet.png and quality.png beside it.

    complete tables → counted shard by shard → front matter and sections → README.md

A card is made to be published: nothing in it depends on the clock, and no path of this machine is named.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.card.contact_sheet import samples, write_contact_sheet
from pipeline.card.front_matter import front_matter, main_items, main_table
from pipeline.card.markdown import grid, plain, public, ranked, some
from pipeline.card.quality_chart import write_chart
from pipeline.card.texts import EMBEDDED_WARNING, captions_section, descriptions_section
from pipeline.card.training import caption_counts, training_samples, training_section
from pipeline.card.translations import Survey, surveyed, translations_section
from pipeline.corpus.counting import doubled, numbers_by, spread, total, values
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, atomic_writer, complete
from pipeline.hashing import canonical_json
from pipeline.packing.manifest import count_without_media

CARD, SHEET, QUALITY = "README.md", "contact-sheet.png", "quality.png"
SAMPLES, SAMPLE_CHARACTERS, EXAMPLES = 5, 300, 3
# Settings that are shown where the card tells of what they did, and hashes that tell a reader nothing.
OWN_SECTION = {"views", "translators", "back", "encoders", "thresholds", "filters", "contents"}
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
"""
JOINING = """
Files of the same number hold rows of the same items in every table{but}, so tables join file by file, by `item_id`.
"""
PACKED = """
Table `training` is joined already: each row is one item with all its texts.
"""
SPLITS = """
The split of an item is its column `split`; that `datasets` calls every table `train` means nothing.
"""
PUBLISHING = """
## Before you publish it

{media}
Column `uri` says where the originals lay on the machine that made the corpus, and every table's `manifest.json` holds
the paths of the inputs and corpora that it was made from: look through them first. Leave out `.state`, which only
serves to go on with the work."""
REFERENCES = "The pictures and videos are not in this folder."
PIXELS = "The pictures are in `training.media`, made smaller: publish them only where their licences allow it."
NO_MLLM = ", an image classifier and no multimodal LLM"


def write_card(corpus: Path) -> None:
    """Write README.md and its figures from the corpus's complete tables; the same corpus gives the same bytes.

    Raises UsageError where neither `items` nor `training` is complete.
    """
    packed = complete(corpus, "training") and not (corpus / "items").is_dir()
    tables = {
        name: Table(corpus, name) for name in SCHEMAS if complete(corpus, name) or (name == "items" and not packed)
    }
    surveys = surveyed(tables["translations"]) if "translations" in tables else {}
    name = corpus.absolute().name
    text = f"---\n{front_matter(name, tables)}\n---\n\n{body(name, corpus, tables, surveys)}\n"
    if "items" in tables:
        write_contact_sheet(corpus, corpus / SHEET, name, (_summary(tables), _writer(tables)))
    if surveys:
        write_chart(corpus / QUALITY, surveys)
    with atomic_writer(corpus / CARD) as stream:
        stream.write(text.encode("utf-8"))


def body(name: str, corpus: Path, tables: dict[str, Table], surveys: Mapping[str, Survey]) -> str:
    """The card's Markdown, section by section. `surveys` are of table `translations`, by language."""
    blocks = [f"# {plain(name)}", *_opening(tables), "## Sample rows"]
    if "items" in tables:
        blocks += [_samples(corpus), *_items(tables)]
    else:
        blocks += [training_samples(tables["training"], SAMPLES, SAMPLE_CHARACTERS)]
    blocks += captions_section(tables["captions"]) if "captions" in tables else []
    blocks += descriptions_section(tables["descriptions"]) if "descriptions" in tables else []
    blocks += translations_section(tables["translations"], surveys, QUALITY) if "translations" in tables else []
    blocks += training_section(tables["training"], alone="items" not in tables) if "training" in tables else []
    return "\n\n".join([*blocks, *_licenses(tables), *_failures(tables), *_provenance(tables), _reading(tables)])


def _opening(tables: dict[str, Table]) -> list[str]:
    if "items" not in tables:
        return [f"{plain(_summary(tables))}. Packed for training from {_corpora(tables)}."]
    writer = _writer(tables)
    blocks = [f"{plain(_summary(tables))}. {plain(writer[0].upper() + writer[1:])}."]
    blocks += [EMBEDDED_WARNING] if NO_MLLM in writer else []
    return [*blocks, f"![Pictures of the corpus with what was written about them]({SHEET})"]


def _corpora(tables: dict[str, Table]) -> str:
    manifest = tables["training"].manifest
    corpora = [source["name"] for source in manifest.get("sources", [])] or manifest["settings"].get("corpora", [])
    return plain(", ".join(public(str(path).rstrip("/")) for path in corpora) or "another corpus")


def _summary(tables: dict[str, Table]) -> str:
    media = sorted(values(main_items(tables), "media_type").items())
    parts = [some(count, kind) for (kind,), count in media] or ["no items"]
    if "captions" in tables and (languages := sorted(key for (key,) in values(tables["captions"], "language"))):
        parts.append(f"{some(tables['captions'].num_rows, 'caption')} ({', '.join(languages)})")
    if "descriptions" in tables:
        views = len(values(tables["descriptions"], "view"))
        parts.append(f"{some(tables['descriptions'].num_rows, 'description')} in {some(views, 'view')}")
    if "translations" in tables and (
        targets := sorted(key for (key,) in values(tables["translations"], "target_language"))
    ):
        parts.append(f"{some(tables['translations'].num_rows, 'translation')} ({', '.join(targets)})")
    if "items" not in tables:
        captions = caption_counts(tables["training"])
        languages = sorted({language for _, language, _ in captions})
        parts.append(f"{some(captions.total(), 'caption')} ({', '.join(languages)})" if captions else "no captions")
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
        size = f"{sample.item['media_type']}, {_size(sample.item)}"
        rows.append([sample.item["item_id"], size, said.get("view", ""), said.get("text", ""), caption])
    return grid(["item", "media", "view", "description", "first caption"], rows, SAMPLE_CHARACTERS)


def _size(item: dict[str, Any]) -> str:
    if item["width"]:
        return f"{item['width']} × {item['height']}"
    return f"{item['num_frames']:,} × features" if item["uri"] else "not there"


def _pixels(column: str) -> Callable[[pa.Table], Any]:
    """Sizes in pixels, null for features and for what is not there, which have none."""
    return lambda shard: pc.if_else(pc.equal(shard[column], 0), None, shard[column])


def _items(tables: dict[str, Table]) -> list[str]:
    items, rows = tables["items"], []
    widths, heights = (numbers_by(items, ["media_type"], _pixels(column)) for column in ("width", "height"))
    seconds = numbers_by(items, ["media_type"], lambda shard: pc.round(shard["duration_s"], 1))
    for (media,), count in sorted(values(items, "media_type").items()):
        times = seconds.get((media,), {})
        lasting = [spread(times), f"{total(times) / 60:,.1f}"] if times else ["", ""]
        sizes = (spread(found[media,]) if (media,) in found else "" for found in (widths, heights))
        rows.append([media, count, *sizes, *lasting])
    splits = ((*key, count) for key, count in sorted(values(items, "split", "media_type").items()))
    copies, contents = doubled(items)
    unseen = count_without_media(items.corpus)
    shared = f"{some(copies, 'item')} share {some(contents, 'content')} (`sha256`): copies of one another."
    return [
        "## What it holds",
        grid(["table", "rows", "shards"], ([name, table.num_rows, table.num_shards] for name, table in tables.items())),
        "Sizes in pixels, durations in seconds: smallest / median / largest.",
        grid(["media", "items", "width", "height", "duration", "minutes in all"], rows),
        grid(["split", "media", "items"], splits),
        grid(["source", "items"], ranked(values(items, "source"))),
        shared if copies else "No two items have the same content (`sha256`).",
        *([f"{some(unseen, 'item')} came without media, for the texts alone."] if unseen else []),
    ]


def _licenses(tables: dict[str, Table]) -> list[str]:
    counts = values(main_items(tables), "license")
    blank = f"The source states no licence for {some(counts['',], 'item')}: whether you may use it is yours to clear. "
    return [
        "## Licences",
        grid(["licence", "items"], ((text or "not stated", count) for text, count in ranked(counts))),
        f"{blank if counts['',] else ''}Licences are as the sources state them for the media, unchecked. Captions, "
        "descriptions and translations may be under other terms: their authors', and those of the models that wrote "
        "them.",
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
        settings = ([name, _shown(value)] for name, value in manifest["settings"].items() if name not in OWN_SECTION)
        tools = ", ".join(f"{tool} {version}" for tool, version in manifest["tools"].items())
        blocks += [
            f"Stage `{stage}` made {' and '.join(table.name for table in made)} with {plain(tools)}; settings "
            f"fingerprint `{manifest['fingerprint']}`, schema version {manifest['schema_version']}.",
            grid(["setting", "value"], settings),
        ]
    return blocks


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return public(canonical_json(value))
    shown = (public(str(part).rstrip("/")) for part in (value if isinstance(value, list) else [value]))
    return f"{value:,}" if isinstance(value, int) else ", ".join(shown) or "none"


def _reading(tables: dict[str, Table]) -> str:
    text, media = READING.replace("{main}", main_table(tables)), REFERENCES
    packed = tables["training"].manifest if "training" in tables else None
    if "items" in tables:
        apart = packed and "items" not in packed["parents"]
        text += JOINING.replace("{but}", " but `training`" if apart else "")
    if packed:
        text += PACKED
        media = PIXELS if packed["settings"].get("media") == "pixels" else REFERENCES
    return text + SPLITS + PUBLISHING.replace("{media}", media)
