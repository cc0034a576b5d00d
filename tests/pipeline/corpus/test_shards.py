"""Damaged shards: found, named, and made again from what they were made of."""

import pytest

from pipeline.corpus.table import Table
from tests.end_to_end.test_resume import table_bytes


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


@pytest.mark.parametrize(("table", "how"), [("items", "cut"), ("captions", "deleted"), ("descriptions", "deleted")])
def test_a_shard_of_another_size_is_made_again(run, corpus, server, table, how):
    run().done()
    before, requests = table_bytes(corpus), server.stats()["requests"]
    damage(Table(corpus, table).shard_path(1), how)
    report = run.stage("verify")
    assert report.status == 1
    assert f"{table}/part-00001-of-00003.arrow" in report.err and "--stage" in report.err
    run().done()
    assert table_bytes(corpus) == before
    assert server.stats()["requests"] == requests, "an answer was paid for twice"
    assert run.stage("verify").status == 0


@pytest.mark.parametrize(("table", "how"), [("items", "garbage"), ("descriptions", "flipped")])
def test_a_shard_with_other_bytes_is_reported(run, corpus, table, how):
    """Once deleted, as the message says, it is made again. A finished run shows rows of the first shard."""
    run().done()
    before, path = table_bytes(corpus), Table(corpus, table).shard_path(0)
    damage(path, how)
    report = run.stage("verify")
    assert report.status == 1
    assert f"{table}/{path.name} has a checksum that differs" in report.err
    assert "delete it and run --stage" in report.err
    again = run()  # checksums are for verify: what is finished is not read through again
    assert again.status == 0 or (f"{table}/{path.name}" in again.error() and "delete it" in again.error())
    path.unlink()
    run().done()
    assert table_bytes(corpus) == before


@pytest.mark.parametrize("how", ["flipped", "garbage"])
def test_a_parent_with_other_bytes_is_never_described(run, corpus, how):
    """`items` is damaged between ingest and captions: no description is made from it, and the message helps."""
    run.ingest().done()
    path = Table(corpus, "items").shard_path(1)
    damage(path, how)
    result = run()
    assert result.status == 4
    assert f"items/{path.name} has a checksum that differs" in result.error() and "--stage ingest" in result.error()
    assert not (corpus / "descriptions" / path.name).exists()
    path.unlink()
    run().done()
    assert Table(corpus, "descriptions").num_rows == 5


def test_a_damaged_plan_is_mended_as_its_message_says(run, corpus):
    run().done()
    damage(Table(corpus, "items").shard_path(1), "deleted")
    damage(corpus / ".state" / "plan" / "part-00001.arrow", "garbage")
    result = run()
    assert result.status == 4
    assert "plan/part-00001.arrow" in result.error() and "--stage ingest with --overwrite" in result.error()
    run.ingest().done()
    run().done()
