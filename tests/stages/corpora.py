"""Small corpora to train on, written as `--stage pack` would: distinct pictures, texts that name them."""

import io
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import shard_name, write_manifest, write_shard
from pipeline.hashing import short_hash
from pipeline.media.features import to_bytes
from pipeline.packing.manifest import split_sizes

WORDS = {
    "en": ("red", "green", "blue", "dark", "bright", "pale"),
    "de": ("rot", "grün", "blau", "dunkel", "hell", "blass"),
    "fr": ("rouge", "vert", "bleu", "sombre", "clair", "pâle"),
    "cs": ("červená", "zelená", "modrá", "tmavá", "světlá", "bledá"),
    "zh": ("红", "绿", "蓝", "暗", "亮", "淡"),
    "ja": ("赤", "緑", "青", "暗", "明", "淡"),
}
VIEWS = ("short", "detail")
SPLITS = MappingProxyType({"train": 0.7, "val": 0.3})  # shares of the items


def picture(seed: int, size: int = 32, frames: int = 1) -> bytes:
    """A JPEG that is smooth, and like no other; `frames` of them one below the other."""
    generator = np.random.default_rng(seed)
    column = Image.new("RGB", (size, size * frames))
    for frame in range(frames):
        coarse = Image.fromarray(generator.integers(0, 255, (3, 3, 3), dtype=np.uint8))
        column.paste(coarse.resize((size, size), Image.Resampling.BICUBIC), (0, frame * size))
    stream = io.BytesIO()
    column.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def said(number: int, language: str, which: int) -> str:
    """A text that is unique to the item and to `which` of its texts: their digits as words."""
    words = WORDS.get(language, tuple(f"{language}{digit}" for digit in range(6)))
    digits = [number % 6, number // 6 % 6, number // 36 % 6]
    return " ".join(words[digit] for digit in [*digits, which % 6])


def caption(caption_id: str, language: str, text: str, origin: str, quality: float) -> dict:
    return {"caption_id": caption_id, "language": language, "text": text, "origin": origin, "quality": quality}


def row(number: int, split: str, languages=("de", "fr"), seed: int = 0, size: int = 32, frames: int = 1) -> dict:
    """An item as the table has it: translated captions in `train`, people's in other splits."""
    item_id = f"item-{number:05d}.{'mp4' if frames > 1 else 'jpg'}"
    data = picture(seed * 1_000_003 + number, size, frames)
    captions = [caption(f"{item_id}#en#{j}", "en", said(number, "en", j), "human", 1.0) for j in range(2)]
    for language in languages:
        for j in range(2):
            text = said(number, language, j)
            if split == "train":
                quality = 0.5 + 0.1 * ((number + j) % 5)
                captions.append(caption(f"{item_id}#en#{j}>{language}", language, text, "mt", quality))
            else:
                captions.append(caption(f"{item_id}#{language}#{j}", language, text, "human", 1.0))
    return {
        "item_id": item_id,
        "split": split,
        "media_type": "video" if frames > 1 else "image",
        "media": data,
        "num_frames": frames,
        "uri": f"photos/{item_id}",
        "sha256": 4 * short_hash(f"{seed} {number}"),
        "source": "made up",
        "license": "",
        "captions": captions,
        "descriptions": [
            {"view": view, "text": f"{view}: {said(number, 'en', k + 1)}"} for k, view in enumerate(VIEWS)
        ],
    }


def write_rows(folder: Path, rows: list[dict], shards: int = 2) -> Path:
    """A corpus folder with these rows as its table `training`, dealt to the shards in turn."""
    home = Path(folder) / "training"
    home.mkdir(parents=True, exist_ok=True)
    entries = [
        write_shard(home / shard_name(index, shards), pa.Table.from_pylist(rows[index::shards], SCHEMAS["training"]))
        for index in range(shards)
    ]
    write_manifest(
        Path(folder),
        "training",
        settings={"corpora": ["."], "media": "pixels", "image_size": 384, "frames": 8, "filters": {}},
        fingerprint="0" * 16,
        tools={},
        parents={},
        shards=entries,
        failures=[],
        extra={"splits": split_sizes([home / shard_name(index, shards) for index in range(shards)])},
    )
    return Path(folder)


def write_training_corpus(
    folder: Path,
    items: int = 20,
    languages: tuple[str, ...] = ("de", "fr"),
    splits=SPLITS,
    seed: int = 0,
    size: int = 32,
    shards: int = 2,
    videos: int = 0,
) -> Path:
    """`items` items, `splits` by their shares, the first `videos` of them of three frames. Returns the folder."""
    ends = np.cumsum([share * items for share in splits.values()])
    names = [list(splits)[min(int(np.searchsorted(ends, n, "right")), len(splits) - 1)] for n in range(items)]
    return write_rows(
        folder, [row(n, names[n], languages, seed, size, 3 if n < videos else 1) for n in range(items)], shards
    )


def features(number: int, frames: int, width: int = 6) -> np.ndarray:
    """[frames, width], like no other item's."""
    return np.random.default_rng(number).standard_normal((frames, width)).astype(np.float32)


def feature_row(number: int, split: str, width: int = 6, dtype: str = "float16") -> dict:
    """An item of precomputed features: one frame to five."""
    frames = 1 + number % 5
    columns = {"media": to_bytes(features(number, frames, width), dtype), "num_frames": frames}
    return {**row(number, split), **columns, "media_type": "video" if frames > 1 else "image"}


def write_feature_corpus(folder: Path, items: int = 12, width: int = 6) -> Path:
    """The first nine of twelve items in train, the others in val."""
    return write_rows(folder, [feature_row(n, "train" if n < items * 3 / 4 else "val", width) for n in range(items)])
