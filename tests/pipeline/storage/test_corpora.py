"""Corpora in an object store: the bytes of a local run, whatever is killed, and never the rows of two writers mixed."""

import dataclasses
import random
import signal
import subprocess
import time

import pytest

from pipeline.corpus import shards
from pipeline.corpus.table import Table, read_shard
from pipeline.engine.stage import Outcome, Run, Stage
from pipeline.errors import MediaError
from pipeline.hashing import stream_hash
from pipeline.media.uri import open_media
from pipeline.storage.files import location
from tests.conftest import clean_environment, command, make_photos, run_stage
from tests.loopback import Loopback

TABLES = ("items", "captions", "descriptions", "training")


def table_bytes(corpus):
    files = [path for table in TABLES for path in (corpus / table).glob("*")]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


@dataclasses.dataclass(frozen=True)
class Describe(Stage):
    name = "captions"
    tables = ("descriptions",)
    parents = ("items",)

    def settings(self):
        return {}


def described(task, text, fails=()):
    row = {"view": "short", "language": "en", "captioner": "", "revision": "", "prompt_id": "", "decoding": ""}
    row |= {"finish_reason": "stop", "prompt_tokens": None, "completion_tokens": None, "flags": []}
    row |= {"frame_times_s": [], "sha256": "", "text": text}
    return [Outcome({"descriptions": [{"item_id": item["item_id"], **row}]}) for item in task.rows]


def test_of_two_writers_of_a_shard_the_first_one_counts(folder, tmp_path):
    """The second one was given up for dead, and goes on when the shard is made: its late writes change nothing."""
    make_photos(tmp_path / "photos", 3)
    corpus, stage = folder / "corpus", Describe()
    assert run_stage("--stage", "ingest", "--input", tmp_path / "photos", "--output", corpus).returncode == 0
    run = Run("token", corpus, 1, tmp_path)
    first, late = (shards.load(corpus, stage, 0, 1) for _ in range(2))
    assert shards.commit(run, stage, first, described(first, "first"))
    before = {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    assert not shards.commit(run, stage, late, described(late, "late"))
    assert {path: path.read_bytes() for path in corpus.rglob("*") if path.is_file()} == before
    assert shards.is_current(run, stage, 0)
    again, late = (shards.load(corpus, stage, 0, 1) for _ in range(2))  # a later run makes it anew
    assert shards.commit(run, stage, again, described(again, "again"))
    assert not shards.commit(run, stage, late, described(late, "late"))
    path = corpus / "descriptions" / "part-00000-of-00001.arrow"
    assert {row["text"] for row in read_shard(path).to_pylist()} == {"again"}


class Team:
    """Machines with a cache folder each that describe the same photographs into one store."""

    def __init__(self, store, folder, server):
        self.store, self.folder, self.server = store, folder, server
        make_photos(folder / "photos", 60)

    def arguments(self, corpus):
        given = ("--stage", "captions", "--input", self.folder / "photos", "--output", corpus, "--shard-size", 20)
        return command(*given, "--mllm-url", self.server.url, "--window", 8, "--views", "short,objects")

    def environment(self, machine):
        return clean_environment(**self.store.environment, XDG_CACHE_HOME=str(self.folder / machine))

    def run(self, corpus, machine="one"):
        return subprocess.run(
            self.arguments(corpus), env=self.environment(machine), capture_output=True, text=True, check=False
        )

    def start(self, corpus, machine):
        return subprocess.Popen(
            self.arguments(corpus), env=self.environment(machine), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


@pytest.fixture
def team(object_store, tmp_path, monkeypatch):
    with Loopback(latency_s=0.1, sigma=0.5) as server:
        yield Team(object_store, tmp_path, server)


def corpus_of(tmp_path):
    return location(f"s3://corpora/{tmp_path.name}/corpus")


def test_the_bytes_of_a_local_run(team, tmp_path):
    assert team.run(tmp_path / "corpus").returncode == 0
    done = team.run(corpus_of(tmp_path), "two")
    assert done.returncode == 0, done.stderr
    exports = []
    for place, corpus in {"disk": tmp_path / "corpus", "store": corpus_of(tmp_path)}.items():
        assert run_stage("--stage", "pack", "--output", corpus).returncode == 0
        folder = tmp_path / place / "photos"
        assert run_stage("--stage", "export", "--output", corpus, "--to", folder).returncode == 0
        exports.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")})
    assert exports[0] == exports[1] and len(exports[0]) > 2
    assert table_bytes(corpus_of(tmp_path)) == table_bytes(tmp_path / "corpus")
    assert "no secret" not in done.stdout + done.stderr
    everything = b"".join(path.read_bytes() for path in corpus_of(tmp_path).rglob("*"))
    assert team.store.environment["AWS_SECRET_ACCESS_KEY"].encode() not in everything


def test_pictures_in_an_object_store(object_store, tmp_path):
    photos = location(f"s3://corpora/{tmp_path.name}/photos")
    for path in make_photos(tmp_path / "photos", 2):
        (photos / path.name).put(path.read_bytes())
    (photos / "broken.jpg").put(b"")
    done = run_stage("--stage", "ingest", "--input", photos, "--output", tmp_path / "corpus")
    assert done.returncode == 0, done.stderr
    rows = list(Table(tmp_path / "corpus", "items").rows())
    assert [row["uri"] for row in rows] == [str(photos / f"photo-{number:05d}.jpg") for number in range(2)]
    photos.joinpath("photo-00000.jpg").unlink()
    with pytest.raises(MediaError, match="no such file"):
        open_media(rows[0]["uri"])
    with open_media(rows[1]["uri"]) as stream:
        assert stream_hash(stream) == rows[1]["sha256"]


@pytest.mark.torture
def test_killed_machines(team, tmp_path):
    """Each goes on where the last one was killed; every answer differs, so that rows of two machines would show."""
    team.server.script(unlike=True)
    corpus, generator, asked, kills = corpus_of(tmp_path), random.Random(3), 120, 6
    for kill in range(kills):
        process = team.start(corpus, f"machine {kill}")
        goal = generator.randrange(10, 100) * (kill + 1) // kills
        while process.poll() is None and team.server.stats()["answered"] < goal:
            time.sleep(0.05)
        time.sleep(generator.uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = team.run(corpus, "last")
    assert done.returncode == 0, done.stderr
    rows = list(Table(corpus, "descriptions").rows())
    assert len(rows) == len({(row["item_id"], row["view"]) for row in rows}) == asked
    seen = team.server.stats()["seen"].values()
    twice = sum(number - 1 for number, _ in seen)
    assert len(seen) == asked and twice <= kills * (8 + 8 / 0.1 * 3.5)  # in flight, and those of the last flush
    verified = subprocess.run(
        command("--stage", "verify", "--output", corpus), env=team.environment("x"), capture_output=True, check=False
    )
    assert verified.returncode == 0, verified.stderr


@pytest.mark.torture
@pytest.mark.parametrize("how", ["stopped", "restarted"])
def test_a_store_that_is_away_is_waited_for(team, tmp_path, how):
    process = team.start(corpus_of(tmp_path), "one")
    while team.server.stats()["answered"] < 20:
        time.sleep(0.05)
    if how == "stopped":
        team.store.process.send_signal(signal.SIGSTOP)
        time.sleep(20)
        team.store.process.send_signal(signal.SIGCONT)
    else:
        team.store.stop()
        time.sleep(10)
        team.store.start()
    assert process.wait(200) == 0
    rows = list(Table(corpus_of(tmp_path), "descriptions").rows())
    assert len(rows) == len({(row["item_id"], row["view"]) for row in rows}) == 120
