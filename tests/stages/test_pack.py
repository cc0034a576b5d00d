"""The stage over whole corpora: what is checked, joined, merged, kept from an earlier run, and counted."""

import dataclasses
import io
import shutil

import pyarrow as pa
import pytest
from PIL import Image

import beam_runner
from pipeline.corpus import commit as tables
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, read_json
from pipeline.errors import UsageError
from pipeline.packing.filters import Filters
from stages import pack as packing
from stages.pack import Pack
from tests.conftest import make_photos
from tests.corpora import deal_corpus, item, pack, small_corpus, write_table

PHOTOS = 5


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", PHOTOS)


@pytest.fixture
def corpus(tmp_path, photos):
    return small_corpus(tmp_path / "corpus", photos)


@pytest.fixture
def stage(corpus):
    return Pack((str(corpus),), output=str(corpus), image_size=32)


def another(stage, *corpora, output):
    return dataclasses.replace(stage, corpora=tuple(map(str, corpora)), output=str(output))


def files(corpus):
    return {path.name: path.read_bytes() for path in (corpus / "training").iterdir()}


def refused(stage):
    with pytest.raises(UsageError) as raised:
        stage.check(lambda line: None)
    return str(raised.value)


@pytest.fixture
def reads(monkeypatch):
    """The uris whose pixels are read."""
    uris = []

    def read(item, uri, *arguments):
        uris.append(uri)
        return packing.read_media.__wrapped__(item, uri, *arguments)

    read.__wrapped__ = packing.read_media
    monkeypatch.setattr(packing, "read_media", read)
    return uris


# One corpus


def test_rows(stage, corpus, photos):
    rows = pack(stage, corpus)
    first, second, _, last = rows
    assert [row["item_id"] for row in rows] == [path.name for path in photos if path != photos[3]]
    assert [(each["caption_id"], each["language"], each["origin"]) for each in first["captions"]] == [
        ("photo-00000.jpg#en#0", "en", "human"),
        ("photo-00000.jpg#en#0>de", "de", "mt"),
    ]
    assert [each["quality"] for each in first["captions"]] == [1.0, 0.75]
    assert first["descriptions"] == [{"view": "short", "text": "Seen: photo-00000.jpg."}]
    assert [each["text"] for each in second["captions"]] == ["Photo photo-00001.jpg.", "Bild."]
    assert (last["split"], last["media_type"], last["uri"]) == ("test", "image", str(photos[4]))
    for row in rows:
        assert min(Image.open(io.BytesIO(row["media"])).size) == 32 and row["num_frames"] == 1
    assert Table(corpus, "training").shard(0).schema.equals(SCHEMAS["training"])


def test_the_manifest_counts_splits_and_dropped_pairs(stage, corpus):
    pack(stage, corpus)
    manifest = Table(corpus, "training").manifest
    assert manifest["splits"] == {
        "test": {"items": 1, "captions": 1, "descriptions": 0},
        "train": {"items": 3, "captions": 5, "descriptions": 2},
    }
    assert manifest["dropped"] == {
        "de": {"pairs": 3, "kept": 2, "numbers": 1, "copied": 1},
        "fr": {"pairs": 1, "kept": 0, "copied": 1},
    }
    assert (manifest["without_text"], manifest["merged"]) == (1, 0)
    assert set(manifest["parents"]) == {"items", "captions", "descriptions", "translations"}
    assert manifest["settings"]["corpora"] == ["."]


def test_references_open_no_file(stage, corpus, photos):
    for path in photos:
        path.unlink()
    rows = pack(dataclasses.replace(stage, media="reference"), corpus)
    assert {(row["media"], row["num_frames"]) for row in rows} == {(None, 0)} and len(rows) == 4
    assert [row["uri"] for row in rows][:2] == [str(path) for path in photos[:2]]


def test_one_broken_photo_fails_alone_and_is_tried_again(stage, corpus, photos, reads):
    good = photos[1].read_bytes()
    photos[1].write_bytes(good[:300])
    assert len(pack(stage, corpus)) == 3
    (failure,) = Table(corpus, "training").failures()
    assert (failure["id"], failure["error"], failure["stage"]) == (photos[1].name, "changed", "pack")
    assert Table(corpus, "training").manifest["without_text"] == 1
    photos[1].write_bytes(good)
    reads.clear()
    assert len(pack(stage, corpus)) == 4
    assert reads == [str(photos[1])]
    assert Table(corpus, "training").failures() == []
    whole = files(corpus)
    tables.discard(corpus, "pack")
    pack(stage, corpus)
    assert files(corpus) == whole


def test_other_texts_are_joined_anew_to_the_pixels_of_before(stage, corpus, photos, reads):
    pack(stage, corpus)
    reads.clear()
    table = Table(corpus, "translations")
    parts = [table.shard(index).to_pylist() for index in range(table.num_shards)]
    parts[0][0]["text"] = "Ein Foto."
    write_table(corpus, "translations", parts)
    for path in photos:
        path.unlink()
    before = read_json(corpus / ".state" / "pack" / "part-00001.json")
    rows = pack(stage, corpus)
    assert [each["text"] for each in rows[0]["captions"]] == ["Photo photo-00000.jpg.", "Ein Foto."]
    assert reads == [] and rows[0]["media"]
    assert read_json(corpus / ".state" / "pack" / "part-00001.json") == before


def test_a_table_that_is_made_later_is_joined(stage, corpus):
    shutil.move(corpus / "translations", corpus / "later")
    assert {each["origin"] for row in pack(stage, corpus) for each in row["captions"]} == {"human"}
    shutil.move(corpus / "later", corpus / "translations")
    assert {each["origin"] for row in pack(stage, corpus) for each in row["captions"]} == {"human", "mt"}


def test_the_same_bytes_after_a_cut(stage, corpus, tmp_path):
    pack(stage, corpus)
    whole = files(corpus)
    tables.discard(corpus, "pack")
    for limit in (1, 1, 0):
        pack(stage, corpus, limit)
        assert not (corpus / "training" / "manifest.json").exists()
    pack(stage, corpus)
    assert files(corpus) == whole


def test_other_settings_are_refused(stage, corpus):
    pack(stage, corpus)
    for changed in ({"image_size": 16}, {"media": "reference"}, {"filters": Filters({"de": {"meaning": 0.5}})}):
        with pytest.raises(UsageError, match="--overwrite"):
            pack(dataclasses.replace(stage, **changed), corpus)


def test_a_corpus_that_was_moved(stage, corpus, tmp_path):
    rows = pack(stage, corpus)
    corpus.rename(tmp_path / "moved")
    stage = another(stage, tmp_path / "moved", output=tmp_path / "moved")
    assert pack(stage, tmp_path / "moved") == rows


# What is checked before the work


def test_a_table_that_is_not_whole(stage, corpus):
    (corpus / "descriptions" / "manifest.json").unlink()
    message = refused(stage)
    assert str(corpus) in message and "descriptions" in message and "--stage captions" in message and "again" in message
    (corpus / "items" / "manifest.json").unlink()
    assert "items" in refused(stage) and "--stage ingest" in refused(stage)


def test_a_table_made_from_other_ones_than_lie_there(stage, corpus):
    table = Table(corpus, "captions")
    write_table(corpus, "captions", [table.shard(index).to_pylist()[:1] for index in range(table.num_shards)])
    message = refused(stage)
    assert "another version of captions" in message and "--stage translate" in message


def test_no_text_at_all(tmp_path, stage, photos):
    bare = deal_corpus(tmp_path / "bare", items=[item(photos[0])], captions=[])
    assert "--stage captions" in refused(another(stage, bare, output=bare))


def test_thresholds_for_a_language_that_is_not_there(stage):
    lines = []
    dataclasses.replace(stage, filters=Filters({"default": {}, "de": {}, "cs": {}})).check(lines.append)
    assert lines == ["note: --filters names cs, but there are no translations into it"]


# On Beam, real photos


def test_real_photos_with_any_number_of_workers(tmp_path, data):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted((data / "coco_cc_by" / "images").iterdir())[:12]:
        shutil.copy(path, folder)
    captions = (data / "coco_cc_by" / "captions.jsonl").read_text()
    (folder / "captions.jsonl").write_text(captions + '{"file": "walk.mkv", "captions": ["Somebody walks."]}\n')
    shutil.copy(data / "clips" / "walk.mkv", folder)
    corpus = tmp_path / "corpus"
    arguments = ["--output", str(corpus), "--stage"]
    assert beam_runner.run([*arguments, "ingest", "--input", str(folder), "--shard-size", "5"]) == 0
    arguments += ["pack", "--image-size", "96", "--frames", "3"]
    tables_of_runs = []
    for beam in ((), ("--direct_num_workers", "2", "--direct_running_mode", "multi_processing")):
        assert beam_runner.run([*arguments, *beam]) == 0
        tables_of_runs.append(files(corpus))
        tables.discard(corpus, "pack")
    assert tables_of_runs[0] == tables_of_runs[1]
    shards = [
        pa.ipc.open_stream(data).read_all() for name, data in tables_of_runs[0].items() if name.endswith(".arrow")
    ]
    rows = {row["item_id"]: row for shard in shards for row in shard.to_pylist()}
    assert len(rows) == 13
    for row in rows.values():
        width, height = Image.open(io.BytesIO(row["media"])).size
        assert height % row["num_frames"] == 0 and min(width, height // row["num_frames"]) == 96
    assert rows["walk.mkv"]["num_frames"] == 3
    assert all(len(row["captions"]) >= 5 for name, row in rows.items() if name.endswith(".jpg"))
