"""--stage verify says what is wrong with which file, about everything at once, and never falls over it."""

import json
import shutil

import pyarrow as pa
import pytest

import beam_runner
from pipeline.corpus.table import Table, read_json, write_json, write_shard
from pipeline.hashing import file_hash
from stages.verify import verify as verified
from tests.conftest import make_photos
from tests.corpora import caption, description, item, training, translation, write_corpus, write_table
from tests.loopback import Loopback
from tests.test_beam_runner import ended
from tests.worked_examples import each_example


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    make_photos(folder / "photos", 4)
    (folder / "photos" / "broken.jpg").write_bytes(b"broken")
    with Loopback() as server:
        given = ["--stage", "captions", "--input", str(folder / "photos"), "--output", str(folder / "corpus")]
        assert beam_runner.run([*given, "--mllm-url", server.url, "--views", "short,objects", "--shard-size", "2"]) == 0
    return folder / "corpus"


@pytest.fixture
def corpus(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "corpus")


@pytest.fixture
def verify(capfd, corpus):
    return lambda: ended(capfd, "--stage", "verify", "--output", corpus)


def rewrite(corpus, name, index, change):
    """Change a shard's rows and its manifest entry, so that every checksum is right and only the content is wrong."""
    table = Table(corpus, name)
    rows = table.shard(index).to_pylist()
    schema = table.shard(index).schema
    entry = write_shard(table.shard_path(index), pa.Table.from_pylist(change(rows), schema))
    table.manifest["shards"][index].update(entry)
    (table.folder / "manifest.json").write_text(json.dumps(table.manifest))


def test_a_whole_corpus(verify):
    out = verify().done()
    assert "ok: items: 4 rows in 3 shards, 1 failures" in out
    assert "ok: descriptions: 8 rows in 3 shards, no failures" in out
    assert "every checksum and count is right" in out


def test_missing_and_changed_originals_are_named_when_asked_for(verify, whole, corpus, capfd):
    originals = [capfd, "--stage", "verify", "--output", corpus, "--originals"]
    assert "originals: as they were ingested" in ended(*originals).done()
    photos = whole.parent / "photos"
    bytes_before = {path: path.read_bytes() for path in sorted(photos.glob("photo-*.jpg"))}
    gone, changed, *_ = bytes_before
    gone.unlink()
    changed.write_bytes(b"another picture")
    result = ended(*originals)
    for path, data in bytes_before.items():
        path.write_bytes(data)
    assert result.status == 1 and "2 problem(s)" in result.out
    assert f"{gone} is missing" in result.err and f"{changed} has changed" in result.err


def test_no_corpus(capfd, tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        result = ended(capfd, "--stage", "verify", "--output", folder)
        assert result.status == 2
        assert str(folder) in result.error()


def test_every_wrong_shard_is_named(verify, corpus):
    Table(corpus, "items").shard_path(0).write_bytes(b"x")
    Table(corpus, "descriptions").shard_path(2).unlink()
    (corpus / "captions" / "part-00009-of-00010.arrow").write_bytes(b"")
    result = verify()
    assert result.status == 1
    for name in ("items/part-00000-of-00003", "descriptions/part-00002-of-00003", "captions/part-00009-of-00010"):
        assert f"wrong: {name}.arrow" in result.err
    assert "3 problem(s)" in result.out


def test_a_missing_manifest_and_a_damaged_one_are_two_problems_among_others(verify, corpus):
    (corpus / "descriptions" / "manifest.json").unlink()
    (corpus / "items" / "manifest.json").write_text("nonsense")
    Table(corpus, "captions").shard_path(0).write_bytes(b"x")
    result = verify()
    assert result.status == 1
    for part in ("items/manifest.json", "descriptions is not complete", "captions/part-00000-of-00003.arrow"):
        assert part in result.err


def test_failures_that_are_lost_or_damaged(verify, corpus):
    path = corpus / "items" / "failures.jsonl"
    path.write_text('{"id": \n')
    result = verify()
    assert result.status == 1
    assert "items/failures.jsonl" in result.err
    path.unlink()
    result = verify()
    assert result.status == 1
    assert "items/failures.jsonl has 0 lines, its manifest says 1" in result.err and "--stage ingest" in result.err


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda rows: [*rows, rows[0]], "the same item_id and view"),
        (lambda rows: [{**row, "item_id": "stranger"} for row in rows[:1]], "1 rows of items that items shard 1"),
    ],
    ids=["doubled", "strangers"],
)
def test_rows_that_are_wrong_under_right_checksums(verify, corpus, change, expected):
    rewrite(corpus, "descriptions", 1, change)
    result = verify()
    assert result.status == 1
    assert "descriptions/part-00001-of-00003.arrow" in result.err and expected in result.err


def translated(folder, texts, **changed):
    """Two items in two shards, with a caption and a description of each; `texts` are the ids of those translated."""
    corpus = write_corpus(
        folder / "corpus",
        items=[[item("a.png")], [item("b.png")]],
        captions=[[caption("a.png", "A cat.")], [caption("b.png", "A dog.")]],
        descriptions=[[description("a.png", "A cat sits.")], [description("b.png", "A dog runs.")]],
    )
    rows = [[translation(text, **changed) for text in shard] for shard in texts]
    return write_table(corpus, "translations", rows)


@each_example("translations_of_texts_that_are_not_there", "source, texts, expected")
def test_translations_of_texts_that_are_not_there(tmp_path, source, texts, expected):
    (problem,) = verified(translated(tmp_path, texts, source_table=source))[1]
    assert problem.startswith("translations/part-0000") and expected in problem and "run --stage translate" in problem


def test_columns_of_another_version(tmp_path):
    corpus = translated(tmp_path, [["a.png#short"], []], source_table="descriptions")
    assert verified(corpus)[1] == []
    table = Table(corpus, "captions")
    table.manifest["shards"][0] = write_shard(table.shard_path(0), pa.table({"other": ["x"]}))
    write_json(table.folder / "manifest.json", table.manifest)
    first, second = verified(corpus)[1]
    assert "captions/part-00000-of-00002.arrow has columns that differ" in first
    assert second == "translations was made from another version of captions: run --stage translate again"


def with_parents(corpus, **hashes):
    path = corpus / "training" / "manifest.json"
    write_json(path, read_json(path) | {"parents": hashes})


def test_packed_rows_belong_to_the_items_that_they_were_packed_from(tmp_path):
    row = training("x.png", {"en": "text"})
    corpus = write_table(tmp_path / "packed", "training", [[row]])
    with_parents(corpus, **{"first/items": "0" * 64, "second/captions": "0" * 64})
    assert verified(corpus) == (["training: 1 rows in 1 shards, no failures"], [])
    write_corpus(corpus, items=[[item("a.png")], [item("b.png")]])  # has shards of its own
    assert not verified(corpus)[1]
    with_parents(corpus, items=file_hash(corpus / "items" / "manifest.json"))
    assert "1 rows of items that items shard 0" in verified(corpus)[1][0]
    write_table(corpus, "training", [[row, row]])
    assert "rows with the same item_id" in verified(corpus)[1][0]
    splits = {"train": {"items": 1, "captions": 1, "descriptions": 2}}
    write_table(corpus, "training", [[training("a.png", {"en": "text"})]], extra={"splits": splits})
    (problem,) = verified(corpus)[1]
    assert "has the splits" in problem


def test_each_manifest_is_opened_once_however_many_shards_there_are(tmp_path, monkeypatch):
    names = [f"{number}.png" for number in range(12)]
    corpus = write_corpus(
        tmp_path / "corpus",
        items=[[item(name)] for name in names],
        captions=[[caption(name, "A cat.")] for name in names],
        translations=[[translation(f"{name}#en#0")] for name in names],
    )
    opened = []
    monkeypatch.setattr("pipeline.corpus.table.read_json", lambda path: opened.append(path) or read_json(path))
    assert verified(corpus)[1] == []
    assert len(opened) == 3
