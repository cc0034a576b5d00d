"""A corpus over several runs: other settings, --overwrite, inputs that change, a corpus that was moved."""

import contextlib
import dataclasses
import shutil

import pytest

from pipeline.corpus.table import Table, read_json
from stages import captions
from tests.conftest import jpeg_bytes, make_photos
from tests.end_to_end.test_resume import table_bytes
from tests.loopback import Loopback
from tests.test_beam_runner import ended


@pytest.fixture(scope="module")
def server():
    with Loopback() as started:
        yield started


@pytest.fixture
def photos(tmp_path):
    make_photos(tmp_path / "photos", 5)
    return tmp_path / "photos"


@pytest.fixture
def corpus(tmp_path):
    return tmp_path / "corpus"


@pytest.fixture
def run(capfd, server, photos, corpus):
    """run(*options) describes `photos` into `corpus`, two items a shard, one view; run.stage(NAME, *options)."""

    def captions(*options, **named):
        views = () if "--views" in options else ("--views", "short")
        shards = () if "--shard-size" in options else ("--shard-size", 2)
        inputs = () if "--input" in options else ("--input", photos)
        given = (*inputs, "--output", corpus, "--mllm-url", server.url, *views, *shards, *options)
        return ended(capfd, "--stage", "captions", *given)

    captions.stage = lambda name, *options: ended(capfd, "--stage", name, "--output", corpus, *options)
    return captions


def described(corpus):
    return [row["item_id"] for row in Table(corpus, "descriptions").rows()]


def files(corpus):
    return sorted(path.name for path in (corpus / "descriptions").glob("*.arrow"))


# Other settings


@pytest.mark.parametrize(
    "options, expected",
    [
        (("--shard-size", 3), ("--shard-size", "2", "3")),
        (("--limit", 1), ("--limit", "0", "1")),
        (("--views", "short,objects"), ("--views (objects)",)),
        (("--max-pixels", 5000), ("--max-pixels", "589824", "5000")),
        (("--mllm-revision", "v2"), ("revision", "''", "'v2'")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_another_setting_is_refused_and_named(run, corpus, options, expected):
    run().done()
    before = table_bytes(corpus)
    result = run(*options)
    assert result.status == 2
    assert all(word in result.error() for word in (*expected, "--overwrite", "--output"))
    assert table_bytes(corpus) == before
    run().done()


def test_another_input_is_refused_and_named(run, photos, tmp_path):
    run().done()
    make_photos(tmp_path / "others", 1)
    result = run("--input", tmp_path / "others")
    assert result.status == 2
    assert str(tmp_path / "others") in result.error() and str(photos) in result.error()


def test_the_view_that_differs_is_named_and_not_its_neighbours(run, tmp_path):
    """The default views differ in one prompt only: 300 characters of both settings would look alike."""
    every = "short,detail,objects,attributes,actions"
    run("--views", every).done()
    mine = tmp_path / "mine.yaml"
    mine.write_text('attributes: {prompt: "Which colours has this {media}?", max_tokens: 7}\n')
    message = run("--views", f"{every},{mine}").error()
    assert "attributes" in message and "Which colours" in message
    assert "Name every object" not in message


# --overwrite


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


@pytest.mark.parametrize(("size", "ingest_only"), [(1, True), (5, True), (4, False)])
def test_made_again_in_other_shards(run, photos, corpus, size, ingest_only):
    """No shard of the old size stays for readers of descriptions/*.arrow, which would find its rows twice."""
    run().done()
    if ingest_only:
        run.stage("ingest", "--input", photos, "--shard-size", size, "--overwrite").done()
        run("--shard-size", size).done()
    else:
        run("--shard-size", size, "--overwrite").done()
    assert files(corpus) == [path.name for path in map(Table(corpus, "descriptions").shard_path, range(-(-5 // size)))]
    assert len(described(corpus)) == 5
    assert run.stage("verify").status == 0


# Inputs that change


def test_a_folder_that_has_grown(run, server, photos, corpus):
    """The run says how to add the new photos, and that works; the first shards hold the same items as before."""
    run().done()
    for number in range(2):
        (photos / f"zz-{number}.jpg").write_bytes(jpeg_bytes(seed=number))
    out = run().done()
    assert described(corpus) == [f"photo-0000{number}.jpg" for number in range(5)]
    assert "--stage ingest --overwrite" in out
    run.stage("ingest", "--input", photos, "--shard-size", 2, "--overwrite").done()
    before = server.stats()["requests"]
    run().done()
    assert server.stats()["requests"] == before + 2
    assert len(described(corpus)) == 7 and len(files(corpus)) == 4
    assert run.stage("verify").status == 0


def test_a_broken_photo_that_is_mended(run, server, photos, corpus):
    """Only its rows come in, in their place."""
    good = (photos / "photo-00001.jpg").read_bytes()
    side = photos / "captions.jsonl"
    side.write_text('{"file": "photo-00001.jpg", "captions": ["one", "two"]}\n')
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


def test_a_mended_photo_where_the_run_starts_the_server_itself(capfd, server, photos, corpus, monkeypatch):
    """Captions looks done until ingest has tried the broken photo again: the server must be there by then."""
    serving = []

    @contextlib.contextmanager
    def started(captioner, *_):
        serving.append(captioner.urls)
        yield dataclasses.replace(captioner, urls=(server.url,))

    monkeypatch.setattr(captions, "served", started)
    monkeypatch.delenv("LECCR_MLLM_URL", raising=False)
    good = (photos / "photo-00001.jpg").read_bytes()
    (photos / "photo-00001.jpg").write_bytes(b"broken")
    given = ("--stage", "captions", "--input", photos, "--output", corpus, "--mllm", "loopback", "--views", "short")
    for _ in range(2):
        ended(capfd, *given, "--patience", 1).done()
    assert len(serving) == 1, "a server was started though there was nothing to describe"
    (photos / "photo-00001.jpg").write_bytes(good)
    ended(capfd, *given, "--patience", 1).done()
    assert len(described(corpus)) == 5


def test_a_photo_that_changes_after_ingest(run, photos, corpus):
    run.stage("ingest", "--input", photos, "--shard-size", 2).done()
    (photos / "photo-00003.jpg").write_bytes(jpeg_bytes())
    assert "failed: changed" in run().done()
    (failure,) = Table(corpus, "descriptions").failures()
    assert (failure["id"], failure["error"], failure["view"]) == ("photo-00003.jpg", "changed", "short")
    assert "--stage ingest --overwrite" in failure["message"]
    run.stage("ingest", "--input", photos, "--shard-size", 2, "--overwrite").done()
    run().done()
    assert Table(corpus, "descriptions").failures() == [] and len(described(corpus)) == 5


def test_the_same_bytes_twice_are_paid_for_once(capfd, photos, corpus):
    for number in range(5):
        shutil.copy(photos / "photo-00000.jpg", photos / f"twin-{number}.jpg")
    with Loopback(latency_s=0.05) as slow:
        given = ("--input", photos, "--output", corpus, "--mllm-url", slow.url, "--shard-size", 3)
        ended(capfd, "--stage", "captions", *given).done()
        assert slow.stats()["requests"] == 5 * 5
    assert len({row["text"] for row in Table(corpus, "descriptions").rows() if row["view"] == "short"}) == 5
    assert Table(corpus, "descriptions").num_rows == 10 * 5


# A corpus that was moved, or came without its state


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "with a failure"])
def test_a_corpus_without_its_state(run, capfd, server, photos, corpus, tmp_path, broken):
    if broken:
        (photos / "broken.jpg").write_bytes(b"broken")
    run().done()
    other = tmp_path / "downloaded"
    shutil.copytree(corpus, other, ignore=shutil.ignore_patterns(".state"))
    before = table_bytes(other)
    requests = server.stats()["requests"]
    given = ("--stage", "captions", "--output", other, "--mllm-url", server.url)
    ended(capfd, *given, "--views", "short").done()
    assert server.stats()["requests"] == requests
    tables = {name: data for name, data in before.items() if "/" in name}
    assert tables == {name: data for name, data in table_bytes(other).items() if "/" in name}
    assert ended(capfd, "--stage", "verify", "--output", other).status == 0
    assert ended(capfd, *given, "--views", "objects").status == 2
    ended(capfd, *given, "--views", "objects", "--overwrite").done()
    assert {row["view"] for row in Table(other, "descriptions").rows()} == {"objects"}


def test_a_corpus_that_was_moved(run, capfd, server, corpus, tmp_path):
    run().done()
    manifest = read_json(corpus / "descriptions" / "manifest.json")
    assert list(manifest["parents"]) == ["items"] and len(manifest["shards"]) == 3
    corpus.rename(tmp_path / "moved")
    given = ("--output", tmp_path / "moved", "--mllm-url", server.url, "--views", "short")
    assert "nothing to do" in ended(capfd, "--stage", "captions", *given).done()
