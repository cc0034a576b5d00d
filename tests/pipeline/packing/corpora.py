"""Corpora as the earlier stages leave them, written row by row, and the stage run over them as the program does."""

import itertools

import pyarrow as pa

from pipeline.corpus import commit as tables
from pipeline.corpus import table as corpora
from pipeline.corpus.schema import SCHEMAS, SCORES
from pipeline.corpus.table import Table
from pipeline.engine import window
from pipeline.engine.run_state import locked, run_token, stop_request
from pipeline.engine.stage import Run
from pipeline.hashing import file_hash

PARENTS = {"descriptions": ("items",), "translations": ("items", "captions")}


def item(path, item_id=None, split="train", size=(48, 40), **changed):
    row = {
        "item_id": item_id or path.name,
        "media_type": "image",
        "uri": str(path),
        "sha256": file_hash(path) if path.is_file() else "",
        "width": size[0],
        "height": size[1],
        "num_frames": 1,
        "duration_s": None,
        "split": split,
        "source": "test",
        "license": "",
    }
    return {**row, **changed}


def caption(item_id, text, number=0, language="en", origin="human"):
    row = {"caption_id": f"{item_id}#{language}#{number}", "item_id": item_id, "language": language}
    return {**row, "text": text, "origin": origin, "split": "train"}


def description(item_id, view, text, flags=()):
    row = {name: "" for name in SCHEMAS["descriptions"].names}
    empty = {"prompt_tokens": None, "completion_tokens": None, "frame_times_s": [], "flags": list(flags)}
    return {**row, **empty, "item_id": item_id, "view": view, "text": text, "language": "en"}


def translation(caption_id, target, text, flags=(), table="captions", **scores):
    """Of a caption or description by its id, which begins with the item's id."""
    row = {name: "" for name in SCHEMAS["translations"].names}
    scores = {**dict.fromkeys(SCORES), "quality": 0.75, **scores}
    ids = {"caption_id": caption_id, "item_id": caption_id.split("#")[0], "source_table": table}
    return {**row, **ids, "target_language": target, "text": text, "scores": scores, "flags": list(flags)}


def write_corpus(folder, shard_size=2, **rows):
    """Write the tables of the keyword arguments, `items` among them, in shards of the same items."""
    items = rows["items"]
    parts = [items[at : at + shard_size] for at in range(0, len(items), shard_size)] or [[]]
    for name in ("items", "captions", "descriptions", "translations"):
        if name in rows:
            write_table(folder, name, [[row for row in rows[name] if _in(row, part)] for part in parts])
    return folder


def _in(row, items):
    return row["item_id"] in {item["item_id"] for item in items}


def small_corpus(folder, photos):
    """Five photos in shards of two; the last one is of the test split, the one before has no text."""
    items = [item(path, split="test" if path == photos[-1] else "train") for path in photos]
    told = [row["item_id"] for row in items if row["item_id"] != photos[3].name]
    return write_corpus(
        folder,
        items=items,
        captions=[caption(item_id, f"Photo {item_id}.") for item_id in told],
        descriptions=[description(item_id, "short", f"Seen: {item_id}.") for item_id in told[:2]],
        translations=[
            translation(f"{told[0]}#en#0", "de", "Foto.", meaning=0.7),
            translation(f"{told[0]}#en#0", "fr", "Photo.", ["copied"], meaning=0.7),
            translation(f"{told[1]}#en#0", "de", "Bild.", meaning=0.2),
            translation(f"{told[1]}#short", "de", "Gesehen.", ["numbers", "copied"], "descriptions"),
        ],
    )


def write_table(folder, name, parts):
    (folder / name).mkdir(parents=True, exist_ok=True)
    entries = []
    for index, part in enumerate(parts):
        table = pa.Table.from_pylist(part, SCHEMAS[name])
        entry = corpora.write_shard(folder / name / corpora.shard_name(index, len(parts)), table)
        entries.append({**entry, "parent": "", "items": len(part)})
    corpora.write_manifest(
        folder,
        name,
        stage=corpora.MADE_BY[name],
        settings={},
        fingerprint="",
        tools={},
        parents={parent: folder / parent for parent in PARENTS.get(name, ()) if corpora.complete(folder, parent)},
        shards=entries,
        failures=[],
    )


def pack(stage, output, limit=None):
    """Run the stage as the program does, less Beam; with `limit`, no more shards than that, as if it was killed then.
    Returns the table's rows, or None if it was cut off."""
    stage.check(lambda line: None)
    output.mkdir(exist_ok=True)
    with locked(output):
        tables.check_settings(output, stage)
        num_shards, _ = stage.plan(output, print)
        state = tables.begin(output, [stage], num_shards)["pack"]
        run = Run(run_token(output), str(output), num_shards, {"pack": state.retry}, str(output / "cache"))
        try:
            submitted = [
                window.engine(run, [stage]).submit(index)[1] for index in itertools.islice(sorted(state.open), limit)
            ]
            for future in submitted:
                future.result()
        finally:
            window.close_engine(run.token)
        if error := stop_request(output):
            raise error
        if limit is not None:
            return None
        tables.close(output, stage, num_shards)
    return list(Table(output, "training").rows())
