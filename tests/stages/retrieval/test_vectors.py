"""How rows become items, in every kind of index and dtype, against NumPy."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import EnvironmentTrouble, UsageError
from stages.retrieval.vectors import DTYPES, KINDS, TUNING_RECALL, build_vectors, load_vectors, recall, save_vectors
from tests.stages.indexes import by_numpy, clustered, unit

GRID = [-1.0, -0.5, 0.0, 0.5, 1.0]  # few values, so that there are ties


def in_blocks(rows):
    """As an index is built of them: in blocks, which are asked for again and again."""
    return lambda part: [rows[part][start : start + 7] for start in range(0, max(1, len(rows[part])), 7)]


def build(media_counts, text_counts, width=8, kind="auto", dtype="float32", seed=0, rows=None):
    counts = {"media": np.array(media_counts, np.int64), "text": np.array(text_counts, np.int64)}
    given_rows = rows or {part: unit(int(counts[part].sum()), width, seed=seed + len(part)) for part in counts}
    return build_vectors(in_blocks(given_rows), counts, kind=kind, dtype=dtype, width=width), given_rows


def expected(queries, rows, counts, k, keep=None):
    """Scores and items of one query at a time, by the definition."""
    starts = np.cumsum(counts) - counts
    results = []
    for query in queries:
        scores = {
            item: np.float32((rows[start : start + count] @ query).max())
            for item, (start, count) in enumerate(zip(starts, counts, strict=True))
            if count and (keep is None or keep[item])
        }
        results.append(sorted(((score, item) for item, score in scores.items()), key=lambda it: (-it[0], it[1]))[:k])
    return results


@settings(max_examples=60)
@given(
    media=st.lists(st.integers(0, 3), max_size=12),
    text=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    kind=st.sampled_from([*KINDS, "auto"]),
    keep=st.lists(st.booleans(), min_size=12, max_size=12),
    k=st.integers(1, 15),
    seed=st.integers(0, 2**31),
)
def test_the_results_are_the_best_items_with_their_scores(media, text, kind, keep, k, seed):
    generator = np.random.default_rng(seed)
    counts = {"media": np.array(media, np.int64), "text": np.array(text[: len(media)], np.int64)}
    rows = {part: generator.choice(GRID, (int(counts[part].sum()), 4)).astype(np.float32) for part in counts}
    vectors = build_vectors(in_blocks(rows), counts, kind=kind, dtype="float32", width=4)
    queries = generator.choice(GRID, (3, 4)).astype(np.float32)
    keep_N = np.array(keep[: len(media)], bool)
    for part in counts:
        for mask in (None, keep_N):
            scores, items = vectors.search(queries, k, part=part, keep_N=mask)
            answers = expected(queries, rows[part], counts[part], k, mask)
            exact = kind in ("flat", "auto") or k >= int(np.count_nonzero(counts[part]))
            for query, pairs in enumerate(answers):
                assert len(items[query]) == len(pairs) == len(set(items[query]))
                if exact:
                    assert sorted(scores[query].tolist()) == sorted(score for score, _ in pairs)
                    again = vectors.scores(queries, items[query], part=part)[query]
                    np.testing.assert_array_equal(again, scores[query])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_saved_vectors_answer_as_before(tmp_path, kind, dtype):
    counts = [2, 0, 3] * 100
    vectors, rows = build(counts, [0, 1, 1] * 100, 16, kind, dtype)
    save_vectors(vectors, tmp_path / "x.faiss")
    by_part = {part: vectors.parts[part].counts_N for part in ("media", "text")}
    again = load_vectors(tmp_path / "x.faiss", kind, vectors.effort, by_part)
    (tmp_path / "x.faiss").unlink()  # an open index is not disturbed
    queries = unit(9, 16)
    for part in ("media", "text"):
        for now, before in zip(
            again.search(queries, 20, part=part), vectors.search(queries, 20, part=part), strict=True
        ):
            np.testing.assert_array_equal(now, before)
    tolerance = {"float32": 0, "float16": 1e-3}[dtype]
    np.testing.assert_allclose(again.rows(slice(2, 4)), rows["media"][2:7], atol=tolerance)
    assert again.rows(slice(1, 2)).shape == (0, 16)
    assert not any(item % 3 == 1 for item in again.search(queries, 300)[1].ravel())


def test_the_effort_reaches_the_promised_recall():
    media = clustered(4000, 32)
    rows = {"media": media, "text": np.empty((0, 32), np.float32)}
    counts = {"media": np.ones(4000, np.int64), "text": np.zeros(4000, np.int64)}
    vectors = build_vectors(in_blocks(rows), counts, kind="ivf", dtype="float32", width=32)
    queries = clustered(200, 32, seed=7)
    assert 1 <= vectors.effort < 4000
    assert recall(vectors.search(queries, 10)[1], by_numpy(queries, media[:, None], 10)[1]) >= TUNING_RECALL - 0.03
    keep_N = np.arange(4000) % 50 == 0  # a filter leaves few rows in each list
    items = vectors.search(queries, 10, keep_N=keep_N)[1]
    assert recall(items, 50 * by_numpy(queries, media[::50, None], 10)[1]) >= TUNING_RECALL - 0.03


def test_vectors_of_other_items_are_refused(tmp_path):
    save_vectors(build([1] * 5, [0] * 5)[0], tmp_path / "x.faiss")
    with pytest.raises(UsageError, match="5 vectors for 6 rows"):
        load_vectors(tmp_path / "x.faiss", "flat", 1, {"media": np.ones(6, int), "text": np.zeros(6, int)})
    (tmp_path / "x.faiss").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="not a FAISS index"):
        load_vectors(tmp_path / "x.faiss", "flat", 1, {"media": np.ones(5, int), "text": np.zeros(5, int)})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is always full")
def test_a_full_disk_is_reported():
    with pytest.raises(EnvironmentTrouble, match="Make room"):
        save_vectors(build([1] * 5, [0] * 5)[0], Path("/dev/full"))
