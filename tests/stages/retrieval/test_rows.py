"""How rows become items, and how the part of the rows that is looked at is chosen."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import EnvironmentTrouble
from stages.retrieval import rows as vector_rows
from stages.retrieval.rows import TUNED_TO, best, build, lists_for, load, recall, save
from tests.stages.indexes import by_numpy, clustered, unit

INF = np.inf


def test_the_best_items_by_hand():
    """Two queries, four rows each: an item's second row counts for nothing, ties go by item, -1 is nobody."""
    scores = np.array([[0.9, 0.8, 0.8, 0.7], [0.5, -INF, 0.5, 0.6]], np.float32)
    items = np.array([[3, 3, 2, 1], [9, -1, 4, 9]])
    found = best(scores, items, 2, single=False)
    assert found[0].tolist() == pytest.approx(np.array([[0.9, 0.8], [0.6, 0.5]], np.float32))
    assert found[1].tolist() == [[3, 2], [9, 4]]
    assert best(scores, items, 4, single=False)[1].tolist() == [[3, 2, 1, -1], [9, 4, -1, -1]]


def test_recall_by_hand():
    assert recall(np.array([[4, 7], [1, -1]]), np.array([[7, 9], [1, -1]])) == pytest.approx(2 / 3)
    assert recall(np.array([[-1]]), np.array([[-1]])) == 0


def test_lists():
    assert [lists_for(rows) for rows in (1, 5, 10_000, 1_000_000)] == [1, 5, 400, 4000]


def test_small_is_flat_and_large_is_not(monkeypatch):
    monkeypatch.setattr(vector_rows, "FLAT_ROWS", 300)
    for rows, kind in ((0, "flat"), (300, "flat"), (301, "ivf")):
        assert build(unit(rows, 8), np.ones(rows, int), kind="auto", dtype="float16").facts.kind == kind


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_effort_is_what_the_questions_need(kind):
    """Questions that lie far from all that is there need more than those that lie near."""
    vectors = clustered(4000, 32)
    near = build(vectors, np.ones(4000, int), kind=kind, dtype="float32", asked_QE=vectors[:300])
    asked = unit(500, 32, seed=8)
    far = build(vectors, np.ones(4000, int), kind=kind, dtype="float32", asked_QE=asked)
    assert near.facts.effort < far.facts.effort < 4000
    wanted = by_numpy(asked[:200], vectors[:, None], 10)[1]
    assert recall(far.search(asked[:200], 10)[1], wanted) >= TUNED_TO - 0.02
    assert recall(near.search(asked[:200], 10)[1], wanted) < recall(far.search(asked[:200], 10)[1], wanted)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_what_is_saved_answers_as_before(tmp_path, kind, dtype):
    counts = np.array([2, 0, 3] * 100)
    rows = build(clustered(500, 16), counts, kind=kind, dtype=dtype)
    save(rows, tmp_path / "x.faiss")
    again = load(tmp_path / "x.faiss", rows.facts, counts)
    (tmp_path / "x.faiss").unlink()  # what is open is read on
    for found, wanted in zip(again.search(unit(9, 16), 20), rows.search(unit(9, 16), 20), strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(again.vectors(2), rows.block(2, 3))
    assert again.vectors(1).shape == (0, 16) and not {item for item in found.ravel() if item % 3 == 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_disk_that_takes_no_more_is_told():
    rows = build(unit(5, 16), np.ones(5, np.int64), kind="flat", dtype="float32")
    with pytest.raises(EnvironmentTrouble, match="make room"):
        save(rows, Path("/dev/full"))


def test_counts_that_do_not_fit_are_told(tmp_path):
    from pipeline.errors import UsageError

    rows = build(unit(5, 8), np.ones(5, int), kind="flat", dtype="float32")
    save(rows, tmp_path / "x.faiss")
    with pytest.raises(UsageError, match="5 vectors for 6 rows"):
        load(tmp_path / "x.faiss", rows.facts, np.ones(6, int))


def test_scores_in_blocks(monkeypatch):
    """However finely the work is cut up, the answers are the same."""
    counts = np.array([1, 4, 0, 2] * 50)
    rows = build(unit(350, 8), counts, kind="flat", dtype="float32")
    asked, items = unit(6, 8, seed=3), np.arange(200)[::-1]
    whole = rows.search(asked, 60), rows.scores(asked, items)
    monkeypatch.setattr(vector_rows, "BLOCK_FLOATS", 100)
    cut = rows.search(asked, 60), rows.scores(asked, items)
    np.testing.assert_array_equal(whole[0][1], cut[0][1])
    np.testing.assert_array_equal(whole[1], cut[1])
    assert (whole[1][:, counts[items] == 0] == -INF).all()
