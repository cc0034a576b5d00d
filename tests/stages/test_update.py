"""A collection that changes: everything is as in a corpus made afresh, and only what is new is paid for."""

import random
import shutil

import pytest

from pipeline.corpus.schema import SCHEMAS
from pipeline.corpus.table import Table
from stages import index
from tests.conftest import make_photos, run_stage
from tests.loopback import Loopback
from stages.verify import KEYS

VIEWS = "short,objects"


def change(photos, added, changed, renamed, gone, seed=3):
    """Change a folder of photos in every way; returns the names of those that are new or changed."""
    paths = sorted(photos.glob("*.jpg"))
    chosen = random.Random(seed).sample(paths, changed + renamed + gone)
    fresh = make_photos(photos.parent / "more", len(paths) + added + changed)[len(paths) :]
    for path in chosen[:changed]:
        shutil.copyfile(fresh.pop(), path)
    for path in chosen[changed : changed + renamed]:
        path.rename(path.with_name(f"a-new-name-of-{path.name}"))
    for path in chosen[changed + renamed :]:
        path.unlink()
    for path in fresh:
        shutil.copyfile(path, photos / f"added-{path.name}")
    with (photos / "captions.csv").open("a") as table:
        table.writelines(f"added-{path.name},A picture named {path.stem}.\n" for path in fresh)


def rows(corpus, table):
    """The rows of a table by id, without what their place in the table decides."""
    return sorted(Table(corpus, table).rows(), key=lambda row: [row[key] for key in KEYS[table]])


def make(corpus, photos, url, *more):
    options = ("--output", corpus, "--max-failures", "0")
    for stage in (
        ("captions", "--input", photos, "--mllm-url", url, "--views", VIEWS, "--shard-size", 7, *more),
        ("translate", "--languages", "pt", "--text", "captions,descriptions", *more),
        ("pack", "--image-size", "32"),
    ):
        done = run_stage("--stage", *stage, *options)
        assert done.returncode == 0, done.stderr


def test_an_update_pays_only_for_what_is_new(tmp_path):
    photos, corpus, made = tmp_path / "photos", tmp_path / "corpus", tmp_path / "index"
    make_photos(photos, 30)
    (photos / "captions.csv").write_text("file,caption\n" + "".join(f"photo-{n:05d}.jpg,Photo {n}.\n" for n in range(30)))
    with Loopback() as server:
        make(corpus, photos, server.url)
        assert index.main(["--checkpoint", "embedded", "--data", str(corpus), "--output", str(made)]) == 0
        before = server.stats()["answered"]
        assert before == 60
        change(photos, added=4, changed=2, renamed=3, gone=1)
        again = run_stage("--stage", "pack", "--image-size", "32", "--output", corpus)
        assert "+4 new, 2 changed, 3 renamed, 1 gone" in again.stdout
        done = run_stage("--stage", "update", "--output", corpus)
        print(done.stdout, done.stderr)
        assert done.returncode == 0, done.stderr
        assert server.stats()["answered"] - before == 6 * 2
        make(tmp_path / "afresh" / "corpus", photos, server.url)
    for table in SCHEMAS:
        assert rows(corpus, table) == rows(tmp_path / "afresh" / "corpus", table), table
    assert run_stage("--stage", "verify", "--output", corpus).returncode == 0
