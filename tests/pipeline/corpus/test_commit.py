"""A corpus over several runs: other settings, --overwrite, inputs that change, a corpus that was moved."""

import contextlib
import dataclasses
import shutil

import pytest

from pipeline.corpus.table import Table
from stages import captions
from tests.conftest import jpeg_bytes
from tests.end_to_end.test_resume import table_bytes
from tests.worked_examples import each_example


def described(corpus):
    return [row["item_id"] for row in Table(corpus, "descriptions").rows()]


# Other settings


@each_example("another_setting_is_refused_and_named", "options, words")
def test_another_setting_is_refused_and_named(run, corpus, options, words):
    run().done()
    before = table_bytes(corpus)
    result = run(*options)
    assert result.status == 2
    assert all(word in result.error() for word in (*words, "--overwrite", "--output"))
    assert table_bytes(corpus) == before
    run().done()


def test_overwrite_asks_only_for_what_differs(run, server, corpus):
    run().done()
    before = server.stats()["requests"]
    run("--overwrite").done()
    assert server.stats()["requests"] == before
    run("--views", "short,objects", "--overwrite").done()
    assert server.stats()["requests"] == before + 5
    assert Table(corpus, "descriptions").num_rows == 10
    items = {path: path.stat().st_mtime_ns for path in (corpus / "items").iterdir()}
    run("--max-pixels", 1024, "--overwrite").done()
    assert {path: path.stat().st_mtime_ns for path in (corpus / "items").iterdir()} == items


@pytest.mark.parametrize(("size", "ingest_first"), [(1, True), (4, False)])
def test_made_again_in_other_shards(run, corpus, size, ingest_first):
    """No shard of the old size stays for readers of descriptions/*.arrow, which would find its rows twice."""
    run().done()
    if ingest_first:
        run.ingest(size).done()
    run("--shard-size", size, *([] if ingest_first else ["--overwrite"])).done()
    assert sorted((corpus / "descriptions").glob("*.arrow")) == Table(corpus, "descriptions").shard_paths()
    assert Table(corpus, "descriptions").num_shards == -(-5 // size) and len(described(corpus)) == 5
    assert run.stage("verify").status == 0


# Inputs that change


def test_a_folder_that_has_grown(run, server, photos, corpus):
    """The run says how to add the new photos, and that works; the first shards hold the same items as before."""
    run().done()
    for number in range(2):
        (photos / f"zz-{number}.jpg").write_bytes(jpeg_bytes(seed=number))
    assert "+2 new" in run().done()
    assert described(corpus) == [f"photo-0000{number}.jpg" for number in range(5)]
    run.ingest().done()
    before = server.stats()["requests"]
    run().done()
    assert server.stats()["requests"] == before + 2
    assert len(described(corpus)) == 7 and Table(corpus, "descriptions").num_shards == 4
    assert run.stage("verify").status == 0


def test_a_broken_photo_that_is_mended(run, server, photos, corpus):
    """Only its rows come in, in their place."""
    good = (photos / "photo-00001.jpg").read_bytes()
    (photos / "captions.jsonl").write_text('{"file": "photo-00001.jpg", "captions": ["one", "two"]}\n')
    (photos / "photo-00001.jpg").write_bytes(good[: len(good) // 2])
    run().done()
    assert len(described(corpus)) == 4 and Table(corpus, "captions").num_rows == 0
    (photos / "photo-00001.jpg").write_bytes(good)
    before = server.stats()["requests"]
    run().done()
    assert server.stats()["requests"] == before + 1
    assert described(corpus) == [f"photo-0000{number}.jpg" for number in range(5)]
    assert [row["text"] for row in Table(corpus, "captions").rows()] == ["one", "two"]
    assert Table(corpus, "items").failures() == []
    assert run.stage("verify").status == 0
    assert "nothing to do" in run().done()


def test_a_mended_photo_where_the_run_starts_the_server_itself(run, server, photos, corpus, monkeypatch):
    """Captions looks done until ingest has tried the broken photo again: only then is a server needed."""
    serving = []

    @contextlib.contextmanager
    def started(captioner, *_):
        serving.append(captioner.urls)
        yield dataclasses.replace(captioner, urls=(server.url,))

    monkeypatch.setattr(captions, "served", started)
    monkeypatch.delenv("LECCR_MLLM_URL", raising=False)
    good = (photos / "photo-00001.jpg").read_bytes()
    (photos / "photo-00001.jpg").write_bytes(b"broken")
    for _ in range(2):
        run("--mllm", "loopback").done()
    assert len(serving) == 1, "a server was started though there was nothing to describe"
    (photos / "photo-00001.jpg").write_bytes(good)
    run("--mllm", "loopback").done()
    assert len(described(corpus)) == 5


def test_a_photo_that_changes_after_ingest(run, photos, corpus):
    run.ingest().done()
    (photos / "photo-00003.jpg").write_bytes(jpeg_bytes())
    assert "failed: changed" in run().done()
    (failure,) = Table(corpus, "descriptions").failures()
    assert (failure["id"], failure["error"], failure["view"]) == ("photo-00003.jpg", "changed", "short")
    assert "--stage update" in failure["message"]
    run.ingest().done()
    run().done()
    assert Table(corpus, "descriptions").failures() == [] and len(described(corpus)) == 5


# A corpus that was moved, or came without its state


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "with a failure"])
def test_a_corpus_that_was_moved_and_came_without_its_state(run, server, photos, corpus, tmp_path, broken):
    if broken:
        (photos / "broken.jpg").write_bytes(b"broken")
    run().done()
    other = ("--output", shutil.copytree(corpus, tmp_path / "other", ignore=shutil.ignore_patterns(".state")))
    before, requests = table_bytes(other[1]), server.stats()["requests"]
    shutil.rmtree(corpus)
    assert "nothing to do" in run(*other).done()
    assert server.stats()["requests"] == requests and table_bytes(other[1]) == before
    assert run.stage("verify", *other).status == 0
    assert run(*other, "--views", "objects").status == 2
    run(*other, "--views", "objects", "--overwrite").done()
    assert {row["view"] for row in Table(other[1], "descriptions").rows()} == {"objects"}
