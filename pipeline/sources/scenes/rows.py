"""The rows of one scene: what the stages ingest, captions, translate and pack would write of it."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.captioning.prompts import BUILT_IN
from pipeline.engine.stage import Rows
from pipeline.hashing import canonical_json
from pipeline.media.images import encode_jpeg
from pipeline.options import option
from pipeline.packing.filters import Filters
from pipeline.packing.rows import Source, join_captions, join_descriptions
from pipeline.sources.scenes.content import Message, Sampler, Scene, draw_messages, generator
from pipeline.sources.scenes.drawing import FRAMES_PER_S, encode, frames
from pipeline.sources.scenes.grammar import SOURCE, TARGETS, caption, parse_languages
from pipeline.sources.scenes.noise import CAPTIONER, descriptions, translation

TRANSLATOR, REVISION, LICENSE, NAME = "scenes:pseudo", "1", "CC0-1.0", "scenes"
VERSION = 1  # version of drawings and texts: a corpus of another one is not reused
CAPTIONS = 3  # per item and language
TRAIN = "train"


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
    tables: dict[str, Rows] = {
        "captions": _captions(item, messages, settings),
        "descriptions": _descriptions(item, row, settings),
        "translations": _translations(item, messages, settings) if item.split == TRAIN else [],
    }
    source = Source("", row, tables)
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
    return {"items": [row], **tables, "training": [packed]}


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
