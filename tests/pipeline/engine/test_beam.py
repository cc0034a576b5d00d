"""The graph and its counters; that it runs under every runner is tests/end_to_end/test_runners.py."""

import beam_runner
from pipeline.engine import beam as work
from tests.conftest import make_photos
from tests.loopback import Loopback


def test_beams_counters_tell_what_was_made(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos", 5)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"broken")
    told = []
    make = work.make
    monkeypatch.setattr(work, "make", lambda *arguments: told.append(make(*arguments)))
    arguments = ["--stage", "captions", "--input", str(tmp_path / "photos"), "--output", str(tmp_path / "corpus")]
    arguments += ["--shard-size", "2", "--views", "short,objects"]
    with Loopback() as server:
        assert beam_runner.run([*arguments, "--mllm-url", server.url]) == 0
    assert told == [
        {
            "ingest/shards": 3,
            "ingest/items": 6,
            "ingest/rows.items": 5,
            "ingest/rows.captions": 0,
            "ingest/failed.unreadable": 1,
            "captions/shards": 3,
            "captions/items": 5,
            "captions/rows.descriptions": 10,
        }
    ]


def test_the_default_runner_fetches_nothing(capsys):
    said = []
    for arguments in ([], ["--runner", "DirectRunner"]):
        options = work.beam_options(arguments, said.append)
        assert options.get_all_options()["runner"].endswith("FnApiRunner")
    assert len(said) == 1
    assert "downloads nothing" in said[0]
