"""Corpora written row by row, as the stages leave them, and `--stage pack` run over them as the program does."""

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.corpus import commit
from pipeline.corpus.schema import SCHEMAS, SCORES
from pipeline.corpus.table import Table, complete, shard_name, write_manifest, write_shard
from pipeline.engine import window
from pipeline.engine.run_state import locked, run_token, stop_request
from pipeline.engine.stage import Run
from pipeline.packing.contents import refuse_leaks
from pipeline.packing.manifest import JOINED
from pipeline.storage.folders import Folders
from stages.pack import Pack

VIEWS = {"short": {"name": "short", "prompt": "What is in this {media}?", "max_tokens": 48, "temperature": 0.0}}
SETTINGS = {
    "items": {"inputs": ["/home/me/photos"], "shard_size": 1000},
    "captions": {"inputs": ["/home/me/photos"], "shard_size": 1000},
    "descriptions": {"captioner": "a-model", "revision": "", "views": VIEWS, "max_pixels": 4096},
    "translations": {"text": ["captions"], "translators": {}, "encoders": {}, "thresholds": {}},
    "training": {"corpora": ["/home/me/first", "/home/me/second/"], "media": "pixels", "image_size": 384, "frames": 8},
}
PARENTS = {"descriptions": ("items",), "translations": ("items", "captions"), "training": JOINED}
SIZE = (48, 40)  # pixels
Row = dict[str, Any]


def picture(path: Path, colour: str = "red", size: tuple[int, int] = SIZE) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def item(uri: Path | str, item_id: str = "", split: str = "train", size: tuple[int, int] = SIZE, **changed: Any) -> Row:
    path = Path(uri)
    sha256 = hashlib.sha256(path.read_bytes() if path.is_file() else str(uri).encode()).hexdigest()
    row = {"item_id": item_id or path.name, "media_type": "image", "uri": str(uri), "sha256": sha256}
    row |= {"width": size[0], "height": size[1], "num_frames": 1, "duration_s": None}
    return row | {"split": split, "source": "photos", "license": ""} | changed


def caption(
    item_id: str, text: str, number: int = 0, language: str = "en", origin: str = "human", **changed: Any
) -> Row:
    row = {"caption_id": f"{item_id}#{language}#{number}", "item_id": item_id, "language": language, "text": text}
    return row | {"origin": origin, "split": "train"} | changed


def description(item_id: str, text: str, view: str = "short", **changed: Any) -> Row:
    row = {"item_id": item_id, "view": view, "text": text, "language": "en", "captioner": "a-model", "revision": ""}
    row |= {"prompt_id": f"id-of-{view}", "decoding": '{"max_tokens":48}', "finish_reason": "stop", "sha256": ""}
    return row | {"prompt_tokens": 7, "completion_tokens": 3, "flags": [], "frame_times_s": []} | changed


def translation(caption_id: str, target: str = "de", text: str | None = None, **changed: Any) -> Row:
    """Of a caption or a description by its id, which begins with the item's; scores and columns by their names."""
    row = {"caption_id": caption_id, "item_id": caption_id.split("#")[0], "source_table": "captions"}
    row |= {"source_language": "en", "source_text": f"source of {caption_id}", "target_language": target}
    row |= {"translator": "opus-mt", "revision": "abc", "flags": []}
    scores = dict.fromkeys(SCORES) | {"quality": 0.75} | {name: changed.pop(name) for name in SCORES if name in changed}
    row |= {"text": f"{target} of {caption_id}" if text is None else text}
    return row | {"decoding": '{"beam":4}', "scores": scores} | changed


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
        | {"parent": "", "items": len(rows)}
        for i, rows in enumerate(shards)
    ]
    write_manifest(
        corpus,
        name,
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


def deal_corpus(corpus: Path, shard_size: int = 2, **rows: list[Row]) -> Path:
    """Write the tables of the keyword arguments, `items` among them, in shards of the same items."""
    parts = [rows["items"][at : at + shard_size] for at in range(0, len(rows["items"]), shard_size)] or [[]]
    ids = [{item["item_id"] for item in part} for part in parts]
    tables = {name: [[row for row in rows[name] if row["item_id"] in part] for part in ids] for name in rows}
    return write_corpus(corpus, **{name: tables[name] for name in SCHEMAS if name in tables})


def small_corpus(folder: Path, photos: list[Path]) -> Path:
    """Five photos in shards of two; the last one is of the test split, the one before has no text."""
    items = [item(path, split="test" if path == photos[-1] else "train") for path in photos]
    captioned = [row["item_id"] for row in items if row["item_id"] != photos[3].name]
    return deal_corpus(
        folder,
        items=items,
        captions=[caption(item_id, f"Photo {item_id}.") for item_id in captioned],
        descriptions=[
            *(description(item_id, f"Seen: {item_id}.") for item_id in captioned[:2]),
            description(captioned[2], "I cannot say.", flags=["refusal"]),
        ],
        translations=[
            translation(f"{captioned[0]}#en#0", "de", "Foto.", meaning=0.7),
            translation(f"{captioned[0]}#en#0", "fr", "Photo.", flags=["copied"], meaning=0.7),
            translation(f"{captioned[1]}#en#0", "de", "Bild.", meaning=0.2),
            translation(
                f"{captioned[1]}#short", "de", "Gesehen.", flags=["numbers", "copied"], source_table="descriptions"
            ),
            translation(f"{captioned[2]}#short", "fr", "Aucune idée.", source_table="descriptions"),
        ],
    )


def pack(stage: Pack, output: Path) -> list[Row]:
    """Run the stage as the program does, less Beam; returns the table's rows."""
    stage = dataclasses.replace(stage)  # with the corpora as they are now
    stage.check()
    refuse_leaks(stage.folders)
    output.mkdir(exist_ok=True)
    with locked(output):
        commit.check_settings(output, stage)
        num_shards, _ = stage.plan(output, print)
        run = Run(run_token(output), output, num_shards, output / "cache")
        indices = sorted(commit.begin(run, [stage])["pack"])
        try:
            for future in [window.engine(run, [stage]).submit(index)[1] for index in indices]:
                future.result()
        finally:
            window.close_engine(run.token)
        if error := stop_request(output):
            raise error
        commit.close(output, stage, num_shards, Folders())
    return list(Table(output, "training").rows())
