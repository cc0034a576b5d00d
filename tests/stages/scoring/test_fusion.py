"""Late fusion: its formula, absent views, and what is chosen where the best is known."""

import pytest
import torch

from model.fusion import POOLING_TEMPERATURE, Fusion
from stages.scoring.embed import Embedded
from stages.scoring.fusion import choose_fusion
from stages.scoring.ranking import ranked
from stages.scoring.report import rank_languages

VIEWS = ("short", "detail", "noise")
WEIGHTS = {"short": 0.5, "detail": 2.0, "noise": 0.0}


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def embedded(items=12, languages=1, seed=0):
    """Random vectors; items 0 to 3 lack views, one more each."""
    views_NVE = unit(items, 3, 6, seed=seed + 1)
    for place in range(3):
        views_NVE[: 3 - place, place] = 0
    ids = torch.arange(items)
    texts = {f"x{number}": (unit(items, 6, seed=seed + 7 + number), ids) for number in range(languages)}
    return Embedded(ids, unit(items, 6, seed=seed), views_NVE, texts, VIEWS)


def local_by_hand(text_E, media_E, views_VE, pooling):
    there = [
        (WEIGHTS[name], float(text_E @ view_E))
        for name, view_E in zip(VIEWS, views_VE, strict=True)
        if WEIGHTS[name] and view_E.any()
    ]
    if not there:
        return float(text_E @ media_E)
    total, largest = sum(weight for weight, _ in there), max(weight for weight, _ in there)
    if pooling == "mean":
        return sum(weight * value for weight, value in there) / total
    if pooling == "max":
        return max(weight / largest * value for weight, value in there)
    scaled = torch.tensor([value for _, value in there]) / POOLING_TEMPERATURE
    shares = torch.tensor([weight / total for weight, _ in there])
    return float(POOLING_TEMPERATURE * torch.logsumexp(scaled + shares.log(), 0))


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp"])
def test_scores_are_the_formula_over_the_views_that_are_there(pooling):
    split = embedded()
    fusion = Fusion(0.3, pooling, WEIGHTS)
    ranks = ranked(*split.fused(fusion).language("x0"), global_weights=(0.3,), tile=(5, 5))[0]
    text_ME = split.texts["x0"][0]
    scores_MN = torch.tensor(
        [
            [
                0.3 * float(text_E @ media_E) + 0.7 * local_by_hand(text_E, media_E, views_VE, pooling)
                for media_E, views_VE in zip(split.media_NE, split.slots_NKE, strict=True)
            ]
            for text_E in text_ME
        ]
    )
    own_M = scores_MN.diagonal()
    torch.testing.assert_close(ranks.text_scores.float(), own_M)
    assert ranks.text_to_media.tolist() == (scores_MN >= own_M[:, None] - 1e-6).sum(1).tolist()
    assert ranks.media_to_text.tolist() == (scores_MN >= own_M[None] - 1e-6).sum(0).tolist()


def planted(harmful=0.0, items=300):
    """Texts that the first view matches, pictures that hardly match them, and a view that resembles other items."""
    noise = {name: unit(items, 16, seed=place) for place, name in enumerate(("text", "picture", "short", "detail"))}
    truth_NE = unit(items, 16, seed=9)
    views_NVE = torch.stack([truth_NE + 0.5 * noise["short"], truth_NE + 0.6 * noise["detail"], truth_NE.roll(6, 0)], 1)
    views_NVE[:, 2] = (1 - harmful) * views_NVE[:, 1] + harmful * views_NVE[:, 2]
    ids = torch.arange(items)
    normal = torch.nn.functional.normalize
    texts = {"de": (normal(truth_NE + 0.5 * noise["text"], dim=-1), ids)}
    media_NE = normal(truth_NE + 1.2 * noise["picture"], dim=-1)
    return Embedded(ids, media_NE, normal(views_NVE, dim=-1), texts, VIEWS)


def sum_r(split, fusion):
    of = rank_languages(split.fused(fusion), fusion.global_weight)["de"].ranked
    ranks = (of.text_to_media, of.media_to_text)
    return sum(100 * float((side <= k).float().mean()) for side in ranks for k in (1, 5, 10))


def test_a_harmful_view_is_silenced_and_a_global_weight_found():
    split = planted(harmful=1.0)
    fusion = choose_fusion(split)
    assert fusion.view_weights["noise"] == 0 and fusion.view_weights["short"] > 0
    assert 0 < fusion.global_weight < 1
    without = Embedded(split.item_ids, split.media_NE, split.slots_NKE[:, :2], split.texts, VIEWS[:2])
    assert sum_r(split, fusion) >= sum_r(without, choose_fusion(without)) - 1
    assert sum_r(split, fusion) > sum_r(split, Fusion(fusion.global_weight, fusion.pooling)) + 20
    assert choose_fusion(split) == fusion


def test_the_search_works_on_a_sample(monkeypatch):
    monkeypatch.setattr("stages.scoring.fusion.SEARCHED_PAIRS", 10_000)
    assert choose_fusion(planted(harmful=1.0)).view_weights["noise"] == 0


def test_of_equally_good_fusions_the_simplest_is_taken():
    ids = torch.arange(6)
    perfect = Embedded(
        ids, torch.eye(6), torch.eye(6)[:, None].expand(-1, 2, -1), {"de": (torch.eye(6), ids)}, VIEWS[:2]
    )
    assert choose_fusion(perfect) == Fusion(1.0, "mean", {})
    useless = Embedded(ids, torch.ones(6, 6), torch.eye(6)[:, None].expand(-1, 2, -1), perfect.texts, VIEWS[:2])
    assert choose_fusion(useless, (0.0, 0.5)) == Fusion(0.5, "mean", {})


def test_slots_that_are_no_views_are_pooled_by_max_and_languages_count_alike():
    ids = torch.arange(3)
    texts = {"de": (torch.eye(3), ids), "fr": (torch.eye(3)[[1, 0, 2]], ids)}
    split = Embedded(ids, torch.eye(3)[[1, 0, 2]], torch.eye(3)[:, None], texts)
    assert choose_fusion(split, (0.2, 0.8)).pooling == "max"
