"""The stage over whole corpora: what is checked, joined, merged, kept from an earlier run, and counted."""

import dataclasses
import io
import shutil

import pyarrow as pa
import pytest
from PIL import Image

import beam_runner
from pipeline.corpus import commit
from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table, complete, read_json
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.packing.filters import Filters
from pipeline.packing.manifest import JOINED
from stages import pack as packing
from stages.pack import Pack
from tests.conftest import make_photos
from tests.corpora import caption, deal_corpus, description, item, pack, small_corpus, translation, write_table

PHOTOS = 5


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", PHOTOS)


@pytest.fixture
def corpus(tmp_path, photos):
    return small_corpus(tmp_path / "corpus", photos)


def pack_of(*corpora, output=None):
    return Pack(tuple(map(str, corpora)), output=str(output or corpora[0]), image_size=32)


@pytest.fixture
def stage(corpus):
    return pack_of(corpus)


def files(corpus):
    return {path.name: path.read_bytes() for path in (corpus / "training").iterdir()}


def texts(captions):
    return [each["text"] for each in captions]


def refusal(stage):
    with pytest.raises(UsageError) as raised:
        stage.check()
    return str(raised.value)


@pytest.fixture
def reads(monkeypatch):
    """The uris whose pixels are read."""
    uris, read_media = [], packing.read_media
    monkeypatch.setattr(
        packing, "read_media", lambda item, uri, *rest: uris.append(uri) or read_media(item, uri, *rest)
    )
    return uris


# One corpus


def test_rows_and_what_the_manifest_counts(stage, corpus, photos):
    rows = pack(stage, corpus)
    first, second, third, last = rows
    assert [row["item_id"] for row in rows] == [path.name for path in photos if path != photos[3]]
    assert [(each["caption_id"], each["language"], each["origin"], each["quality"]) for each in first["captions"]] == [
        ("photo-00000.jpg#en#0", "en", "human", 1.0),
        ("photo-00000.jpg#en#0>de", "de", "mt", 0.75),
    ]
    assert first["descriptions"] == [{"view": "short", "text": "Seen: photo-00000.jpg."}]
    assert texts(second["captions"]) == ["Photo photo-00001.jpg.", "Bild."]
    assert texts(third["captions"]) == ["Photo photo-00002.jpg."] and third["descriptions"] == []
    assert (last["split"], last["media_type"], last["uri"]) == ("test", "image", str(photos[4]))
    for row in rows:
        assert min(Image.open(io.BytesIO(row["media"])).size) == 32 and row["num_frames"] == 1
    assert Table(corpus, "training").shard(0).schema.equals(SCHEMAS["training"])
    manifest = Table(corpus, "training").manifest
    assert manifest["splits"] == {
        "test": {"items": 1, "captions": 1, "descriptions": 0},
        "train": {"items": 3, "captions": 5, "descriptions": 2},
    }
    assert manifest["dropped"] == {
        "de": {"pairs": 3, "kept": 2, "numbers": 1, "copied": 1},
        "fr": {"pairs": 2, "kept": 0, "copied": 1, "refusal": 1},
    }
    assert manifest["dropped_descriptions"] == {"rows": 1, "refusal": 1}
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
    commit.discard(corpus, "pack")
    pack(stage, corpus)
    assert files(corpus) == whole


def test_other_texts_are_joined_to_the_pixels_of_before(stage, corpus, photos, reads):
    shutil.move(corpus / "translations", corpus / "later")
    assert {each["origin"] for row in pack(stage, corpus) for each in row["captions"]} == {"human"}
    reads.clear()
    shutil.move(corpus / "later", corpus / "translations")
    for path in photos:
        path.unlink()
    assert {each["origin"] for row in pack(stage, corpus) for each in row["captions"]} == {"human", "mt"}
    table = Table(corpus, "translations")
    parts = [table.shard(index).to_pylist() for index in range(table.num_shards)]
    parts[0][0]["text"] = "Ein Foto."
    write_table(corpus, "translations", parts)
    before = read_json(corpus / ".state" / "pack" / "part-00001.json")
    rows = pack(stage, corpus)
    assert texts(rows[0]["captions"]) == ["Photo photo-00000.jpg.", "Ein Foto."]
    assert reads == [] and rows[0]["media"]
    assert read_json(corpus / ".state" / "pack" / "part-00001.json") == before


def test_other_settings_are_refused(stage, corpus):
    pack(stage, corpus)
    for changed in ({"image_size": 16}, {"media": "reference"}, {"filters": Filters({"de": {"meaning": 0.5}})}):
        with pytest.raises(UsageError, match="--overwrite"):
            pack(dataclasses.replace(stage, **changed), corpus)


def test_a_corpus_that_was_moved(stage, corpus, tmp_path):
    rows = pack(stage, corpus)
    moved = corpus.rename(tmp_path / "moved")
    assert pack(pack_of(moved), moved) == rows


# What is checked before the work


def test_incomplete_and_outdated_tables(stage, corpus):
    table = Table(corpus, "captions")
    write_table(corpus, "captions", [table.shard(index).to_pylist()[:1] for index in range(table.num_shards)])
    message = refusal(stage)
    assert "another version of captions" in message and "--stage translate" in message
    (corpus / "descriptions" / "manifest.json").unlink()
    message = refusal(stage)
    assert str(corpus) in message and "descriptions" in message and "--stage captions" in message and "again" in message
    (corpus / "items" / "manifest.json").unlink()
    assert "items" in refusal(stage) and "--stage ingest" in refusal(stage)


def test_no_text_at_all_and_two_folders_of_one_name(tmp_path, photos, corpus):
    bare = deal_corpus(tmp_path / "bare", items=[item(photos[0])], captions=[])
    assert "--stage captions" in refusal(pack_of(bare))
    shutil.copytree(corpus, tmp_path / "else" / "corpus")
    assert "Rename one" in refusal(pack_of(corpus, tmp_path / "else" / "corpus"))


# Several corpora


@pytest.fixture
def published(tmp_path, photos):
    """Descriptions of two of the photos under other names and in another order, and a photo of its own."""
    (own,) = make_photos(tmp_path / "more", 1, size=(50, 30))
    away = tmp_path / "where nobody is"
    items = [
        item(own, "own", size=(50, 30)),
        {**item(photos[2], "b"), "uri": str(away / "b.jpg")},
        {**item(photos[0], "a"), "uri": str(away / "a.jpg")},
    ]
    views = [("own", "Of its own."), ("b", "Published b."), ("a", "Published a."), ("a", "Seen: photo-00000.jpg.")]
    return deal_corpus(
        tmp_path / "published",
        items=items,
        captions=[caption("a", "Photo photo-00000.jpg."), caption("a", "Another.", 1)],
        descriptions=[description(item_id, text) for item_id, text in views],
        translations=[translation("a#en#1", "de", "Foto.")],
    )


def test_published_descriptions_join_ones_own(corpus, published):
    rows = pack(pack_of(corpus, published), corpus)
    own = [f"corpus/photo-0000{number}.jpg" for number in (0, 1, 2, 4)]
    assert [row["item_id"] for row in rows] == [*own, "published/own"]
    first = rows[0]
    assert texts(first["descriptions"]) == ["Seen: photo-00000.jpg.", "Published a."]
    assert [(each["caption_id"], each["text"]) for each in first["captions"]] == [
        ("corpus/photo-00000.jpg#en#0", "Photo photo-00000.jpg."),
        ("published/a#en#1", "Another."),
        ("corpus/photo-00000.jpg#en#0>de", "Foto."),
    ]
    assert [each["text"] for each in rows[2]["descriptions"]] == ["Published b."]
    manifest = Table(corpus, "training").manifest
    assert (manifest["merged"], manifest["without_text"], len(manifest["shards"])) == (2, 1, 5)
    assert manifest["dropped"]["de"]["pairs"] == 4
    assert set(manifest["parents"]) == {f"{name}/{table}" for name in ("corpus", "published") for table in JOINED}


def test_media_are_read_from_the_corpus_that_has_them(tmp_path, corpus, published, photos):
    """The published corpus comes first and its media are not here: those of one's own are."""
    rows = pack(pack_of(published, corpus, output=tmp_path / "out"), tmp_path / "out")
    by_id = {row["item_id"]: row for row in rows}
    own = [f"corpus/photo-0000{number}.jpg" for number in (1, 4)]
    assert list(by_id) == ["published/own", "published/b", "published/a", *own]
    assert by_id["published/a"]["uri"] == str(photos[0]) and by_id["published/a"]["media"]
    assert [each["text"] for each in by_id["published/a"]["descriptions"]] == ["Published a.", "Seen: photo-00000.jpg."]
    assert Table(tmp_path / "out", "training").manifest["settings"]["corpora"] == [str(published), str(corpus)]
    assert not Table(tmp_path / "out", "training").failures()


def test_the_first_of_equal_items_takes_in_those_of_other_corpora(tmp_path, photos):
    def twice(name, word):
        rows = [item(photos[0], "x"), item(photos[1], "y"), item(photos[0], "z")]
        texts = [caption(row["item_id"], f"{word} {row['item_id']}.") for row in rows]
        return deal_corpus(tmp_path / name, items=rows, captions=texts)

    both = [twice("one", "Mine"), twice("two", "Theirs")]
    rows = pack(pack_of(*both, output=tmp_path / "out"), tmp_path / "out")
    assert {row["item_id"]: texts(row["captions"]) for row in rows} == {
        "one/x": ["Mine x.", "Theirs x.", "Theirs z."],
        "one/y": ["Mine y.", "Theirs y."],
        "one/z": ["Mine z."],
    }


def test_another_corpus_that_changes_while_it_is_packed_and_after(corpus, published, monkeypatch):
    def translate(text):
        write_table(published, "translations", [[], [translation("a#en#1", "de", text)]])

    both = pack_of(corpus, published)
    open_index = packing.shared_contents
    with monkeypatch.context() as patch:
        patch.setattr(packing, "shared_contents", lambda *given: translate("Neu.") or open_index(*given))
        with pytest.raises(EnvironmentTrouble, match="published was changed while it was packed"):
            pack(both, corpus)
    assert not complete(corpus, "training")
    for text in ("Neu.", "Anders."):
        translate(text)
        assert text in texts(pack(both, corpus)[0]["captions"])


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
        commit.discard(corpus, "pack")
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


@pytest.fixture
def planted(tmp_path, data):
    """A corpus with a smaller copy of a test photo in split train, and a function that runs a stage on it."""
    source, corpus = tmp_path / "photos", tmp_path / "corpus"
    paths = sorted((data / "coco_cc_by" / "images").iterdir())
    for name, path, shrink in (("test/a", paths[0], 1), ("train/a", paths[0], 2), ("train/b", paths[1], 1)):
        photo = Image.open(path)
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        photo.resize((photo.width // shrink, photo.height // shrink)).save(source / f"{name}.jpg", quality=40)
        (source / f"{name}.txt").write_text("A photo.")

    def run(*arguments):
        assert beam_runner.run(["--stage", *arguments, "--output", str(corpus)]) == 0
        return [row["split"] for row in Table(corpus, "training").rows()] if complete(corpus, "training") else []

    run("ingest", "--input", str(source), "--shard-size", "2")
    return source, corpus, run


def test_copies_of_held_out_photos_leave_train(planted):
    _, corpus, run = planted
    assert run("pack") == ["test", "near_duplicate", "train"]
    pairs = [["test/a.jpg", "train/a.jpg"]]
    assert Table(corpus, "training").manifest["near_duplicates"] == {"pairs": pairs, "moved": ["train/a.jpg"]}


@pytest.mark.torture
def test_what_is_moved_follows_the_collection(planted):
    source, corpus, run = planted
    first, before = run("pack"), files(corpus)
    shutil.rmtree(corpus / ".state" / "pack")
    assert run("pack") == first and files(corpus) == before
    for path in (source / "test").iterdir():
        path.unlink()
    assert run("update") == ["train", "train"]
    updated = files(corpus)
    commit.discard(corpus, "pack")
    assert run("pack") and files(corpus) == updated


@pytest.mark.torture
def test_copies_that_are_kept_are_listed(planted):
    _, corpus, run = planted
    assert run("pack", "--near-duplicates", "keep") == ["test", "train", "train"]
    assert len(Table(corpus, "training").manifest["near_duplicates"]["pairs"]) == 1
