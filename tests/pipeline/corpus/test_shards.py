"""Damaged shards: found, named, and made again from what they were made of."""

import shutil

import pytest

from pipeline.corpus.shards import read_sidecar
from pipeline.corpus.table import Table
from tests.conftest import make_photos
from tests.end_to_end.test_resume import table_bytes
from tests.loopback import Loopback
from tests.test_beam_runner import ended


@pytest.fixture(scope="module")
def server():
    with Loopback() as started:
        yield started


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """A finished corpus of 6 photos, 2 a shard, and the command that made it."""
    import beam_runner

    folder = tmp_path_factory.mktemp("shards")
    make_photos(folder / "photos", 6)
    given = ["--stage", "captions", "--input", str(folder / "photos"), "--mllm-url", server.url]
    given += ["--views", "short", "--shard-size", "2"]
    assert beam_runner.run([*given, "--output", str(folder / "corpus")]) == 0
    return folder / "corpus", given


@pytest.fixture
def corpus(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "corpus")


@pytest.fixture
def run(capfd, whole, corpus):
    return lambda *options: ended(capfd, *whole[1], "--output", corpus, *options)


@pytest.fixture
def verify(capfd, corpus):
    return lambda: ended(capfd, "--stage", "verify", "--output", corpus)


def damage(path, how):
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[:-100])
    elif how == "flipped":  # a byte of its text: still Arrow, no longer UTF-8
        at = data.index(b"photo-0000")
        path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    else:
        path.write_bytes(b"\xff" * len(data))


@pytest.mark.parametrize("table", ["items", "captions", "descriptions"])
@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_shard_of_another_size_is_made_again(run, verify, corpus, server, table, how):
    before, requests = table_bytes(corpus), server.stats()["requests"]
    damage(Table(corpus, table).shard_path(1), how)
    found = verify()
    assert found.status == 1
    assert f"{table}/part-00001-of-00003.arrow" in found.err and "--stage" in found.err
    run().done()
    assert table_bytes(corpus) == before
    assert server.stats()["requests"] == requests, "an answer was paid for twice"
    assert verify().status == 0


@pytest.mark.parametrize("table", ["items", "descriptions"])
@pytest.mark.parametrize("how", ["flipped", "garbage"])
def test_a_shard_with_other_bytes_is_reported(run, verify, corpus, table, how):
    """Once deleted, as the message says, it is made again. A finished run shows rows of the first shard."""
    before = table_bytes(corpus)
    path = Table(corpus, table).shard_path(0)
    damage(path, how)
    found = verify()
    assert found.status == 1
    assert f"{table}/{path.name} has a checksum that differs" in found.err and "delete it and run --stage" in found.err
    again = run()  # checksums are for verify: what is finished is not read through again
    assert again.status == 0 or (f"{table}/{path.name}" in again.error() and "delete it" in again.error())
    path.unlink()
    run().done()
    assert table_bytes(corpus) == before


@pytest.mark.parametrize("how", ["flipped", "garbage"])
def test_a_parent_with_other_bytes_is_never_described(run, corpus, how):
    """`items` is damaged between ingest and captions: no description is made from it, and the message helps."""
    path = Table(corpus, "items").shard_path(1)
    shutil.rmtree(corpus / "descriptions")
    damage(path, how)
    result = run()
    assert result.status == 4
    assert f"items/{path.name} has a checksum that differs" in result.error() and "--stage ingest" in result.error()
    assert read_sidecar(corpus, "captions", 1) is None or not (corpus / "descriptions" / path.name).exists()
    path.unlink()
    run().done()
    assert Table(corpus, "descriptions").num_rows == 6


def test_a_damaged_plan_is_mended_as_its_message_says(run, capfd, corpus):
    damage(Table(corpus, "items").shard_path(1), "deleted")
    damage(corpus / ".state" / "plan" / "part-00001.arrow", "garbage")
    result = run()
    assert result.status == 4
    assert "plan/part-00001.arrow" in result.error() and "--stage ingest with --overwrite" in result.error()
    ended(capfd, "--stage", "ingest", "--overwrite", "--output", corpus).done()
    run().done()
