"""Corpora written row by row, as the stages leave them, for tests of what reads whole corpora."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.corpus.schema import SCHEMAS, SCORES
from pipeline.corpus.table import MADE_BY, complete, shard_name, write_manifest, write_shard

VIEWS = {"short": {"name": "short", "prompt": "What is in this {media}?", "max_tokens": 48, "temperature": 0.0}}
SETTINGS = {
    "items": {"inputs": ["/home/me/photos"], "shard_size": 1000},
    "captions": {"inputs": ["/home/me/photos"], "shard_size": 1000},
    "descriptions": {"captioner": "a-model", "revision": "", "views": VIEWS, "max_pixels": 4096},
    "translations": {"text": ["captions"], "translators": {}, "encoders": {}, "thresholds": {}},
    "training": {"corpora": ["/home/me/first", "/home/me/second/"], "media": "pixels", "image_size": 384, "frames": 8},
}
PARENTS = {"translations": ("captions",), "training": ("items", "captions", "descriptions", "translations")}
Row = dict[str, Any]


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (80, 60)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def item(uri: Path | str, **changed: Any) -> Row:
    path = Path(uri)
    sha256 = hashlib.sha256(path.read_bytes() if path.exists() else str(uri).encode()).hexdigest()
    row = {"item_id": path.name, "media_type": "image", "uri": str(uri), "sha256": sha256, "width": 80, "height": 60}
    row |= {"num_frames": 1, "duration_s": None, "split": "train", "source": "photos", "license": ""}
    return row | changed


def caption(item_id: str, text: str, **changed: Any) -> Row:
    row = {"caption_id": f"{item_id}#en#0", "item_id": item_id, "language": "en", "text": text, "origin": "human"}
    return row | {"split": "train"} | changed


def description(item_id: str, text: str, view: str = "short", **changed: Any) -> Row:
    row = {"item_id": item_id, "view": view, "text": text, "language": "en", "captioner": "a-model", "revision": ""}
    row |= {"prompt_id": f"id-of-{view}", "decoding": '{"max_tokens":48}', "finish_reason": "stop", "sha256": ""}
    return row | {"prompt_tokens": 7, "completion_tokens": 3, "flags": [], "frame_times_s": []} | changed


def translation(caption_id: str, target: str = "de", quality: float | None = 0.9, **changed: Any) -> Row:
    row = {"caption_id": caption_id, "item_id": caption_id.split("#")[0], "source_table": "captions"}
    row |= {"source_language": "en", "source_text": f"source of {caption_id}", "target_language": target}
    row |= {"text": f"{target} of {caption_id}", "translator": "opus-mt", "revision": "abc", "flags": []}
    return row | {"decoding": '{"beam":4}', "scores": {**dict.fromkeys(SCORES), "quality": quality}} | changed


def training(item_id: str, texts: dict[str, str], split: str = "train", **changed: Any) -> Row:
    """A row of `training`; `texts` by language, German ones translated."""
    captions = [
        {"caption_id": f"{item_id}#{language}#0", "language": language, "text": text, "quality": 1.0}
        | {"origin": "mt" if language == "de" else "human"}
        for language, text in texts.items()
    ]
    media = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(media, "JPEG")
    row = {"item_id": item_id, "split": split, "media_type": "image", "media": media.getvalue(), "num_frames": 1}
    row |= {"uri": f"/home/me/{item_id}", "sha256": "00", "source": "photos", "license": "CC BY 2.0"}
    return row | {"captions": captions, "descriptions": [{"view": "short", "text": f"short of {item_id}"}]} | changed


def source(name: str, licenses: dict[str, int], captioner: str = "", translators: Row | None = None) -> Row:
    """An entry of the manifest's `sources`: one corpus that was packed."""
    return {"name": name, "licenses": licenses, "captioner": captioner, "translators": translators or {}}


def write_table(
    corpus: Path,
    name: str,
    shards: list[list[Row]],
    failures: list[Row] | None = None,
    extra: Row | None = None,
    **settings: Any,
) -> Path:
    """Write one table from rows, a list for each shard; `settings` replace those of SETTINGS. Returns the corpus."""
    (corpus / name).mkdir(parents=True, exist_ok=True)
    entries = [
        write_shard(corpus / name / shard_name(i, len(shards)), pa.Table.from_pylist(rows, SCHEMAS[name]))
        for i, rows in enumerate(shards)
    ]
    write_manifest(
        corpus,
        name,
        stage=MADE_BY[name],
        settings=SETTINGS[name] | settings,
        fingerprint="0123456789abcdef",
        tools={"python": "3.11", "pyarrow": "25"},
        parents={parent: corpus / parent for parent in PARENTS.get(name, ()) if complete(corpus, parent)},
        shards=entries,
        failures=failures or [],
        extra=extra or {},
    )
    return corpus


def write_corpus(corpus: Path, **tables: list[list[Row]]) -> Path:
    """Write several tables with their usual settings."""
    for name, shards in tables.items():
        write_table(corpus, name, shards)
    return corpus


def packed(corpus: Path, extra: Row | None = None, **settings: Any) -> Path:
    """A corpus of training shards only: nine items in three shards, one empty; a test split, a video, two languages."""
    rows = [
        training(
            f"{i}.png",
            {"en": f"an English text of {i}", "de": f"ein deutscher Text zu {i}"} if i % 2 else {"en": f"only {i}"},
            "test" if i % 3 == 0 else "train",
            media_type="video" if i == 8 else "image",
            descriptions=[] if i == 1 else [{"view": "short", "text": f"short of {i}"}],
        )
        for i in range(9)
    ]
    return write_table(corpus, "training", [rows[:4], [], rows[4:]], extra=extra, **settings)
