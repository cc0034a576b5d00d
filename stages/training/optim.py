"""What moves the weights: parameter groups, a learning rate that is a pure function of the step, averaged weights."""

import contextlib
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from stages.training.settings import Settings


def parameter_groups(model: nn.Module, new: Iterable[str], settings: Settings) -> list[dict]:
    """AdamW's groups of the trainable parameters, each in exactly one: new or pretrained, decayed or not.

    `new`: names of parameters that started at random, which learn `new_layer_lr_multiplier` times as fast. Vectors and
    scalars (biases, norms, the scale) are not decayed. A group's `multiplier` is what `set_learning_rate` reads.
    """
    fresh = set(new)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name in fresh, parameter.ndim >= 2), []).append(parameter)
    return [
        {
            "params": groups[key],
            "multiplier": settings.new_layer_lr_multiplier if key[0] else 1.0,
            "weight_decay": settings.weight_decay if key[1] else 0.0,
        }
        for key in sorted(groups)
    ]


def make_optimizer(model: nn.Module, new: Iterable[str], settings: Settings) -> torch.optim.AdamW:
    groups = parameter_groups(model, new, settings)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2))


def schedule(step: int, total: int, warmup: float, kind: str) -> float:
    """Share of the peak learning rate in step `step` of `total`, counted from 1: up in a line, down to almost 0.

    `warmup` is the share of the steps that rise.

    >>> [round(schedule(step, 10, 0.2, "linear"), 3) for step in range(1, 11)]
    [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    """
    rising = round(total * warmup)
    if step <= rising:
        return step / rising
    rest = (total - step + 1) / (total - rising)
    return rest if kind == "linear" else (1 - math.cos(math.pi * rest)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["multiplier"]


class Ema:
    """Running average of the trainable weights. Early on it forgets faster, lest the random start stays in it."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter, 1 - decay)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with averaged weights, for as long as it is scored or saved."""
        trained = {name: parameter.detach().clone() for name, parameter in _named(model, self.weights)}
        _copy(model, self.weights)
        try:
            yield
        finally:
            _copy(model, trained)


def _named(model: nn.Module, names: Iterable[str]) -> Iterator[tuple[str, nn.Parameter]]:
    parameters = dict(model.named_parameters())
    return ((name, parameters[name]) for name in names)


@torch.no_grad()
def _copy(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in _named(model, weights):
        parameter.copy_(weights[name])
