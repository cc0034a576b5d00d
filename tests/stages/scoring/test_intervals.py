"""Bootstrap intervals: recalls as counted elsewhere, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest

from stages.scoring.intervals import count_hits, intervals, resample
from stages.scoring.metrics import recalls_both


def ranks(seed, items, per_item=3):
    """Ranks [M] and the item of each, ranks [N] and items, in orders of their own."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[:items] - 500
    of = rng.permutation(np.repeat(ids, per_item))
    return rng.integers(1, 15, len(of)), of, rng.integers(1, 15, items), rng.permutation(ids), rng.permutation(ids)


def test_hits_of_all_items_are_the_recalls():
    there, of, back, media, all_items = ranks(0, 50)
    hits, queries = count_hits(there, of, back, media, all_items)
    found = 100 * hits.sum(0) / queries.sum(0)
    wanted = recalls_both(there, back)
    assert found.tolist() == pytest.approx([*wanted["text_to_media"].values(), *wanted["media_to_text"].values()])
    row = all_items.tolist().index(of[0])
    assert hits[row, 1] == (there[of == of[0]] <= 5).sum() and queries[row].tolist() == [3, 3, 3, 1, 1, 1]
    assert hits[row, 5] == (back[media == of[0]] <= 10).sum()


def test_items_that_a_language_has_not_are_no_misses():
    there, of, back, media, all_items = ranks(1, 20)
    wider = np.append(all_items, [2000, 2001])
    hits, queries = count_hits(there, of, back, media, wider)
    assert hits[-2:].sum() == queries[-2:].sum() == 0
    one = count_hits(np.array([1]), wider[-1:], np.array([1]), wider[-1:], wider)
    recalls = resample({"de": one}, 60)["de"]
    drawn = ~np.isnan(recalls[:, 0])
    assert 0 < drawn.sum() < 60 and (recalls[drawn] == 100).all()
    assert intervals(recalls)["sum_r"] == [600, 600]


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


def test_ends_in_the_shape_of_the_recalls():
    recalls = np.linspace(0, 100, 1001)[:, None] * np.array([0.1, 0.2, 0.3, 0.4, 0.5, 1])
    ends = intervals(recalls)
    assert ends["text_to_media"]["r1"] == pytest.approx([0.25, 9.75])
    assert ends["media_to_text"]["r10"] == pytest.approx([2.5, 97.5])
    assert ends["sum_r"] == pytest.approx([6.25, 243.75])


def test_the_truth_is_inside_as_often_as_promised():
    """Items drawn from a population where each is found with its own probability; 95 % of 150 intervals, give or take
    three standard deviations (1.8 %)."""
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(150):
        chances = rng.beta(2, 2, 120)  # mean 1/2
        found = rng.random((120, 3)) < chances[:, None]
        there, of = np.where(found, 1, 99).ravel(), np.repeat(np.arange(120), 3)
        hits = count_hits(there, of, np.ones(120), np.arange(120), np.arange(120))
        low, high = intervals(resample({"de": hits}, 300, seed=trial)["de"])["text_to_media"]["r1"]
        inside += low <= 50 <= high
    assert 0.95 - 0.055 <= inside / 150 <= 1 - 1 / 300
