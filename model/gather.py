"""Rows of all ranks, one below the other. The only file that calls a collective; identity without a process group.

B samples per rank, the same number on each · W ranks
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Before torch 2.13 these have other names, which warn since.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_rows(rows: Tensor, scheme: str = "autograd") -> Tensor:
    """Gather rows with gradients.

    Args:
        rows: [B,…] of this rank.
        scheme: "autograd": each rank gets the sum of the gradients that all ranks' losses have for its rows
            (reduce-scatter). With a loss over own rows × all columns, the mean that DistributedDataParallel then takes
            is the gradient of the whole batch: exact on any number of ranks. "slice", as in the released code: only
            the gradients of this rank's own loss.

    Returns:
        [W·B,…] of all ranks, in rank order.
    """
    if not is_distributed():
        return rows
    gathered: Tensor = _Gather.apply(rows, scheme)  # type: ignore[no-untyped-call]
    return gathered


def gather_constant(rows: Tensor) -> Tensor:
    """Gather rows without gradients, such as ids and weights: [B,…] of this rank → [W·B,…] of all."""
    return _gathered(rows.detach()) if is_distributed() else rows.detach()


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean over ranks of a tensor that has the same shape on each, without gradients."""
    if not is_distributed():
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def is_distributed() -> bool:
    """Whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, scheme: str) -> Tensor:
        ctx.scheme = scheme
        return _gathered(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        of_all = gradients[0].contiguous()
        size = len(of_all) // dist.get_world_size()
        if ctx.scheme == "slice":
            return of_all[dist.get_rank() * size :][:size], None
        own = of_all.new_empty((size, *of_all.shape[1:]))
        _reduce_scatter(own, of_all)
        return own, None


def _gathered(rows: Tensor) -> Tensor:
    of_all = rows.new_empty((dist.get_world_size() * len(rows), *rows.shape[1:]))
    _all_gather(of_all, rows.contiguous())
    return of_all
