"""Ranks by hand, against loops that share nothing with them, and independent of how the product is cut up."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.scoring.ranking import TIE, TILE, ranked

SMALL = (7, 5)  # a tile that divides nothing


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def ranks(text_ME, text_items, media_NE, media_items, slots_NKE=None, weight=1.0, tile=TILE):
    """Ranks of texts and of media for one weight."""
    return ranked(text_ME, text_items, media_NE, media_items, slots_NKE, None, (weight,), tile)[0][:2]


def by_loops(text_ME, text_items, media_NE, media_items, slots_NKE=None, weight=1.0):
    """Ranks in 64 bits, one query after the other, as the definition says."""
    text_ME, media_NE = text_ME.double().numpy(), media_NE.double().numpy()
    lengths = [np.linalg.norm(media_NE, axis=-1).max()]
    local = slots_NKE is not None and slots_NKE.shape[1] and weight != 1
    if local:
        slots_NKE = slots_NKE.double().numpy()
        lengths.append(np.linalg.norm(slots_NKE, axis=-1).max())
    tie = TIE * np.linalg.norm(text_ME, axis=-1).max() * max(lengths)

    def score(text, item):
        whole = float(text_ME[text] @ media_NE[item])
        if not local:
            return whole
        return weight * whole + (1 - weight) * max(float(text_ME[text] @ slot) for slot in slots_NKE[item])

    scores = [[score(text, item) for item in range(len(media_NE))] for text in range(len(text_ME))]
    there, back = [], []
    for text, own in enumerate(text_items.tolist()):
        mine = media_items.tolist().index(own)
        worse_than = [scores[text][item] >= scores[text][mine] - tie for item in range(len(media_NE)) if item != mine]
        there.append(1 + sum(worse_than))
    for item, own in enumerate(media_items.tolist()):
        mine = [text for text, of in enumerate(text_items.tolist()) if of == own]
        best = max(scores[text][item] for text in mine)
        others = [text for text in range(len(text_ME)) if text not in mine]
        back.append(1 + sum(scores[text][item] >= best - tie for text in others))
    return there, back


def as_lists(both):
    return both[0].tolist(), both[1].tolist()


def test_by_hand():
    """Items a, b, c on three axes. Texts: two of a (the first looks like b), one of b, one of c that looks like all.

    scores       a    b    c
    a, first    .6   .8    0   → b is above: rank 2
    a, second    1    0    0   → 1
    b            0    1    0   → 1
    c           .5   .5   .5   → level with both others: 3
    a's best text has 1, and nothing of the others reaches it → 1; b's has 1 → 1; c's has .5, the others 0 → 1
    """
    text_ME = torch.tensor([[0.6, 0.8, 0], [1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5]])
    there, back = ranks(text_ME, torch.tensor([10, 10, 20, 30]), torch.eye(3), torch.tensor([10, 20, 30]))
    assert there.tolist() == [2, 1, 1, 3]
    assert back.tolist() == [1, 1, 1]
    assert there.dtype == back.dtype == torch.int64


@given(st.data())
def test_any_vectors_in_any_tiles_as_by_loops(data):
    """Small whole numbers, so that texts, items and their scores are often the same."""
    items = data.draw(st.integers(1, 12))
    width, slots = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2))
    of = list(range(items)) + data.draw(st.lists(st.integers(0, items - 1), max_size=12))
    of = data.draw(st.permutations(of))
    numbers = st.integers(-2, 2)
    drawn = [
        torch.tensor(data.draw(st.lists(numbers, min_size=size, max_size=size)), dtype=torch.float32)
        for size in (len(of) * width, items * width, items * slots * width)
    ]
    text_ME, media_NE, slots_NKE = drawn[0].view(-1, width), drawn[1].view(-1, width), drawn[2].view(items, -1, width)
    slots_NKE = slots_NKE if slots else torch.zeros(items, 0, width)
    media_items = torch.tensor(data.draw(st.permutations(range(100, 100 + items))))
    text_items = media_items[torch.tensor(of)]
    weight = data.draw(st.sampled_from([1.0, 0.8, 0.5, 0.0]))
    arguments = text_ME, text_items, media_NE, media_items, slots_NKE, weight
    expected = by_loops(*arguments)
    for tile in ((1020, 1024), (1, 1), SMALL, (1000, 3)):
        assert as_lists(ranks(*arguments, tile=tile)) == expected


@pytest.mark.parametrize("long", [1.0, 1e4])
@pytest.mark.parametrize("by_slots", [False, True])
def test_scores_close_to_the_threshold_are_decided_in_64_bits(long, by_slots):
    """300 candidates within a tenth of TIE of the threshold: 32 bits get half of them wrong. Also by slots that are
    much longer than the media: what is level is in proportion to the longest."""
    direction, ids = unit(1, 64), torch.arange(300)
    off = TIE * (1 + 0.2 * (torch.rand(300, 1, generator=torch.Generator().manual_seed(1)) - 0.5))
    off[0] = 0
    near_NE = long * (direction - direction * off)
    text_ME = torch.cat([direction, unit(299, 64, seed=2)])
    if by_slots:
        arguments = text_ME, ids, unit(300, 64, seed=3), ids, near_NE.unsqueeze(1), 0.0
    else:
        arguments = text_ME, ids, near_NE, ids
    expected = by_loops(*arguments)
    assert 50 < expected[0][0] < 250
    for tile in ((400, 400), (1, 200), (30, 77)):
        assert as_lists(ranks(*arguments, tile=tile)) == expected


@pytest.mark.parametrize("spread", [0.0, 1e-7])
@pytest.mark.parametrize("tile", [(1020, 1024), (64, 100)])
def test_a_model_that_says_the_same_of_everything_is_last(spread, tile):
    """Also where its vectors differ in their last digits, as those of batches of another size do."""
    one = torch.full((512,), 512**-0.5)
    text_ME, media_NE = (one + spread * torch.randn(count, 512, generator=torch.Generator().manual_seed(count)) / 23
                         for count in (1200, 400))  # fmt: skip
    there, back = ranks(text_ME, torch.arange(1200) % 400, media_NE, torch.arange(400), tile=tile)
    assert (there == 400).all()
    assert (back == 1200 - 3 + 1).all()  # three texts each, which do not count against one another


IDS = torch.arange(3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((unit(3, 4), torch.tensor([0, 1, 7]), unit(3, 4), IDS), "exactly one row"),
        ((unit(3, 4), IDS, unit(3, 4), torch.tensor([0, 1, 1])), "exactly one row"),
        ((unit(3, 4) / 0, IDS, unit(3, 4), IDS), "not finite"),
        ((unit(3, 4), IDS, unit(3, 4), IDS, unit(3, 2, 4) * torch.inf, 0.5), "not finite"),
    ],
)
def test_what_cannot_be_ranked_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ranks(*arguments)
