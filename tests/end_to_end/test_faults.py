"""Every answer in its own row, whatever the server does: hundreds of items, 5 views, one attempt in ten goes wrong."""

import hashlib
import json

import pyarrow as pa
import pytest

import beam_runner
from pipeline.captioning.captioners import question
from pipeline.captioning.prompts import BUILT_IN
from pipeline.corpus.table import Table
from pipeline.hashing import file_hash
from pipeline.media.images import jpegs
from tests.conftest import make_photos
from tests.loopback import Loopback, answer_text

MAX_PIXELS = 1_024  # below the photos' size, so that every picture is decoded, shrunk and encoded


def sent(path):
    """The JPEG that the stage sends for a photo."""
    with path.open("rb") as stream:
        return jpegs(stream, "image", max_pixels=MAX_PIXELS, count=1)[0][0]


@pytest.fixture(scope="module", params=[400, pytest.param(2_000, marks=pytest.mark.torture)])
def run(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("faults")
    photos = make_photos(folder / "photos", request.param)
    settings = {"latency_s": 0.01, "sigma": 1.0, "fault_rate": 0.1, "retry_after_s": 0.05, "stall_s": 20, "slots": 64}
    with Loopback(**settings) as server:
        arguments = ("--stage", "captions", "--input", folder / "photos", "--output", folder / "corpus")
        options = ("--mllm-url", server.url, "--shard-size", 300, "--max-pixels", MAX_PIXELS, "--timeout", 3)
        status = beam_runner.run([str(argument) for argument in (*arguments, *options)])
        stats = server.stats()
    return status, photos, folder / "corpus", stats


def test_every_row_has_the_answer_to_its_own_picture(run):
    status, photos, corpus, _ = run
    assert status == 0
    by_item = {path.name: path for path in photos}
    seen = set()
    for row in Table(corpus, "descriptions").rows():
        path = by_item[row["item_id"]]
        assert row["text"] == answer_text([sent(path)], question(BUILT_IN[row["view"]], []))
        assert row["sha256"] == file_hash(path)
        seen.add((row["item_id"], row["view"]))
    assert len(seen) == Table(corpus, "descriptions").num_rows == len(photos) * len(BUILT_IN)
    assert Table(corpus, "descriptions").failures() == []


def test_no_answer_was_paid_for_twice(run):
    _, photos, _, stats = run
    records = len(photos) * len(BUILT_IN)
    assert sum(stats["faults"].values()) > 0.07 * records
    assert all(count > 0 for count in stats["faults"].values()), stats["faults"]
    answered = [ok for _, ok in stats["seen"].values()]
    assert len(answered) == records
    assert set(answered) == {1}


MODES = {
    "surplus": {"surplus": 5},
    "late surplus": {"surplus": 5, "surplus_after_s": 0.03},
    "surplus, no ids": {"surplus": 5, "surplus_after_s": 0.01, "echo": False},
    "long blanks": {"around": (" " * 3_000, "\n" * 3_000), "space": " " * 3_000},
    "thinking": {"around": ("<think>Two cats? No.</think>\n", "")},
    "thinking, tag in the template": {"around": ("A cat? No.\n</think>\n\n", "")},
    "models: a page": {"models": "<html>"},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_answer_arrives_clean_at_its_own_picture(mode, tmp_path):
    photos = make_photos(tmp_path / "photos", 20)
    with Loopback(latency_s=0.005, **MODES[mode]) as server:
        arguments = ("--stage", "captions", "--input", tmp_path / "photos", "--output", tmp_path / "corpus")
        options = ("--mllm-url", server.url, "--mllm", "loopback", "--max-pixels", MAX_PIXELS, "--window", 8)
        assert beam_runner.run([str(argument) for argument in (*arguments, *options)]) == 0
    rows = {(row["item_id"], row["view"]): row["text"] for row in Table(tmp_path / "corpus", "descriptions").rows()}
    assert rows == {
        (path.name, view.name): answer_text([sent(path)], question(view, []))
        for path in photos
        for view in BUILT_IN.values()
    }


def test_readers_need_nothing_of_ours(run):
    datasets = pytest.importorskip("datasets")
    _, photos, corpus, _ = run
    loaded = datasets.load_dataset(
        "arrow", data_files=f"{corpus}/descriptions/*.arrow", split="train", cache_dir=str(corpus.parent / "cache")
    )
    assert loaded.num_rows == len(photos) * len(BUILT_IN)
    shard = sorted((corpus / "descriptions").glob("*.arrow"))[0]
    with pa.OSFile(str(shard)) as source:
        assert pa.ipc.open_stream(source).read_all().num_rows == 300 * len(BUILT_IN)
    manifest = json.loads((corpus / "descriptions" / "manifest.json").read_text())
    assert manifest["shards"][0]["sha256"] == hashlib.sha256(shard.read_bytes()).hexdigest()
