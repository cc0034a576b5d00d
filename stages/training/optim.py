"""What updates the weights: parameter groups, a learning rate that is a function of the step, averaged weights."""

import collections
import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from stages.training.settings import Settings


def make_optimizer(model: nn.Module, new: Iterable[str], settings: Settings) -> torch.optim.AdamW:
    """AdamW with groups of the trainable parameters: new or pretrained, with weight decay or without.

    Vectors and scalars (biases, norms, the scale) have no weight decay.

    Args:
        model: The model.
        new: Names of parameters that start at random; they learn `new_layer_lr_multiplier` times as fast.
        settings: Of the optimiser.

    Returns:
        The optimiser; its groups have a `multiplier` that `set_learning_rate` reads.
    """
    new_names = set(new)
    parameters: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    below = layers_below([name for name, _ in model.named_parameters()])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            share = settings.layer_decay ** below[name]
            parameters.setdefault((name in new_names, parameter.ndim >= 2, share), []).append(parameter)
    groups = [
        {
            "params": parameters[is_new, is_matrix, share],
            "multiplier": share * (settings.new_layer_lr_multiplier if is_new else 1.0),
            "weight_decay": settings.weight_decay if is_matrix else 0.0,
        }
        for is_new, is_matrix, share in sorted(parameters)
    ]
    # On a GPU one kernel for all weights; elsewhere torch chooses.
    fused = True if all(weights.is_cuda for weights in model.parameters()) else None
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=fused)


def layers_below(names: Sequence[str]) -> dict[str, int]:
    """How many layers each parameter of an encoder is below the last of its tower; 0 for parameters of no layer.

    >>> names = ["text_encoder.embed", "text_encoder.layers.0.w", "text_encoder.layers.1.w", "head.0.w"]
    >>> list(layers_below(names).values())
    [2, 1, 0, 0]
    """
    places, lasts = dict[str, int](), collections.defaultdict[str, int](int)
    for name in names:
        encoder, number = name.partition(".")[0], re.search(r"\.(\d+)\.", name)
        if encoder.endswith("_encoder") and (number or "embed" in name):
            places[name] = int(number[1]) if number else -1
            lasts[encoder] = max(lasts[encoder], places[name])
    return {name: lasts[name.partition(".")[0]] - places[name] if name in places else 0 for name in names}


def schedule(step: int, total: int, warmup: float, kind: str) -> float:
    """Share of the peak learning rate in step `step` of `total`, counted from 1.

    It rises linearly over the share `warmup` of the steps, then falls to almost 0, linearly or as a cosine.

    >>> [round(schedule(step, 10, 0.2, "linear"), 3) for step in range(1, 11)]
    [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    """
    rising = round(total * warmup)
    if step <= rising:
        return step / rising
    rest = (total - step + 1) / (total - rising)
    return rest if kind == "linear" else (1 - math.cos(math.pi * rest)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to `lr` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["multiplier"]


class Ema:
    """Running average of the trainable weights; it forgets faster at first, so that the random start does not stay."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after step `step` into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.weights.values()), [parameters[name] for name in self.weights], 1 - decay)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights while it is scored or saved."""
        parameters = dict(model.named_parameters())
        trained = {name: parameters[name].detach().clone() for name in self.weights}
        _copy(self.weights, parameters)
        try:
            yield
        finally:
            _copy(trained, parameters)


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    torch._foreach_copy_([parameters[name] for name in weights], list(weights.values()))
