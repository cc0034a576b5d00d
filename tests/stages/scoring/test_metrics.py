"""Metrics by hand and against random orders; intervals that hold the truth as often as they promise."""

import doctest

import numpy as np
import pytest

from stages.scoring import metrics
from stages.scoring.metrics import chance_recalls, count_hits, recalls_both, resample


def test_the_examples_in_the_docstrings():
    tested = doctest.testmod(metrics)
    assert tested.failed == 0 and tested.attempted == 3


def test_chance_is_what_random_orders_have():
    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(30), rng.integers(1, 5, 30))
    sums = []
    for _ in range(400):
        scores = rng.random((len(items), 30))
        own = items[:, None] == np.arange(30)
        there = 1 + (scores > scores[own][:, None]).sum(1)
        best = np.where(own, scores, -1).max(0)
        back = 1 + ((scores > best) & ~own).sum(0)
        sums.append(recalls_both(there, back)["sum_r"])
    assert chance_recalls(items)["sum_r"] == pytest.approx(np.mean(sums), abs=3 * np.std(sums) / 20)
    assert chance_recalls(np.zeros(4))["sum_r"] == 600.0


def ranks(seed, items, per_item=3):
    """Ranks [M] and the item of each, ranks [N] and items, in orders of their own."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[:items] - 500
    of = rng.permutation(np.repeat(ids, per_item))
    return rng.integers(1, 15, len(of)), of, rng.integers(1, 15, items), rng.permutation(ids), rng.permutation(ids)


def test_hits_of_all_items_are_the_recalls():
    there, of, back, media, all_items = ranks(0, 50)
    hits, queries = count_hits(there, of, back, media, all_items)
    result = 100 * hits.sum(0) / queries.sum(0)
    expected = recalls_both(there, back)
    assert result.tolist() == pytest.approx([*expected["text_to_media"].values(), *expected["media_to_text"].values()])
    row = all_items.tolist().index(of[0])
    assert hits[row, 1] == (there[of == of[0]] <= 5).sum() and queries[row].tolist() == [3, 3, 3, 1, 1, 1]
    assert hits[row, 5] == (back[media == of[0]] <= 10).sum()


def test_a_resample_draws_items_with_all_their_texts_in_all_languages():
    there, of, back, media, all_items = ranks(2, 30)
    hits = count_hits(there, of, back, media, all_items)
    recalls = resample({"de": hits, "fr": hits}, 130, seed=3)
    assert recalls["de"].shape == (130, 6)
    assert np.array_equal(recalls["de"], recalls["fr"]) and np.allclose(recalls["de"], recalls["mean"])
    assert np.array_equal(recalls["de"], resample({"de": hits}, 130, seed=3)["de"])
    assert not np.array_equal(recalls["de"], resample({"de": hits}, 130, seed=4)["de"])
    assert len(np.unique(recalls["de"].sum(1))) > 60
    # an item's texts share their fate: recalls of one text an item that says the same are as wide, not narrower
    alike = [count_hits(np.repeat(back, count), np.repeat(media, count), back, media, all_items) for count in (1, 9)]
    few, many = (resample({"de": it}, 400)["de"][:, 1].std() for it in alike)
    assert many == pytest.approx(few)


def test_recalls_by_hand():
    both = recalls_both(np.array([1, 5, 11, 12]), np.array([2, 10]))
    assert both == {
        "text_to_media": {"r1": 25, "r5": 50, "r10": 50},
        "media_to_text": {"r1": 0, "r5": 50, "r10": 100},
        "sum_r": 275,
    }
