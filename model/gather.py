"""Rows of all the ranks, one below the other. The only file that calls a collective; without a process group, identity.

B samples a rank, the same number on each · W ranks
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

SCHEMES = ("autograd", "slice")

# before torch 2.13 they have other names, which warn since
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_rows(rows: Tensor, scheme: str = "autograd") -> Tensor:
    """[B,…] of this rank → [W·B,…] of all of them, in the order of their ranks, with gradients.

    "autograd": each rank gets the sum of what all ranks' losses want of its rows (reduce-scatter). With a loss over own
    rows × all columns, the mean that DistributedDataParallel then takes is the gradient of the whole batch: exact on
    any number of ranks. "slice", as released: only what the own loss wants. Raises ValueError for another scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"gather scheme: got {scheme!r}, wanted {' or '.join(SCHEMES)}")
    return _Gather.apply(rows, scheme) if is_distributed() else rows


def gather_constant(rows: Tensor) -> Tensor:
    """[B,…] of this rank → [W·B,…] of all: ids, weights and other things without gradient."""
    return _gathered(rows.detach()) if is_distributed() else rows.detach()


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor of the same shape on every rank, without gradient."""
    if not is_distributed():
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, scheme: str) -> Tensor:
        ctx.scheme = scheme
        return _gathered(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        wanted = gradients[0].contiguous()
        size = len(wanted) // dist.get_world_size()
        if ctx.scheme == "slice":
            return wanted[dist.get_rank() * size :][:size], None
        own = wanted.new_empty((size, *wanted.shape[1:]))
        _reduce_scatter(own, wanted)
        return own, None


def _gathered(rows: Tensor) -> Tensor:
    everyone = rows.new_empty((dist.get_world_size() * len(rows), *rows.shape[1:]))
    _all_gather(everyone, rows.contiguous())
    return everyone
