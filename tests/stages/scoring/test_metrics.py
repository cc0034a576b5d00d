"""Figures by hand, and against random orders."""

import doctest
import itertools

import numpy as np
import pytest

from stages.scoring import metrics
from stages.scoring.metrics import chance_recalls, item_ranks, mean_rank_variance, median_rank, recalls_both


def test_the_examples_in_the_docstrings():
    tested = doctest.testmod(metrics)
    assert tested.failed == 0 and tested.attempted == 4


def test_mean_rank_variance_by_the_formula():
    ranks = np.random.default_rng(0).integers(1, 50, (7, 3))
    total = 0.0
    for row in ranks.tolist():
        mean = sum(row) / 3
        total += sum(abs(rank - mean) ** 2 for rank in row)
    assert mean_rank_variance(ranks) == pytest.approx(total / (7 * 3))
    assert mean_rank_variance(np.array([[9, 9, 9], [1, 1, 1]])) == 0.0


def test_an_items_rank_in_a_language_is_the_mean_of_its_texts():
    """Item 5: 2 in de; (1 + 4) / 2 in fr. Item −3: (3 + 6 + 6) / 3 in de; 8 in fr. Item 9 is not asked for."""
    found = item_ranks(
        {
            "de": (np.array([3, 2, 6, 6, 1]), np.array([-3, 5, -3, -3, 9])),
            "fr": (np.array([1, 8, 4]), np.array([5, -3, 5])),
        },
        np.array([5, -3]),
    )
    assert found.tolist() == [[2, 2.5], [5, 8]]


def test_the_median():
    assert median_rank(np.array([7])) == 7 and median_rank(np.array([5, 1, 2])) == 2


def test_chance_by_every_order_there_is():
    """Two items of one text, one of two: all 24 orders of the four texts, all 6 of the three items."""
    items = np.array([1, 2, 3, 3])
    found = chance_recalls(items)
    texts = list(itertools.permutations(range(4)))
    firsts = [np.mean([items[order[0]] == item for order in texts]) for item in (1, 2, 3)]
    assert found["media_to_text"]["r1"] == pytest.approx(100 * np.mean(firsts))
    assert found["text_to_media"]["r1"] == pytest.approx(100 / 3)
    assert found["media_to_text"]["r5"] == found["text_to_media"]["r5"] == 100


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
