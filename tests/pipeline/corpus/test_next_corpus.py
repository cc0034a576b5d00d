"""The next state of a corpus: begun with links, published whole however often a run is killed on the way."""

import itertools
import shutil

import pyarrow as pa
import pytest

from pipeline.corpus import next_corpus, shards
from pipeline.corpus.changes import Changes
from pipeline.corpus.table import (
    MADE_BY,
    Table,
    complete,
    read_json,
    read_shard,
    shard_name,
    write_json,
    write_manifest,
    write_shard,
)
from pipeline.media.uri import stamp
from stages.ingest import PLAN_SCHEMA
from stages.verify import verify
from tests.corpora import caption, deal_corpus, description, item, picture

STAGES = {"ingest": ("items", "captions"), "captions": ("descriptions",)}


def plan_row(path):
    row = {"item_id": path.name, "uri": str(path), "split": "train", "source": "photos", "license": "", "captions": []}
    return row | {"media_type": "", "stamp": stamp(str(path))}


@pytest.fixture
def corpus(tmp_path):
    """Five photos in shards of two, planned; then one is renamed, one is gone and two are new."""
    photos = tmp_path / "photos"
    photos.mkdir()
    colours = {"a": "red", "b": "blue", "c": "lime", "d": "cyan", "e": "pink"}
    paths = [picture(photos / f"{name}.png", colour) for name, colour in colours.items()]
    corpus = deal_corpus(
        tmp_path / "corpus",
        items=[item(path) for path in paths],
        captions=[caption(path.name, f"Photo {path.name}.") for path in paths],
        descriptions=[description(path.name, f"Seen: {path.name}.") for path in paths],
    )
    rows = shards.in_parts(map(plan_row, paths), 2)
    entries = shards.write_plan(corpus, rows, PLAN_SCHEMA)
    write_json(corpus / ".state" / "plan" / "plan.json", {"items": 5, "shards": entries})
    paths[2].rename(photos / "z.png")
    paths[4].unlink()
    for name, colour in (("f", "navy"), ("g", "gold")):
        picture(photos / f"{name}.png", colour)
    return corpus


def begin(corpus):
    changes = Changes(corpus, map(plan_row, sorted((corpus.parent / "photos").iterdir())), by_content=True)
    assert str(changes) == "+2 new, 1 renamed, 1 gone"
    next_corpus.begin(corpus, STAGES, changes, {"inputs": []}, PLAN_SCHEMA, 2)
    return next_corpus.next_folder(corpus)


def test_items_keep_their_shards_and_rows_their_items(corpus):
    folder = begin(corpus)
    planned = [read_shard(path)["item_id"].to_pylist() for path in sorted(folder.glob(".state/plan/*.arrow"))]
    assert planned == [["a.png", "b.png"], ["z.png", "d.png"], ["f.png", "g.png"]]
    assert (folder / "items" / shard_name(0, 3)).samefile(corpus / "items" / shard_name(0, 3))
    sidecar = read_json(shards.sidecar_path(folder, "captions", 1))
    rows = Table(corpus, "captions").shard(1).to_pylist()
    carried = list(shards._carried_over(rows, sidecar[shards.CHANGES]))
    assert [row["caption_id"] for row in carried] == ["z.png#en#0", "d.png#en#0"]


def finish(folder):
    """Complete the tables as the stages do: the last shard is another one."""
    for stage, tables in STAGES.items():
        for table in tables:
            entries = [read_json(shards.sidecar_path(folder, stage, index))["tables"][table] for index in range(3)]
            path = folder / table / shard_name(2, 3)
            old = read_shard(path)
            entries[2] = write_shard(path, pa.Table.from_pylist(old.to_pylist()[:0], old.schema))
            entries = [{**entry, "parent": "", "items": 2} for entry in entries]
            parents = {"items": folder / "items"} if table == "descriptions" else {}
            made_with = {"settings": {}, "fingerprint": "", "tools": {}}
            write_manifest(folder, table, parents=parents, shards=entries, failures=[], **made_with)


def test_publishing_goes_on_wherever_it_was_killed(corpus, tmp_path, monkeypatch):
    finish(begin(corpus))
    move = next_corpus._move
    for moment in itertools.count():
        trial, moves = shutil.copytree(corpus, tmp_path / f"trial-{moment}" / corpus.name), itertools.count()

        def move_or_die(paths, moves=moves, moment=moment):
            if next(moves) == moment:
                raise KeyboardInterrupt
            move(paths)

        monkeypatch.setattr(next_corpus, "_move", move_or_die)
        try:
            next_corpus.publish(trial)
            break
        except KeyboardInterrupt:
            next_corpus.finish_publishing(trial)
        assert verify(trial)[1] == []
        assert [Table(trial, table).num_rows for table in MADE_BY if complete(trial, table)] == [4, 4, 4]
        assert not (trial / ".state" / "next").exists()
    assert moment > 10
