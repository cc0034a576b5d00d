"""N ranks give what one process with the whole batch gives: the loss, and every gradient, in fp64 and through
DistributedDataParallel."""

from dataclasses import replace

import pytest
import torch

from tests.distributed import steps
from tests.distributed.processes import alone, run
from tests.model.towers import FAITHFUL
from tests.model.toy import loss_of, make_batch, make_model

EXACT = 1e-9


@pytest.fixture(scope="module", params=[1, 2, 4])
def ranks(request):
    """The results of every step on each of 1, 2 and 4 ranks."""
    return alone(steps.everything) if request.param == 1 else run(request.param, steps.everything)


def whole(config=steps.CONFIG, batch=None):
    """What one process computes on the whole batch."""
    network, batch = make_model(), batch or make_batch(steps.COUNT)
    losses = loss_of(network, config)(network(batch), batch.item_ids, batch.weights)
    losses.total.backward()
    return steps.result(losses, network)


def distance(ranks, name, expected):
    """The largest relative difference of a gradient, on any rank."""
    return max(
        ((rank[name]["gradients"][key] - gradient).norm() / gradient.norm().clamp(min=1e-9)).item()
        for rank in ranks
        for key, gradient in expected["gradients"].items()
    )


def mean_total(ranks, name):
    return torch.stack([rank[name]["total"] for rank in ranks]).mean()


@pytest.mark.parametrize(
    ("name", "config", "weights"),
    [
        ("corrected", steps.CONFIG, None),
        ("whole teacher", steps.WHOLE_TEACHER, None),
        ("no target", steps.CONFIG, slice(None)),
        ("unequal", steps.CONFIG, slice(steps.COUNT // 2)),
    ],
)
def test_loss_terms_and_gradients_are_those_of_the_whole_batch(ranks, name, config, weights):
    batch = make_batch(steps.COUNT)
    if weights:
        batch.weights[weights] = 0
    expected = whole(config, batch)
    torch.testing.assert_close(mean_total(ranks, name), expected["total"], rtol=1e-12, atol=0)
    for term, value in expected["raw"].items():
        torch.testing.assert_close(torch.stack([rank[name]["raw"][term] for rank in ranks]).mean(), value)
    assert distance(ranks, name, expected) < EXACT


def test_mean_over_ranks(ranks):
    mean = (len(ranks) - 1) / 2
    assert [rank["mean"].tolist() for rank in ranks] == [[mean, 2 * mean]] * len(ranks)


def test_a_head_after_the_gather_is_exact_too(ranks):
    expected = steps.head_after_gather(0, 0)
    torch.testing.assert_close(mean_total(ranks, "head"), expected["total"])
    assert distance(ranks, "head", expected) < EXACT


def test_the_batch_is_one_that_could_go_wrong():
    batch = make_batch(steps.COUNT)
    assert len(batch.item_ids.unique()) < steps.COUNT and batch.item_ids[0] == batch.item_ids[-1]
    assert (batch.weights == 0).any() and len(batch.weights.unique()) > 5
    longest = [steps.own_part(batch, rank, 4).target.tokens.shape[1] for rank in range(4)]
    assert len(set(longest)) > 1
    assert all(gradient.abs().sum() > 0 for gradient in whole()["gradients"].values())


def test_the_share_of_each_term_in_the_gradient_is_that_of_the_whole_batch(ranks):
    own = [rank["term gradients"] for rank in ranks]
    norms = {name: torch.stack([of[name] for of in own]).mean().sqrt() for name in own[0]}
    expected = {name: square.sqrt() for name, square in steps.term_gradients(0, 1).items()}
    for name, norm in norms.items():
        torch.testing.assert_close(norm / sum(norms.values()), expected[name] / sum(expected.values()))
    assert expected["diversity"] > 0


def test_released_gather_gives_encoders_a_share_that_depends_on_the_number_of_ranks(ranks):
    expected = whole(replace(steps.GATHERED_ONLY, gather="autograd"))["gradients"]
    gradients = ranks[0]["slice"]["gradients"]
    for name in ("text_encoder.words.weight", "media_encoder.tower.patches.weight", "text_head.weight"):
        torch.testing.assert_close(gradients[name], expected[name] / len(ranks))
    torch.testing.assert_close(gradients["log_scale"], expected["log_scale"])


def test_faithful_depends_on_the_number_of_ranks(ranks):
    """Its gradients, and local matching, which sees one rank; the other terms see all."""
    expected = whole(FAITHFUL)
    assert (distance(ranks, "faithful", expected) < EXACT) == (len(ranks) == 1)
    for rank in ranks:
        for term in expected["raw"].keys() - {"diversity", "local_source", "local_target"}:
            torch.testing.assert_close(rank["faithful"]["raw"][term], expected["raw"][term])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_cached_step_is_the_plain_step_and_reduces_once(ranks, dropout):
    plain = [rank[f"one graph {dropout}"] for rank in ranks]
    own = [rank[f"cached {dropout}"] for rank in ranks]
    for mine, theirs in zip(own, plain, strict=True):
        torch.testing.assert_close(mine["total"], theirs["total"])
        torch.testing.assert_close(mine["gradients"], theirs["gradients"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mine["gradients"], own[0]["gradients"], rtol=0, atol=0)  # the same on every rank
        assert mine["reductions"].tolist() == [0]  # one bucket, once
    if not dropout:
        assert distance(ranks, "cached 0.0", whole()) < EXACT
