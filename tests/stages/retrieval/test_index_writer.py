"""Generations of an index: what is taken over, what is refused, writers that are killed or meet, readers meanwhile."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, file_hash, short_hash
from stages.retrieval.facts import FACTS
from stages.retrieval.index_reader import Generation, read_manifest
from stages.retrieval.index_writer import index_writer
from tests.conftest import ROOT
from tests.stages.indexes import ORIGIN, block, make_index, record, unit


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".state")


def stored(index):
    """By number of the item, its media and text rows."""
    return {
        int(row["item_id"][:-4]): tuple(index.vectors.rows(slice(n, n + 1), part=part) for part in ("media", "text"))
        for n, row in enumerate(index.records(range(len(index))))
    }


@settings(max_examples=30)
@given(st.lists(st.sets(st.integers(0, 12), max_size=8), min_size=1, max_size=5))
def test_each_generation_holds_the_items_given_with_their_vectors(generations):
    media, texts = unit(13, 2, 4), unit(13, 4, seed=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "i"
        for numbers in map(sorted, generations):
            index = make_index(
                folder, *(block(part, media[part], texts[part]) for part in (numbers[:3], numbers[3:]) if part)
            )
            assert list(stored(index)) == numbers
            for number, (media_rows, text_rows) in stored(Generation.open(folder)).items():
                np.testing.assert_array_equal(media_rows, media[number])
                np.testing.assert_array_equal(text_rows, texts[number : number + 1])
                (kept,) = index.records([index.number("photos", f"{number}.jpg")])
                assert {name: kept[name] for name in record(number)} == record(number)
            assert index.number("others", "3.jpg") is None and index.number("photos", "99.jpg") is None
            assert len(names(folder)) == 2  # the manifest and one generation


def test_an_index_of_before_facts_and_frames_were_kept_is_read(tmp_path):
    index = make_index(tmp_path / "i", block(range(3), unit(3, 1, 4), unit(3, 4)))
    (path,) = (tmp_path / "i").glob("generation-*/items.arrow")
    items = index.items.drop_columns([*FACTS.names, "frame_rows"])
    with pa.ipc.new_stream(tmp_path / "items.arrow", items.schema) as file:
        file.write_table(items)
    (tmp_path / "items.arrow").replace(path)
    manifest = {name: value for name, value in index.manifest.items() if name != "fits"}
    manifest["files"]["items.arrow"] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
    manifest["checksum"] = short_hash(canonical_json(manifest))
    (tmp_path / "i" / "manifest.json").write_text(json.dumps(manifest))
    (old,) = Generation.open(tmp_path / "i").records([1])
    assert {name: old[name] for name in record(1)} == record(1) and old["taken"] is None


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match=r"holds photo\.jpg"):
        make_index(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        make_index(tmp_path / "photo.jpg")
    with pytest.raises(UsageError, match="does not exist"):
        Generation.open(tmp_path / "none")


def test_a_second_writer_is_refused_with_the_firsts_pid(tmp_path):
    settings = {"origin": ORIGIN, "width": 4, "dtype": "float32", "kind": "auto"}
    with (
        index_writer(tmp_path / "i", **settings),
        pytest.raises(UsageError, match=f"pid {os.getpid()}"),
        index_writer(tmp_path / "i", **settings),
    ):
        pass


def test_files_of_another_index_are_refused(tmp_path):
    """A FAISS file of the same size, but other vectors; items that are cut short; a manifest that was edited."""
    one, other = tmp_path / "one", tmp_path / "other"
    make_index(one, block(range(5), unit(5, 1, 4)))
    make_index(other, block(range(5), unit(5, 1, 4, seed=1)))
    home = one / "generation-00000001"
    for name, data, problem in (
        ("vectors.faiss", (other / "generation-00000001" / "vectors.faiss").read_bytes(), "checksum"),
        ("items.arrow", (home / "items.arrow").read_bytes()[:-8], "bytes"),
        ("../manifest.json", (one / "manifest.json").read_bytes().replace(b'"items": 5', b'"items": 6'), "checksum"),
        ("../manifest.json", b"{", "cannot be read"),
        ("../manifest.json", b"{}", "not the manifest"),
    ):
        whole = (home / name).read_bytes()
        (home / name).write_bytes(data)
        with pytest.raises(UsageError, match=problem):
            Generation.open(one)
        (home / name).write_bytes(whole)
    (home / "vectors.faiss").unlink()
    with pytest.raises(UsageError, match="is missing"):
        Generation.open(one)


@pytest.mark.parametrize(
    "manifest",
    [{"vector_index_version": 1, "dtype": "float32"}, {"vector_index_version": 2, "dtype": "float16", "kind": "hnsw"}],
)
def test_an_index_of_another_version_is_refused_and_can_be_overwritten(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "segment-00000001").mkdir()
    with pytest.raises(UsageError, match="--overwrite"):
        read_manifest(tmp_path)
    make_index(tmp_path, block(range(3), unit(3, 1, 4)), overwrite=True)
    assert names(tmp_path) == ["generation-00000001", "manifest.json"]


KILLED = """
import os, pathlib, signal, sys
from stages.retrieval import index_writer
from tests.stages.indexes import block, make_index, unit
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
index_writer.{name} = kill
make_index(pathlib.Path(sys.argv[1]), block(range(2, 14), unit(12, 1, 4, seed=1)))
"""


@pytest.mark.parametrize("name", ["build_vectors", "file_hash", "write_json", "_sweep"])
def test_a_killed_writer_leaves_the_old_index_or_the_new_one(tmp_path, name):
    folder = tmp_path / "i"
    make_index(folder, block(range(9), unit(9, 1, 4)))
    code = KILLED.format(name=name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    there = stored(Generation.open(folder)).keys()
    assert there == set(range(9)) or (name == "_sweep" and there == set(range(2, 14)))
    assert stored(make_index(folder, block(range(2, 14), unit(12, 1, 4)))).keys() == set(range(2, 14))
    assert len(names(folder)) == 2


def test_overwriting_replaces_all(tmp_path):
    folder = tmp_path / "i"
    make_index(folder, block(range(5), unit(5, 1, 4)))
    index = make_index(folder, block(range(50, 53), unit(3, 1, 7)), width=7, overwrite=True, kind="ivf")
    assert (len(index), index.vectors.kind) == (3, "ivf") and len(names(folder)) == 2
