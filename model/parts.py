"""A batch in parts, on several ranks or in micro-batches, with the gradients of the whole batch.

`gather_rows` puts the rows of all ranks one below the other. `cached_step` trains on a batch that does not fit into
memory. Within `model`, only this file calls a collective.

B samples per rank, the same number on each · W ranks
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.batch import Batch, Features
from model.losses import Losses

# torch 2.13 renamed these; the old names still work but warn.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_rows(rows: Tensor, scheme: str = "autograd") -> Tensor:
    """Gather rows with gradients; identity without a process group.

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
    return _Gather.apply(rows, scheme)  # type: ignore[no-untyped-call]


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


def gradient_carrier(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """A scalar whose gradient with respect to the first tensor of each pair is the second; 0 if none needs one."""
    products = [(value * gradient).sum() for value, gradient in pairs if value.requires_grad]
    return torch.stack(products).sum() if products else torch.zeros(())


def cached_step(
    model: Callable[[Batch], Features],
    batches: Sequence[Batch],
    loss_fn: Callable[[Features, Tensor, Tensor], Losses],
    loss_parameters: Iterable[Tensor],
    backward: Callable[[Tensor], Any] = Tensor.backward,
    no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
) -> Losses:
    """Compute the losses of the whole batch and add its gradients to the parameters' `grad` (Gao et al. 2021).

    Pass 1 encodes the micro-batches without a graph. The loss over all of them gives the gradient of every feature.
    Pass 2 encodes each micro-batch again with its random state replayed, and propagates those gradients into the
    encoders. The gradients equal those of a plain step, memory is that of one micro-batch, time is about 4/3. A single
    micro-batch is a plain step that encodes once.

    All passes but the last forward and backward run inside `no_sync()`, so that DistributedDataParallel reduces once.

    Args:
        model: Encodes a batch.
        batches: Micro-batches, at least one, of any sizes.
        loss_fn: Losses of (features, item ids, weights).
        loss_parameters: Parameters that only the loss uses (the scale). They take part in the last backward pass.
        backward: Backward pass of a loss.
        no_sync: Context that suspends gradient reduction.
        prepare: Moves a micro-batch to the device; the pixels of the others stay where they are.

    Returns:
        Losses without a graph.
    """
    if len(batches) == 1:
        batch = prepare(batches[0])
        losses = loss_fn(model(batch), batch.item_ids, batch.weights)
        backward(losses.total)
        return losses._replace(total=losses.total.detach())

    parts, ids, weights, states = [], [], [], []
    with torch.no_grad(), no_sync():
        for batch in map(prepare, batches):
            device = batch.media.frames.device
            states.append((torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None))
            parts.append(model(batch))
            ids.append(batch.item_ids)
            weights.append(batch.weights)
    # Some versions of torch would otherwise reuse weights that autocast cast here without a gradient.
    torch.clear_autocast_cache()

    features = Features(*(torch.cat(field).requires_grad_() for field in zip(*parts, strict=True)))
    scales = [parameter for parameter in loss_parameters if parameter.requires_grad]
    losses = loss_fn(features, torch.cat(ids), torch.cat(weights))
    gradients = torch.autograd.grad(losses.total, [*features, *scales], allow_unused=True, materialize_grads=True)
    sizes = [len(part) for part in ids]
    per_batch = zip(*(field.split(sizes) for field in gradients[: len(features)]), strict=True)

    for number, (batch, state, gradient) in enumerate(zip(batches, states, per_batch, strict=True), start=1):
        last = number == len(batches)
        with contextlib.nullcontext() if last else no_sync():
            batch = prepare(batch)
            torch.set_rng_state(state[0])
            if state[1] is not None:
                torch.cuda.set_rng_state(state[1])
            surrogate = gradient_carrier(zip(model(batch), gradient, strict=True))
            if last:
                surrogate = surrogate + gradient_carrier(zip(scales, gradients[len(features) :], strict=True))
            backward(surrogate)
    return losses._replace(total=losses.total.detach())
