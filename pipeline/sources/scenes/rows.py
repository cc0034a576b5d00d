"""The rows of one item: from its scene to what the stages ingest, captions, translate and pack would write of it."""

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.captioning.prompts import BUILT_IN
from pipeline.corpus.schema import SCORES
from pipeline.engine.stage import Rows
from pipeline.hashing import canonical_json
from pipeline.media.images import encode_jpeg
from pipeline.packing.filters import Filters
from pipeline.packing.rows import Source, join_captions, join_descriptions
from pipeline.sources.scenes.clips import FRAMES_PER_S, avi
from pipeline.sources.scenes.content import Sampler, Scene, generator
from pipeline.sources.scenes.describing import CAPTIONER, descriptions
from pipeline.sources.scenes.drawing import frames
from pipeline.sources.scenes.languages import SOURCE, caption
from pipeline.sources.scenes.messages import Message, messages
from pipeline.sources.scenes.noise import translation

TRANSLATOR, REVISION, LICENSE, NAME = "scenes:pseudo", "1", "CC0-1.0", "scenes"
VERSION = 1  # of what is drawn and said: a corpus of another one is not taken for the same
CAPTIONS = 3  # an item and language
TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What decides every byte of a corpus of scenes."""

    items: int = 3000  # of the split train
    val: int = 300
    test: int = 300
    size: int = 64  # side of the pictures in pixels
    seed: int = 0
    languages: tuple[str, ...] = ("de", "fr", "cs", "zh", "ja")
    translation_noise: float = 0.2  # level, 0 to 1
    description_errors: float = 0.1  # probability that a fact is wrong
    videos: float = 0.0  # share of clips

    def told(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "languages": list(self.languages), "version": VERSION}


@dataclasses.dataclass(frozen=True)
class Item:
    """One item before it is written: its id is its path below the folder of media."""

    item_id: str
    split: str
    scene: Scene


def plan(settings: Settings) -> list[Item]:
    """The items in their order. What is held out does not depend on how many training items there are."""
    sampler = Sampler(generator(settings.seed, "scenes"), settings.videos)
    sizes = {"val": settings.val, "test": settings.test, TRAIN: settings.items}
    scenes = {split: sampler.scenes(count) for split, count in sizes.items()}
    return [
        Item(f"{split}/{number:05d}.{'avi' if scene.motion else 'png'}", split, scene)
        for split in (TRAIN, "val", "test")
        for number, scene in enumerate(scenes[split])
    ]


def said_of(item: Item, seed: int) -> list[Message]:
    return messages(item.scene, generator(seed, item.item_id, "messages"), CAPTIONS)


def medium(item: Item, settings: Settings) -> tuple[bytes, list[Image.Image]]:
    """The bytes of the item's file, PNG or AVI, and its frames."""
    shown = frames(item.scene, settings.size, generator(settings.seed, item.item_id, "drawing"))
    if item.scene.motion:
        return avi(shown), shown
    buffer = io.BytesIO()
    shown[0].save(buffer, "PNG")
    return buffer.getvalue(), shown


def rows_of(item: Item, settings: Settings, media: Path) -> dict[str, Rows]:
    """By table, the rows of an item; its file is written below the folder `media`."""
    data, shown = medium(item, settings)
    path = media / item.item_id
    path.write_bytes(data)
    row = {
        "item_id": item.item_id,
        "media_type": "video" if item.scene.motion else "image",
        "uri": str(path),
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": settings.size,
        "height": settings.size,
        "num_frames": len(shown),
        "duration_s": len(shown) / FRAMES_PER_S if item.scene.motion else None,
        "split": item.split,
        "source": NAME,
        "license": LICENSE,
    }
    said = said_of(item, settings.seed)
    made = {
        "items": [row],
        "captions": _captions(item, said, settings),
        "descriptions": _descriptions(item, row, settings),
        "translations": _translations(item, said, settings) if item.split == TRAIN else [],
    }
    source = Source("", row, {name: rows for name, rows in made.items() if name != "items"})
    kept = ("item_id", "split", "media_type", "uri", "sha256", "source", "license", "num_frames")
    packed: dict[str, Any] = {name: row[name] for name in kept} | {"media": encode_jpeg(_column(shown))}
    packed |= {"captions": join_captions([source], Filters()), "descriptions": join_descriptions([source])}
    return {**made, "training": [packed]}


def _column(shown: list[Image.Image]) -> Image.Image:
    side = shown[0].width
    column = Image.new("RGB", (side, side * len(shown)))
    for number, frame in enumerate(shown):
        column.paste(frame, (0, number * side))
    return column


def _captions(item: Item, said: list[Message], settings: Settings) -> Rows:
    """In English, and where the item is held out in every language: of the same messages, so that they correspond."""
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
        for number, message in enumerate(said)
    ]


def _descriptions(item: Item, row: dict[str, Any], settings: Settings) -> Rows:
    times = [number / FRAMES_PER_S for number in range(row["num_frames"])] if item.scene.motion else []
    told = descriptions(item.scene, settings.description_errors, settings.seed, item.item_id)
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
            "prompt_tokens": None,
            "completion_tokens": None,
            "flags": [],
            "frame_times_s": times,
            "sha256": row["sha256"],
        }
        for view, text in told.items()
    ]


def _translations(item: Item, said: list[Message], settings: Settings) -> Rows:
    made = []
    for number, message in enumerate(said):
        caption_id, source_text = f"{item.item_id}#{SOURCE}#{number}", caption(message, SOURCE)
        for language in settings.languages:
            done = translation(message, language, settings.translation_noise, settings.seed, caption_id)
            made.append(
                {
                    "caption_id": caption_id,
                    "item_id": item.item_id,
                    "source_table": "captions",
                    "source_language": SOURCE,
                    "source_text": source_text,
                    "target_language": language,
                    "text": done.text,
                    "translator": TRANSLATOR,
                    "revision": REVISION,
                    "decoding": canonical_json({"noise": settings.translation_noise}),
                    "scores": {**dict.fromkeys(SCORES), "quality": done.quality},
                    "flags": [],
                }
            )
    return made
