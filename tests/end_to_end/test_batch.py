"""Descriptions from a batch service: the same bytes as from a server that answers the same."""

import json
import random
import shutil

from pipeline.captioning import batch
from pipeline.corpus.table import Table
from tests.conftest import make_photos, run_stage
from tests.end_to_end.test_resume import table_bytes
from tests.loopback import Loopback, answer_text, completion, read_chat
from tests.pipeline.media.test_video import encoded


def answered(requests, results, refuse=()):
    """Answer requests as a batch service does, in another order, except some lines; returns the requests' ids."""
    lines = [json.loads(line) for path in sorted(requests.glob("*.jsonl")) for line in path.open()]
    replies = []
    for number, line in enumerate(lines):
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        model, images, prompt = read_chat(json.dumps(line["body"]).encode())
        assert model == "loopback"
        body = json.loads(completion(answer_text(images, prompt), len(images), prompt))
        response = {"status_code": 200, "request_id": "1", "body": body}
        if number in refuse:
            response = {"status_code": 503, "request_id": "1", "body": {"error": {"message": "later"}}}
        replies.append({"id": "2", "custom_id": line["custom_id"], "response": response, "error": None})
    random.Random(0).shuffle(replies)
    results.mkdir()
    (results / "output.jsonl").write_text("".join(f"{json.dumps(reply)}\n" for reply in replies))
    return [line["custom_id"] for line in lines]


def test_a_batch_service_gives_the_same_tables_as_a_server(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    first, *_ = make_photos(photos, 5)
    shutil.copyfile(first, photos / "copy.jpg")
    (photos / "clip.mp4").write_bytes(encoded(tmp_path / "clip.mp4"))
    inputs = ("--stage", "captions", "--input", photos, "--mllm", "loopback", "--views", "short,detail")
    with Loopback() as server:
        done = run_stage(*inputs, "--output", tmp_path / "server", "--mllm-url", server.url, "--shard-size", 3)
    assert done.returncode == 0, done.stderr
    of_batch = (*inputs, "--output", tmp_path / "batch", "--shard-size", 3)
    monkeypatch.setattr(batch, "MAX_REQUESTS", 5)
    done = run_stage(*of_batch, "--batch-export", tmp_path / "requests")
    assert done.returncode == 0, done.stderr
    assert [len(path.read_bytes().splitlines()) for path in sorted((tmp_path / "requests").iterdir())] == [5, 5, 2]
    ids = answered(tmp_path / "requests", tmp_path / "results", refuse=[4])
    assert len(set(ids)) == 12  # two views of five photos and a clip; the copy is not asked again
    done = run_stage(*of_batch, "--batch-import", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "11 answers" in done.stdout
    assert "1 http_503: later" in done.stdout
    failures = Table(tmp_path / "batch", "descriptions").failures()
    assert {failure["error"] for failure in failures} == {"unanswered"}
    assert run_stage(*of_batch, "--batch-export", tmp_path / "rest").returncode == 0
    assert answered(tmp_path / "rest", tmp_path / "results2") == [ids[4]]
    assert run_stage(*of_batch, "--batch-import", tmp_path / "results2").returncode == 0
    assert table_bytes(tmp_path / "batch") == table_bytes(tmp_path / "server")


def test_a_file_that_is_not_of_results(tmp_path):
    make_photos(tmp_path / "photos", 1)
    (tmp_path / "results.jsonl").write_text("<html>\n")
    inputs = ("--stage", "captions", "--input", tmp_path / "photos", "--output", tmp_path / "corpus")
    done = run_stage(*inputs, "--mllm", "any", "--batch-import", tmp_path / "results.jsonl")
    assert done.returncode == 2
    assert "line 1" in done.stderr
    done = run_stage(*inputs, "--batch-export", tmp_path / "requests")
    assert done.returncode == 2
    assert "--mllm" in done.stderr
