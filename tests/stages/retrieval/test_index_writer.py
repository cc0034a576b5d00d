"""Adding and removing against a model of it in NumPy; what is refused; writers that are killed or meet."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from stages.retrieval.index_reader import VectorIndex
from stages.retrieval.index_writer import MAX_SEGMENTS, _to_copy, writer
from tests.conftest import ROOT
from tests.stages.indexes import ORIGIN, make, record, unit

E = 4
GRID = [-1.0, -0.5, 0.0, 0.5, 1.0]  # few values, so that there are ties
NONE = np.empty((0, E)), np.empty(0, int)


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".state")


def keys(numbers):
    return [("photos", f"{number}.jpg") for number in numbers]


def found(index, k=100, **given):
    """Ids of all items that a search finds, each once."""
    ids = [item["item_id"] for item in index.items([n for n in index.search(unit(1, E), k, **given)[1][0] if n >= 0])]
    assert len(ids) == len(set(ids))
    return set(ids)


batches = st.lists(  # of adding, removing (places among those that are there) and committing
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 6), st.integers(0, 3), st.integers(0, 5), st.integers(0, 2**31)),
        st.tuples(st.just("remove"), st.sets(st.integers(0, 30), max_size=8)),
        st.just(("commit",)),
    ),
    max_size=14,
)


@settings(max_examples=40)
@given(steps=batches, kind=st.sampled_from(["auto", "ivf", "hnsw"]), k=st.integers(1, 12))
def test_it_is_what_a_dictionary_would_be(steps, kind, k):
    """Items with random rows, added and removed in any order: search, scores and records are as in a plain model."""
    model, number = {}, 0
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name) / "i"
        index = stack.enter_context(writer(folder, origin=ORIGIN, width=E, kind=kind))
        for step in (*steps, ("commit",)):
            if step[0] == "add":
                _, count, rows, texts, seed = step
                generator = np.random.default_rng(seed)
                media, text = generator.choice(GRID, (count, rows, E)), generator.choice(GRID, (texts * (count > 0), E))
                owner = generator.integers(0, max(1, count), len(text))
                index.add([record(number + place) for place in range(count)], media, text, owner)
                for place in range(count):
                    model[number + place] = {"media": media[place], "text": text[owner == place]}
                number += count
            elif step[0] == "remove":
                gone = [sorted(model)[place] for place in step[1] if place < len(model)]
                index.remove(keys(gone))
                for item in gone:
                    del model[item]
            else:
                index.commit()
                with VectorIndex.open(folder) as reader:
                    agree(reader, model, k, exact=kind == "auto")
        stack.close()
        assert (index_count := len(entries(folder))) <= MAX_SEGMENTS + 2, index_count


def agree(reader, model, k, exact):
    """`exact`: the best are found; else only all of them, where all are asked for."""
    assert len(reader) == len(model)
    reader.verify()
    queries = np.random.default_rng(0).choice(GRID, (3, E))
    for group in ("media", "text"):
        there = {item: rows[group] for item, rows in model.items() if len(rows[group])}
        scores, numbers = reader.search(queries, k, group=group)
        for query in range(3):
            wanted = {item: np.float32((rows @ queries[query]).max()) for item, rows in there.items()}
            ids = [int(row["item_id"][:-4]) for row in reader.items(numbers[query][numbers[query] >= 0])]
            assert len(ids) == min(k, len(there)) == len(set(ids))
            assert scores[query, : len(ids)].tolist() == [wanted[item] for item in ids]
            if exact or k >= len(there):
                assert scores[query, : len(ids)].tolist() == sorted(wanted.values(), reverse=True)[:k]
            assert all(
                (-one, a) < (-other, b)
                for one, other, a, b in zip(
                    scores[query], scores[query, 1:], numbers[query], numbers[query, 1 : len(ids)], strict=False
                )
            )
            again = reader.scores(queries, numbers[query, : len(ids)], group=group)[query]
            assert again.tolist() == scores[query, : len(ids)].tolist()
        for number in numbers[0][numbers[0] >= 0]:
            item = int(reader.items([number])[0]["item_id"][:-4])
            np.testing.assert_array_equal(reader.vectors(number, group=group), there[item])


def test_one_at_a_time_and_few_segments_stay(tmp_path):
    """An index that grows by single items copies the small ones together, never the large one."""
    make(tmp_path / "i", unit(500, 1, E))
    for number in range(30):
        make(tmp_path / "i", unit(1, 1, E, seed=number), first=500 + number)
        assert len(entries(tmp_path / "i")) <= MAX_SEGMENTS + 1
    assert "segment-00000001" in entries(tmp_path / "i")
    with VectorIndex.open(tmp_path / "i") as index:
        assert len(index) == 530 and len(found(index, 600)) == 530


@pytest.mark.parametrize(
    ("present", "items", "copied"),
    [
        ([100, 10], [100, 10], set()),
        ([60, 10], [100, 10], {0}),  # two fifths were removed
        ([70, 10], [100, 10], set()),
        ([0, 10], [100, 10], {0}),
        ([1000, *[1] * 7, 1], [1000, *[1] * 7, 1], {1, 2, 3, 4, 5, 6, 7}),
        ([1000, 900, *[1] * 6, 1], [1000, 900, *[1] * 6, 1], {2, 3, 4, 5, 6, 7}),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1], [9, 8, 7, 6, 5, 4, 3, 2, 1], {7, 6, 5, 4, 3, 2, 1, 0}),
        ([512, 256, 128, 64, 32, 16, 8, 4, 2], [512, 256, 128, 64, 32, 16, 8, 4, 2], {7, 6, 5, 4, 3}),
    ],
)
def test_what_is_copied(present, items, copied):
    assert _to_copy(present, items) == copied


def test_removing_much_makes_room(tmp_path):
    folder = make(tmp_path / "i", unit(90, 1, E))
    make(folder, unit(0, 1, E), remove=keys(range(20)))
    assert entries(folder) == ["manifest.json", "removed-00000002.npy", "segment-00000001"]
    make(folder, unit(0, 1, E), remove=keys(range(20, 40)))
    assert entries(folder) == ["manifest.json", "segment-00000003"]
    with VectorIndex.open(folder) as index:
        assert index.span == 50 and found(index) == {f"{number}.jpg" for number in range(40, 90)}
    make(folder, unit(0, 1, E), remove=keys(range(40, 90)))
    assert entries(folder) == ["manifest.json"]


def test_damage_is_not_copied_under_a_checksum_of_its_own(tmp_path):
    folder = make(tmp_path / "i", unit(90, 1, E))
    path = folder / "segment-00000001" / "media.faiss"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 255]) + whole[-4:])
    with pytest.raises(UsageError, match="checksum differs"):
        make(folder, unit(0, 1, E), remove=keys(range(40)))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_copying_keeps_small_values(tmp_path, dtype):
    folder = make(tmp_path / "i", vectors := unit(90, 2, E), dtype=dtype)
    make(folder, unit(0, 2, E), remove=keys(range(45)), dtype=dtype)
    with VectorIndex.open(folder) as index:
        order = [int(row["item_id"][:-4]) for row in index.items(np.arange(45))]
        stored = np.stack([index.vectors(number) for number in range(45)])
        np.testing.assert_allclose(stored, vectors[order], atol={"float16": 1e-3, "int8": 1.6e-2}[dtype])


def test_an_item_is_replaced_in_one_commit(tmp_path):
    folder = make(tmp_path / "i", unit(5, 1, E))
    make(folder, -unit(5, 1, E)[3:4], first=3, remove=keys([3]))
    with VectorIndex.open(folder) as index:
        scores, numbers = index.search(-unit(5, 1, E)[3], 1)
        assert scores[0, 0] == pytest.approx(1) and index.items(numbers[0]) == [record(3)] and len(index) == 5


def test_without_commit_nothing_shows_and_nothing_stays(tmp_path):
    folder = make(tmp_path / "i", unit(5, 1, E))
    before = entries(folder)
    with pytest.raises(KeyError), writer(folder, origin=ORIGIN, width=E) as index:
        index.remove(keys([1]))
        index.add([record(7)], unit(1, 1, E), *NONE)
        raise KeyError
    assert entries(folder) == before and len(VectorIndex.open(folder)) == 5


def test_what_cannot_be_added_or_removed(tmp_path):
    folder = make(tmp_path / "i", unit(5, 1, E))
    wrong = unit(2, 1, E)
    wrong[1, 0, 2] = np.nan
    long = unit(2, 1, E)
    long[0] *= 1e5
    cases = [
        ([record(4)], unit(1, 1, E), *NONE, r"4\.jpg of photos is in the index"),
        ([record(7), record(7)], unit(2, 1, E), *NONE, r"7\.jpg of photos comes twice"),
        ([record(7), record(8)], wrong, *NONE, r"8\.jpg of photos has a vector of length nan"),
        ([record(7), record(8)], long, *NONE, r"7\.jpg of photos has a vector of length 100000"),
        ([record(7)], unit(1, 1, E), wrong[1], [0], r"7\.jpg of photos has a vector of length nan"),
        ([record(7)], unit(1, 1, E + 1), *NONE, r"wanted \[1 items, rows, 4\]"),
        ([record(7)], unit(2, 1, E), *NONE, r"wanted \[1 items, rows, 4\]"),
        ([record(7)], unit(1, 1, E), unit(2, E), [0], r"got text vectors \(2, 4\), wanted \[1, 4\]"),
        ([record(7)], unit(1, 1, E), unit(2, E), [0, 1], "got texts of item 0 to 1, wanted 0 to 0"),
        ([{**record(7), "colour": "red"}], unit(1, 1, E), *NONE, "got a record of .*colour"),
    ]
    with writer(folder, origin=ORIGIN, width=E) as index:
        for *given_, told in cases:
            with pytest.raises(UsageError, match=told):
                index.add(*given_)
        for gone, told in (
            (keys([2, 9]), r"9\.jpg of photos is not in"),
            (keys([2, 2]), r"2\.jpg of photos is named twice"),
        ):
            with pytest.raises(UsageError, match=told):
                index.remove(gone)
        assert ("photos", "2.jpg") in index and ("photos", "7.jpg") not in index
        index.add([record(4, corpus="others")], unit(1, 1, E), *NONE)  # the same name in another corpus
        index.commit()
    with VectorIndex.open(folder) as index:
        assert len(index) == 6 and index.search(unit(1, E), 9)[1].max() == 5


def test_another_make_is_refused(tmp_path):
    folder = make(tmp_path / "i", unit(5, 1, E))
    for changed, told in [
        ({"origin": {**ORIGIN, "fingerprint": "bbbb"}}, "another fingerprint: has 'aaaa', got 'bbbb'"),
        ({"dtype": "int8"}, "another dtype"),
        ({"kind": "hnsw"}, "another kind"),
        ({"width": 5}, "another width"),
        ({"dtype": "bfloat16"}, "got dtype 'bfloat16'"),
    ]:
        with pytest.raises(UsageError, match=told), writer(folder, **{"origin": ORIGIN, "width": E, **changed}):
            pass
    more = {**ORIGIN, "corpora": {"photos": "1111", "clips": "2222"}}
    with writer(folder, origin=more, width=E) as index:
        index.commit()
    assert VectorIndex.open(folder, expect=more).origin == more


def test_overwriting_replaces_all_of_it(tmp_path):
    folder = make(tmp_path / "i", unit(5, 1, E))
    make(folder, unit(3, 1, 7), first=50, overwrite=True, dtype="int8", kind="ivf")
    with VectorIndex.open(folder) as index:
        assert (len(index), index.width, index.dtype) == (3, 7, "int8")
    assert entries(folder) == ["manifest.json", "segment-00000002"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match=r"holds photo\.jpg"), writer(tmp_path, origin={}, width=E, overwrite=True):
        pass
    with pytest.raises(UsageError, match="is a file"), writer(tmp_path / "photo.jpg", origin={}, width=E):
        pass


def test_a_second_writer_is_refused_with_the_firsts_pid(tmp_path):
    with (
        writer(tmp_path / "i", origin=ORIGIN, width=E),
        pytest.raises(UsageError, match=f"in use by another run .*pid {os.getpid()}"),
        writer(tmp_path / "i", origin=ORIGIN, width=E),
    ):
        pass


KILLED = """
import os, pathlib, signal, sys
from stages.retrieval import {module}
from tests.stages.indexes import make, unit
def killed(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
{module}.{name} = killed
make(pathlib.Path(sys.argv[1]), unit(7, 2, 4, seed=1), first=100, remove=[("photos", "1.jpg")])
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("segments", "told"),  # vectors are written, but not all of them
        ("index_writer", "told"),  # the segment has its name
        ("index_writer", "write_manifest"),
        ("index_writer.IndexWriter", "close"),  # published, but old files are there yet
    ],
)
def test_a_writer_that_was_killed_leaves_the_old_index(tmp_path, module, name):
    folder = make(tmp_path / "i", unit(9, 1, E))
    make(folder, unit(0, 1, E), remove=keys([0]))
    code = KILLED.format(module=module, name=name).replace("import index_writer.IndexWriter", "import index_writer")
    done = subprocess.run(
        [sys.executable, "-c", code, folder], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    published = name == "close"
    with VectorIndex.open(folder) as index:
        index.verify()
        assert len(found(index)) == len(index) == (14 if published else 8)
    assert set(entries(folder)) > {"manifest.json", "segment-00000001", "removed-00000002.npy"}
    if published:
        make(folder, unit(0, 2, E))
        assert entries(folder) == ["manifest.json", "removed-00000004.npy", "segment-00000001", "segment-00000003"]
    else:
        make(folder, unit(7, 2, E), first=100, remove=keys([1]))
        assert entries(folder) == ["manifest.json", "removed-00000003.npy", "segment-00000001", "segment-00000003"]
    assert len(VectorIndex.open(folder)) == 14


def test_writers_that_come_at_once_follow_each_other_or_are_refused(tmp_path):
    """Four processes add to one index: each tries until the others are done, and nothing is lost."""
    code = """
import pathlib, sys, time
from pipeline.errors import UsageError
from tests.stages.indexes import make, unit
while True:
    try:
        make(pathlib.Path(sys.argv[1]), unit(5, 1, 4, seed=int(sys.argv[2])), first=int(sys.argv[2]))
        break
    except UsageError as error:
        assert "in use by another run" in str(error), error
        time.sleep(0.01)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "i", str(5 * number)], cwd=ROOT, env=environment)
        for number in range(4)
    ]
    assert [process.wait(60) for process in writers] == [0] * 4
    with VectorIndex.open(tmp_path / "i") as index:
        index.verify()
        assert found(index) == {f"{number}.jpg" for number in range(20)}
