"""Parameter groups, the schedule, averaged weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stages.training.optim import Ema, make_optimizer, schedule, set_learning_rate
from stages.training.settings import Settings


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = nn.Linear(3, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))
        self.scale = nn.Parameter(torch.tensor(1.0))


NEW = ["head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias", "scale"]


def test_every_trainable_parameter_is_in_exactly_one_group():
    model = Small()
    settings = Settings(lr=1e-3, new_layer_lr_multiplier=5.0, weight_decay=0.2)
    optimizer = make_optimizer(model, NEW, settings)
    groups = optimizer.param_groups
    placed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    of = {id(p): group for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = of[id(parameter)]
            assert group["multiplier"] == (5.0 if name in NEW else 1.0), name
            assert group["weight_decay"] == (0.2 if name in ("tower.weight", "head.0.weight") else 0.0), name
    set_learning_rate(optimizer, 1e-2)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-2, 5e-2}


@given(total=st.integers(1, 200), warmup=st.floats(0, 1), kind=st.sampled_from(["linear", "cosine"]))
def test_the_schedule_rises_then_falls_and_is_never_zero(total, warmup, kind):
    factors = [schedule(step, total, warmup, kind) for step in range(1, total + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert peak <= math.ceil(total * warmup)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_averaged_weights_by_hand():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    ema = Ema(model, 0.5)
    nn.init.constant_(model.weight, 1.0)
    ema.update(model, 1)  # decay min(.5, 2/11)
    assert ema.weights["weight"].item() == pytest.approx(9 / 11)
    ema.update(model, 1000)  # decay .5
    assert ema.weights["weight"].item() == pytest.approx((9 / 11 + 1) / 2)
    with pytest.raises(ValueError), ema.applied(model):
        assert model.weight.item() == ema.weights["weight"].item()
        raise ValueError
    assert model.weight.item() == 1.0
