from dataclasses import replace

import pytest
import torch

import model.objective
from model.batch import Features
from model.losses import mean_slot_cosine, slot_cosines
from model.objective import objective
from model.settings import ObjectiveConfig
from tests.model.samples import make_features
from tests.model.towers import FAITHFUL, PAPER

IDS = torch.tensor([7, 8, 7, 9, 10, 9])
WEIGHTS = torch.tensor([1.0, 0.3, 0.5, 0.0, 0.8, 0.4], dtype=torch.float64)
SCALE = torch.tensor([9.0, 9.0], dtype=torch.float64)  # 1/τ of global and local similarities
ALL_ON = replace(
    PAPER,
    caption_vision_weight=0.3,
    distillation_weight=0.4,
    local_weight=0.2,
    diversity_weight=0.7,
    teacher_weight=0.6,
    teacher_temperature=0.2,
    student_temperature=0.3,
    caption_vision_temperature=0.5,
)


def test_without_slots_only_the_global_terms_remain():
    """The teacher is then the global similarity, whatever its weight."""
    raw = objective(make_features(6, slots=0), SCALE, IDS, WEIGHTS, ALL_ON).raw
    with_slots = make_features(6, slots=0)._replace(slots_BKE=make_features(6).slots_BKE)
    expected = objective(with_slots, SCALE, IDS, WEIGHTS, replace(ALL_ON, teacher_weight=1.0)).raw
    assert raw.keys() == {"media_source", "media_target", "source_target", "distillation"}
    torch.testing.assert_close(raw, {name: expected[name] for name in raw})


def test_without_a_single_target_text_it_is_finite_and_asks_nothing_of_them():
    features = make_features(6, dtype=torch.float32)
    scale = SCALE.float().requires_grad_()
    losses = objective(features, scale, IDS, torch.zeros(6), ALL_ON)
    losses.total.backward()
    assert losses.total.isfinite() and (features.target_BE.grad == 0).all()
    assert {name for name, x in losses.raw.items() if x == 0} == {
        "media_target",
        "source_target",
        "local_target",
        "distillation",
    }
    assert all(x.grad is not None and x.grad.isfinite().all() for x in features if x.numel())


def test_a_term_of_weight_zero_leaves_no_hole_in_the_graph():
    features = make_features(6)
    scale = SCALE.clone().requires_grad_()
    config = ObjectiveConfig(
        caption_vision_weight=0, distillation_weight=1, local_weight=0, diversity_weight=0, teacher_weight=1
    )
    objective(features, scale, IDS, WEIGHTS, config).total.backward()
    assert all(x.grad is not None for x in (*features, scale) if x.numel())


@pytest.mark.parametrize("config", [ALL_ON, FAITHFUL])
def test_blocks_of_rows_change_nothing(monkeypatch, device, config):
    def run():
        features = Features(*(x.detach().to(device).requires_grad_() for x in make_features(6, own=True)))
        scale = SCALE.to(device).requires_grad_()
        losses = objective(features, scale, IDS.to(device), WEIGHTS.to(device), config)
        return losses.total.detach(), losses.raw, torch.autograd.grad(losses.total, [*features, scale])

    whole, calls = run(), []
    original = model.objective._global_terms
    monkeypatch.setattr(
        model.objective, "_global_terms", lambda rows, *more: calls.append(len(rows.ids_B)) or original(rows, *more)
    )
    for name in ("BLOCK", "BLOCK_GPU"):
        monkeypatch.setattr(model.objective, name, 6 * 4)
    torch.testing.assert_close(run(), whole)
    assert calls == [4, 2]  # not once more in the backward


def test_large_logits_are_computed_in_fp32_under_autocast():
    features = make_features(6, dtype=torch.float32)
    expected = objective(features, torch.tensor([100.0, 100.0]), IDS, WEIGHTS.float(), ALL_ON).total
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            objective(features, torch.tensor([100.0, 100.0]), IDS, WEIGHTS.float(), ALL_ON).total, expected
        )
    low = Features(*(x.bfloat16() for x in features))
    assert objective(low, torch.tensor([100.0, 100.0]), IDS, WEIGHTS, ALL_ON).total.dtype == torch.float32


EVERY = replace(ALL_ON, own_weight=0.5, source_target_weight=0.0)


@pytest.mark.parametrize("block", [6 * 4, 6 * 6])
@pytest.mark.parametrize("config", [EVERY, replace(FAITHFUL, diversity_weight=0.4)])
def test_gradients_of_single_terms(monkeypatch, block, config):
    """Each term's, by a loss that has no other; a tensor that stands for two features counts once for each."""
    monkeypatch.setattr(model.objective, "BLOCK", block)
    features = make_features(6, own=True)
    features = features._replace(token_mean_BD=features.own_BE)
    losses = objective(features, SCALE, IDS, WEIGHTS, config, with_gradients=True)
    weights = {name: model.objective._weight(name, config) for name in losses.raw}
    assert losses.gradients["diversity"] > 0 and losses.gradients.keys() == losses.weighted.keys()
    for name in losses.raw:
        copies = Features(*(x.detach().clone().requires_grad_() for x in features))
        monkeypatch.setattr(model.objective, "_weight", lambda term, _, name=name: weights[term] * (term == name))
        objective(copies, SCALE, IDS, WEIGHTS, config).total.backward()
        expected = sum((x.grad.square().sum() for x in copies if x.grad is not None), torch.zeros(()))
        torch.testing.assert_close(losses.gradients[name], expected.double(), msg=name)
    losses.total.backward()
    assert features.media_BE.grad.isfinite().all()


def test_slots_cosine_leaves_out_a_slot_with_itself_and_absent_slots():
    slots = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert mean_slot_cosine(slot_cosines(slots)).item() == pytest.approx(0.6)
    features = make_features(6)
    assert objective(features, SCALE, IDS, WEIGHTS, ALL_ON).slot_cosine is None
    assert objective(features, SCALE, IDS, WEIGHTS, ALL_ON, with_gradients=True).slot_cosine is not None
