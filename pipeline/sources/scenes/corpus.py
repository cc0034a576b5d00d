"""Synthetic scenes on disk: a whole corpus.

It has every table that the stages would make, with the rows that they would write of each scene, manifests last, and is
read and verified like any other. 3,600 items of 64 pixels take seconds. The same settings give the same bytes.
"""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.captioning.prompts import BUILT_IN
from pipeline.corpus import table as tables
from pipeline.corpus.commit import tools
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import MANIFEST, Table, complete, shard_name
from pipeline.engine.run_state import locked
from pipeline.engine.stage import Rows
from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, differences, fingerprint, short_hash
from pipeline.media.images import encode_jpeg
from pipeline.options import option
from pipeline.packing import manifest
from pipeline.packing.filters import Filters
from pipeline.packing.manifest import JOINED, recorded_settings
from pipeline.packing.rows import Source, join_captions, join_descriptions
from pipeline.sources.scenes.content import Message, Sampler, Scene, draw_messages, generator
from pipeline.sources.scenes.drawing import FRAMES_PER_S, encode, frames
from pipeline.sources.scenes.grammar import SOURCE, TARGETS, caption, parse_languages
from pipeline.sources.scenes.noise import CAPTIONER, VIEWS, descriptions, translation
from pipeline.storage.files import write_file

TRANSLATOR, REVISION, LICENSE, NAME = "scenes:pseudo", "1", "CC0-1.0", "scenes"
VERSION = 1  # version of drawings and texts: a corpus of another one is not reused
CAPTIONS = 3  # per item and language
TRAIN = "train"
SETTINGS, TRUTH, MEDIA = "scenes.json", "scenes.jsonl", "media"
SHARD_ROWS = 1_000
PARENTS = {"captions": (), "descriptions": ("items",), "translations": ("items", "captions"), "training": JOINED}
CARD = Path(__file__).with_name("card.md")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a corpus of scenes."""

    items: int = option(3000, "items to train on", at_least=0)
    val: int = option(300, "items of split val", at_least=0)
    test: int = option(300, "items of split test", at_least=0)
    size: int = option(64, "side of a picture in pixels", at_least=16, at_most=1024)
    seed: int = option(0, "seed of everything that is drawn and written")
    languages: tuple[str, ...] = option(TARGETS, "languages besides English", parse=parse_languages, metavar="TAGS")
    translation_noise: float = option(0.2, "level of noise in translations, 0 to 1", at_least=0, at_most=1)
    description_errors: float = option(0.1, "probability that a described fact is wrong", at_least=0, at_most=1)
    videos: float = option(0.0, "share of clips, 0 to 1", at_least=0, at_most=1)

    def recorded(self) -> dict[str, Any]:
        """The settings as scenes.json and the manifests record them."""
        return {**dataclasses.asdict(self), "languages": list(self.languages), "version": VERSION}


@dataclasses.dataclass(frozen=True)
class Item:
    """One item before it is written. Its id is its path below the folder of media."""

    item_id: str
    split: str
    scene: Scene


def plan(settings: Settings) -> list[Item]:
    """The items in their order. Held-out items do not depend on the number of training items."""
    sampler = Sampler(generator(settings.seed, "scenes"), settings.videos)
    sizes = {"val": settings.val, "test": settings.test, TRAIN: settings.items}
    scenes = {split: sampler.scenes(count) for split, count in sizes.items()}
    return [
        Item(f"{split}/{number:05d}.{'avi' if scene.motion else 'png'}", split, scene)
        for split in (TRAIN, "val", "test")
        for number, scene in enumerate(scenes[split])
    ]


def item_messages(item: Item, seed: int) -> list[Message]:
    """What the captions of an item say, CAPTIONS messages."""
    return draw_messages(item.scene, generator(seed, item.item_id, "messages"), CAPTIONS)


def item_rows(item: Item, settings: Settings, media: Path) -> dict[str, Rows]:
    """The rows of an item in each table. Its file is written below the folder `media`."""
    images = frames(item.scene, settings.size, generator(settings.seed, item.item_id, "drawing"))
    data, path = encode(images), media / item.item_id
    path.write_bytes(data)
    row = {
        "item_id": item.item_id,
        "media_type": "video" if item.scene.motion else "image",
        "uri": str(path),
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": settings.size,
        "height": settings.size,
        "num_frames": len(images),
        "duration_s": len(images) / FRAMES_PER_S if item.scene.motion else None,
        "split": item.split,
        "source": NAME,
        "license": LICENSE,
    }
    messages = item_messages(item, settings.seed)
    texts: dict[str, Rows] = {
        "captions": _captions(item, messages, settings),
        "descriptions": _descriptions(item, row, settings),
        "translations": _translations(item, messages, settings) if item.split == TRAIN else [],
    }
    source = Source("", row, texts)
    column = Image.new("RGB", (settings.size, settings.size * len(images)))
    for number, image in enumerate(images):
        column.paste(image, (0, number * settings.size))
    copied = ("item_id", "split", "media_type", "uri", "sha256", "source", "license", "num_frames")
    packed = {
        **{name: row[name] for name in copied},
        "media": encode_jpeg(column),
        "captions": join_captions([source], Filters()),
        "descriptions": join_descriptions([source], Filters()),
    }
    return {"items": [row], **texts, "training": [packed]}


def _captions(item: Item, messages: list[Message], settings: Settings) -> Rows:
    """In English; for held-out items in every language, of the same messages, so that they correspond."""
    languages = (SOURCE,) if item.split == TRAIN else (SOURCE, *settings.languages)
    return [
        {
            "caption_id": f"{item.item_id}#{language}#{number}",
            "item_id": item.item_id,
            "language": language,
            "text": caption(message, language),
            "origin": "human",
            "split": item.split,
        }
        for language in languages
        for number, message in enumerate(messages)
    ]


def _descriptions(item: Item, row: dict[str, Any], settings: Settings) -> Rows:
    times = [number / FRAMES_PER_S for number in range(row["num_frames"])] if item.scene.motion else []
    views = descriptions(item.scene, settings.description_errors, settings.seed, item.item_id)
    return [
        {
            "item_id": item.item_id,
            "view": view,
            "text": text,
            "language": SOURCE,
            "captioner": CAPTIONER,
            "revision": REVISION,
            "prompt_id": BUILT_IN[view].prompt_id,
            "decoding": canonical_json({"errors": settings.description_errors}),
            "finish_reason": "stop",
            "flags": [],
            "frame_times_s": times,
            "sha256": row["sha256"],
        }
        for view, text in views.items()
    ]


def _translations(item: Item, messages: list[Message], settings: Settings) -> Rows:
    rows = []
    for number, message in enumerate(messages):
        caption_id, source_text = f"{item.item_id}#{SOURCE}#{number}", caption(message, SOURCE)
        for language in settings.languages:
            text, quality = translation(message, language, settings.translation_noise, settings.seed, caption_id)
            rows.append(
                {
                    "caption_id": caption_id,
                    "item_id": item.item_id,
                    "source_table": "captions",
                    "source_language": SOURCE,
                    "source_text": source_text,
                    "target_language": language,
                    "text": text,
                    "translator": TRANSLATOR,
                    "revision": REVISION,
                    "decoding": canonical_json({"noise": settings.translation_noise}),
                    "scores": {"quality": quality},
                    "flags": [],
                }
            )
    return rows


def write_corpus(folder: Path, settings: Settings, say: Callable[[str], None] = lambda _line: None) -> None:
    """Write a corpus of scenes: media, items, captions, descriptions, translations, training, README.md.

    A complete corpus with these settings is left as it is; an interrupted one is begun again.

    Args:
        folder: where the corpus goes.
        settings: what it holds.
        say: is given a line for each table.

    Raises:
        UsageError: No item is asked for, or the folder holds something else or a corpus with other settings.
    """
    if not settings.items + settings.val + settings.test:
        raise UsageError("--items, --val and --test are 0: give at least one item")
    corpus = Path(folder).absolute()
    if not (corpus / SETTINGS).exists():
        tables.refuse_others(corpus, "--output")
    with locked(corpus):
        if _is_complete(corpus, settings):
            say(f"{folder}: is complete already, made with the same settings")
            return
        for name in SCHEMAS:
            (corpus / name / MANIFEST).unlink(missing_ok=True)
        for name in (*SCHEMAS, MEDIA):
            shutil.rmtree(corpus / name, ignore_errors=True)
        tables.write_json(corpus / SETTINGS, settings.recorded())
        entries = _write_shards(corpus, plan(settings), settings)
        for name in SCHEMAS:
            _write_manifest(corpus, name, settings, entries[name])
            table = Table(corpus, name)
            say(f"{name}: {table.num_rows:,} rows in {table.num_shards:,} shards")


def _is_complete(corpus: Path, settings: Settings) -> bool:
    """Whether the whole corpus is there with these settings. The settings of an unfinished one do not matter."""
    stored = tables.read_json(corpus / SETTINGS)
    if stored is None or not all(complete(corpus, name) for name in SCHEMAS):
        return False
    differing = [
        f"--{name.replace('_', '-')} is {theirs!r} there and {ours!r} now"
        for name, theirs, ours in differences(stored, settings.recorded())
    ]
    if differing:
        raise UsageError(f"{corpus} was made otherwise: {'; '.join(differing)}: give the same, or another --output")
    return True


def _write_shards(corpus: Path, items: list[Item], settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Write media, shards and the truth. Returns the manifest entries of the shards by table."""
    for split in {item.split for item in items}:
        (corpus / MEDIA / split).mkdir(parents=True)
    for name in SCHEMAS:
        (corpus / name).mkdir()
    starts = range(0, len(items), SHARD_ROWS)
    entries: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for index, start in enumerate(starts):
        written = [item_rows(item, settings, corpus / MEDIA) for item in items[start : start + SHARD_ROWS]]
        for name, schema in SCHEMAS.items():
            table = pa.Table.from_pylist([row for item in written for row in item[name]], schema)
            entry = tables.write_shard(corpus / name / shard_name(index, len(starts)), table)
            entries[name].append({**entry, "parent": _parent_hash(name, entries, index), "items": len(written)})
    with write_file(corpus / TRUTH) as stream:
        for item in items:
            line = {"item_id": item.item_id, "split": item.split, **dataclasses.asdict(item.scene)}
            stream.write(f"{canonical_json(line)}\n".encode())
    return entries


def _parent_hash(name: str, entries: dict[str, list[dict[str, Any]]], index: int) -> str:
    """The checksum of what a shard was made from, as `pipeline.corpus.shards` computes it."""
    hashes = [entries[parent][index]["sha256"] for parent in PARENTS.get(name, ())]
    return str(hashes[0]) if len(hashes) == 1 else short_hash(canonical_json(hashes))


def _write_manifest(corpus: Path, name: str, settings: Settings, entries: list[dict[str, Any]]) -> None:
    extra: dict[str, Any] = {}
    if name == "training":
        shards = [corpus / name / shard_name(index, len(entries)) for index in range(len(entries))]
        extra = {
            "splits": manifest.split_sizes(shards),
            "dropped": manifest.dropped_pairs([corpus], Filters()),
            "merged": 0,
            "without_text": 0,
            "sources": [manifest.describe_source(corpus)],
        }
        values = settings.recorded() | {"truth": TRUTH, "languages": ", ".join(settings.languages)}
        with write_file(corpus / "README.md") as stream:
            stream.write(CARD.read_text(encoding="utf-8").format(**values).encode())
    recorded = _table_settings(name, settings)
    tables.write_manifest(
        corpus,
        name,
        settings=recorded,
        fingerprint=fingerprint(recorded),
        tools=tools(),
        parents={parent: corpus / parent for parent in PARENTS.get(name, ())},
        shards=entries,
        failures=[],
        extra=extra,
    )


def _table_settings(name: str, settings: Settings) -> dict[str, Any]:
    """What the readers of a table look for in its manifest, for example who described and who translated."""
    if name == "training":
        return recorded_settings()
    if name == "descriptions":
        views = {view: {"prompt": BUILT_IN[view].prompt} for view in VIEWS}
        errors = settings.description_errors
        return {"captioner": CAPTIONER, "revision": REVISION, "views": views, "errors": errors}
    if name == "translations":
        translator = {"name": TRANSLATOR, "revision": REVISION, "license": LICENSE}
        translator["decoding"] = canonical_json({"noise": settings.translation_noise})
        return {
            "text": ["captions"],
            "source_language": SOURCE,
            "translators": {language: translator for language in sorted(settings.languages)},
        }
    return settings.recorded()
