import contextlib
from dataclasses import replace

import pytest
import torch

from model.batch import Features, map_tensors
from model.parts import cached_step
from tests.model.towers import PAPER
from tests.model.toy import gradients, loss_of, make_batch, make_model, split

UNEVEN = [5, 1, 7, 3]
CONFIG = replace(PAPER, caption_vision_weight=0.3, local_weight=0.5, diversity_weight=0.3)


def plain_step(model, batches):
    """One graph over all micro-batches, drawn in the same order, hence with the same dropout."""
    parts = [model(batch) for batch in batches]
    features = Features(*(torch.cat(field) for field in zip(*parts, strict=True)))
    ids, weights = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("item_ids", "weights"))
    losses = loss_of(model, CONFIG)(features, ids, weights)
    losses.total.backward()
    return losses


def run_both(dropout, sizes, device, dtype=torch.float64, context=contextlib.nullcontext, slots="queries"):
    """(losses, gradients, random numbers drawn afterwards) of the plain and of the cached step."""

    def cached(model, batches):
        return cached_step(model, batches, loss_of(model, CONFIG), model.temperature_parameters)

    for step in (plain_step, cached):
        model = make_model(dropout=dropout, dtype=dtype, slots=slots).to(device)
        torch.manual_seed(5)
        with context():
            losses = step(model, split(map_tensors(make_batch(), lambda x: x.to(device)), sizes))
        yield losses, gradients(model), torch.rand(3, device=device)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("sizes", [UNEVEN, [8, 8], [1] * 16, [16]])
def test_cached_step_is_the_plain_step(dropout, sizes, device):
    (plain, expected, drawn), (cached, computed, drawn_after) = run_both(dropout, sizes, device)
    torch.testing.assert_close(computed, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(cached.total, plain.total.detach())
    torch.testing.assert_close(cached.raw, plain.raw)
    assert torch.equal(drawn, drawn_after)  # the next step draws what it would have drawn
    assert all(gradient.abs().sum() > 0 for gradient in computed.values()) and not cached.total.requires_grad


def test_cached_step_replays_the_views_that_were_dropped():
    (plain, expected, _), (cached, computed, _) = run_both(0.0, UNEVEN, "cpu", slots="views")
    torch.testing.assert_close(computed, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(cached.raw, plain.raw)


def test_under_autocast(device):
    def autocast():
        return torch.autocast(device, torch.bfloat16)

    (_, expected, _), (_, computed, _) = run_both(0.4, UNEVEN, device, torch.float32, autocast)
    for name, gradient in computed.items():
        assert (gradient - expected[name]).norm() <= 0.05 * expected[name].norm() + 1e-6, name


def test_one_synchronisation_the_last_and_gradients_add_up():
    model, batches = make_model(dropout=0.4), split(make_batch(), UNEVEN)
    events = []

    @contextlib.contextmanager
    def no_sync():
        events.append("(")
        yield
        events.append(")")

    def backward(loss):
        events.append("backward")
        loss.backward()

    def prepare(batch):
        events.append(len(batch.item_ids))
        return batch

    def step():
        torch.manual_seed(5)
        cached_step(model, batches, loss_of(model, CONFIG), model.temperature_parameters, backward, no_sync, prepare)
        return {name: gradient.clone() for name, gradient in gradients(model).items()}

    once, first = step(), events.copy()
    assert first[:6] == ["(", 5, 1, 7, 3, ")"]
    assert first[6:] == ["(", 5, "backward", ")", "(", 1, "backward", ")", "(", 7, "backward", ")", 3, "backward"]
    torch.testing.assert_close(step(), {name: 2 * gradient for name, gradient in once.items()})
