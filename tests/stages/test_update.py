"""A collection that changes: everything is as in a corpus made afresh, and only what is new is paid for."""

import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from pipeline.corpus.next_corpus import MADE_FROM, PUBLISHING, next_folder
from pipeline.corpus.table import MADE_BY, MANIFEST, Table, complete
from stages import index
from stages.retrieval.encoders import Space
from stages.retrieval.engine import Index
from stages.verify import KEYS
from tests.conftest import clean_environment, command, make_photos, run_stage
from tests.loopback import Loopback
from tests.stages.indexed import write_model

TEXTS = ("captions", "descriptions")


def make_collection(photos, count):
    make_photos(photos, count)
    lines = (f"photo-{number:05d}.jpg,Photo number {number}.\n" for number in range(count))
    (photos / "captions.csv").write_text("file,caption\n" + "".join(lines))


def change(photos, added, changed, renamed, gone):
    """Change a folder of photos in every way. Those that are added have a caption each."""
    paths = sorted(photos.glob("*.jpg"))
    chosen = random.Random(3).sample(paths, changed + renamed + gone)
    fresh = make_photos(photos.parent / "fresh", len(paths) + added + changed)[len(paths) :]
    for path in chosen[:changed]:
        shutil.copyfile(fresh.pop(), path)
    for path in chosen[changed : changed + renamed]:
        path.rename(path.with_name(f"a-new-name-of-{path.name}"))
    for path in chosen[changed + renamed :]:
        path.unlink()
    with (photos / "captions.csv").open("a") as table:
        for path in fresh:
            shutil.copyfile(path, photos / f"added-{path.name}")
            table.write(f"added-{path.name},A photo called {path.stem}.\n")


def make(corpus, photos, url, shard_size, model=None):
    """All tables of a corpus, described and translated by a chat server, encoded if there is a model."""
    server = ("--mllm-url", url)
    for stage in (
        ("captions", "--input", photos, *server, "--views", "short", "--shard-size", shard_size),
        ("translate", "--languages", "de", "--text", ",".join(TEXTS), "--translator", "llm", *server),
        ("pack", "--image-size", "32"),
        *([("embed", "--checkpoint", model)] if model else []),
    ):
        quality = ("--quality-encoder", "none") if stage[0] == "translate" else ()
        done = run_stage("--stage", *stage, *quality, "--output", corpus)
        assert done.returncode == 0, done.stderr


def assert_equal_to_one_made_afresh(corpus, photos, url, shard_size, model=None):
    afresh = corpus.parent / "afresh" / corpus.name
    make(afresh, photos, url, shard_size, model)
    for table in filter(lambda name: complete(afresh, name), MADE_BY):
        rows, expected = (
            sorted(Table(home, table).rows(), key=lambda row: [row[key] for key in KEYS[table]])
            for home in (corpus, afresh)
        )
        if table == "vectors":  # encoded in other batches
            assert [row.pop("vector") for row in rows] == [
                pytest.approx(row.pop("vector"), abs=1e-5) for row in expected
            ]
        assert rows == expected, table
    assert run_stage("--stage", "verify", "--output", corpus, "--originals").returncode == 0


def test_an_update_pays_only_for_what_is_new(tmp_path, monkeypatch):
    photos, corpus, model = tmp_path / "photos", tmp_path / "corpus", write_model(tmp_path / "model")
    encoded, items = [], Space.items
    monkeypatch.setattr(Space, "items", lambda space, *given: encoded.extend(given[0]) or items(space, *given))
    make_collection(photos, 30)
    with Loopback() as server:
        make(corpus, photos, server.url, 5, model)
        before = server.stats()["answered"]
        assert len(encoded) == 30
        encoded.clear()
        assert before == 30 + 60  # described; captions and descriptions translated
        change(photos, added=4, changed=2, renamed=3, gone=1)
        shutil.rmtree(corpus / ".state" / "cache")  # what is reused comes from the tables
        again = run_stage("--stage", "pack", "--image-size", "32", "--output", corpus)
        assert "+4 new, 2 changed, 3 renamed, 1 gone" in again.stdout
        done = run_stage("--stage", "update", "--output", corpus)
        assert done.returncode == 0, done.stderr
        assert "+4 new, 2 changed, 3 renamed, 1 gone" in done.stdout
        moved = photos.rename(tmp_path / "moved")
        done = run_stage("--stage", "update", "--output", corpus, "--input", moved)
        assert done.returncode == 0 and "no changes" in done.stdout, done.stdout + done.stderr
        assert server.stats()["answered"] - before == 6 + 6 + 4  # and 6 descriptions and 4 captions translated
        assert len(encoded) == 6
        assert_equal_to_one_made_afresh(corpus, moved, server.url, 5, model)
        (moved / "added-photo-00030.jpg").touch()
        assert "1 changed" in run_stage("--stage", "ingest", "--output", corpus).stdout  # by its time
        assert "no changes" in run_stage("--stage", "update", "--output", corpus).stdout  # by its content
        assert "has changed" not in run_stage("--stage", "ingest", "--output", corpus).stdout


@pytest.mark.torture
def test_killed_ten_times_while_fifty_clients_search(tmp_path):
    photos, corpus, made = tmp_path / "photos", tmp_path / "corpus", tmp_path / "index"
    make_collection(photos, 500)
    update = command("--stage", "update", "--output", corpus, "--window", 4)
    folder = next_folder(corpus)
    with Loopback(latency_s=0.2) as server:
        make(corpus, photos, server.url, 60)
        assert index.main(["--checkpoint", "embedded", "--data", str(corpus), "--output", str(made)]) == 0
        before, old_training = server.stats(), (corpus / "training" / MANIFEST).read_bytes()
        change(photos, added=10, changed=2, renamed=3, gone=1)
        finder, ended, errors, answers = Index.open(made), threading.Event(), [], []

        def search(opens):
            while not ended.is_set():
                try:
                    asked = Index.open(made) if opens else finder
                    asked.refresh()
                    answers.append(len(asked.find(["rot"], 20)[0]))
                except Exception as error:
                    errors.append(error)
                    return

        clients = [threading.Thread(target=search, args=(number == 0,)) for number in range(50)]
        for client in clients:
            client.start()
        started = time.monotonic()
        moments = [
            lambda: time.monotonic() > started + 2,
            folder.exists,
            (folder / ".state" / MADE_FROM).exists,
            lambda: server.stats()["answered"] >= before["answered"] + 4,
            lambda: server.stats()["answered"] >= before["answered"] + 9,
            *((folder / table / MANIFEST).exists for table in ("descriptions", "translations", "training")),
            (folder.parent / PUBLISHING).exists,
            lambda: (
                (corpus / "training" / MANIFEST).exists()
                and (corpus / "training" / MANIFEST).read_bytes() != old_training
            ),
        ]
        for has_come in moments:
            process = subprocess.Popen(update, env=clean_environment())
            while process.poll() is None and not has_come():
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = subprocess.run(update, env=clean_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        ended.set()
        for client in clients:
            client.join()
        assert not errors and min(answers) == 20
        paid = server.stats()["seen"]
        assert len(paid) - len(before["seen"]) == 12 + 12 + 10  # descriptions, and they and the captions translated
        assert sum(asked for asked, _ in paid.values()) - len(paid) <= 10 * 4  # in flight when it was killed
        finder.refresh()
        assert len(finder) == 509
        assert_equal_to_one_made_afresh(corpus, photos, server.url, 60)
