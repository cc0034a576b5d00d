import contextlib

import pytest
import torch

from model.batch import Features, map_tensors
from model.cached_step import cached_step
from model.settings import ObjectiveConfig
from tests.model.toy import gradients, loss_of, make_batch, make_model, split

UNEVEN = [5, 1, 7, 3]
CONFIG = ObjectiveConfig(caption_vision_weight=0.3, local_weight=0.5, diversity_weight=0.3)


def plain_step(model, batches):
    """One graph over all micro-batches, drawn in the same order, hence with the same dropout."""
    parts = [model(batch) for batch in batches]
    features = Features(*(torch.cat(field) for field in zip(*parts, strict=True)))
    ids, weights = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("item_ids", "weights"))
    losses = loss_of(model, CONFIG)(features, ids, weights)
    losses.total.backward()
    return losses


def both(dropout, sizes, device, dtype=torch.float64, context=contextlib.nullcontext):
    results = []
    for step in (
        plain_step,
        lambda model, batches: cached_step(model, batches, loss_of(model, CONFIG), [model.log_scale]),
    ):
        model = make_model(dropout=dropout, dtype=dtype).to(device)
        torch.manual_seed(5)
        with context():
            whole = map_tensors(make_batch(dtype=dtype), lambda x: x.to(device))
            losses = step(model, split(whole, sizes))
        results.append((losses, gradients(model), torch.rand(3, device=device)))
    return results


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("sizes", [UNEVEN, [8, 8], [1] * 16, [16]])
def test_cached_step_is_the_plain_step(dropout, sizes, device):
    (plain, wanted, drawn), (cached, got, drawn_after) = both(dropout, sizes, device)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(cached.total, plain.total.detach())
    torch.testing.assert_close(cached.raw, plain.raw)
    assert torch.equal(drawn, drawn_after)  # the next step draws what it would have drawn
    assert all(gradient.abs().sum() > 0 for gradient in got.values()) and not cached.total.requires_grad


def test_dropout_does_matter_here():
    (still, *_), _ = both(0.0, UNEVEN, "cpu")
    (noisy, *_), _ = both(0.4, UNEVEN, "cpu")
    assert abs(still.total - noisy.total) > 1e-3


def test_under_autocast(device):
    def autocast():
        return torch.autocast(device, torch.bfloat16)

    (_, wanted, _), (_, got, _) = both(0.4, UNEVEN, device, torch.float32, autocast)
    for name, gradient in got.items():
        assert (gradient - wanted[name]).norm() <= 0.05 * wanted[name].norm() + 1e-6, name


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
        cached_step(model, batches, loss_of(model, CONFIG), [model.log_scale], backward, no_sync, prepare)
        return {name: gradient.clone() for name, gradient in gradients(model).items()}

    once, first = step(), events.copy()
    assert first[:6] == ["(", 5, 1, 7, 3, ")"]
    assert first[6:] == ["(", 5, "backward", ")", "(", 1, "backward", ")", "(", 7, "backward", ")", 3, "backward"]
    torch.testing.assert_close(step(), {name: 2 * gradient for name, gradient in once.items()})


def test_what_the_loss_does_not_use_or_the_model_does_not_train():
    """No slots in the loss, a tower that is frozen, so that its texts have no gradient, and a scale that is."""
    model = make_model()
    model.log_scale.requires_grad_(False)
    model.text_head.requires_grad_(False)
    model.words.requires_grad_(False)
    model.tower.requires_grad_(False)

    def loss_fn(features, ids, weights):
        return loss_of(model, CONFIG)(features._replace(slots_BKE=features.slots_BKE[:, :0]), ids, weights)

    cached_step(model, split(make_batch(), [10, 6]), loss_fn, [model.log_scale])
    got = gradients(model)
    assert got["text_head.weight"] is None and (got["interaction.slots_read.0.out.weight"] == 0).all()
    assert got["heads.0.weight"].abs().sum() > 0


def test_no_micro_batch_is_refused():
    with pytest.raises(ValueError, match="at least one micro-batch"):
        cached_step(make_model(), [], None, [])
