"""A training step on a batch that does not fit into memory, by cached gradients (Gao et al. 2021).

Pass 1 encodes the micro-batches without a graph. The loss over all of them gives the gradient of every feature. Pass 2
encodes each micro-batch again with its random state replayed, and propagates those gradients into the encoders. The
gradients equal those of a plain step, memory is that of one micro-batch, time is about 4/3.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from model.batch import Batch, Features
from model.objective import Losses, gradient_carrier

RandomState = tuple[Tensor, Tensor | None]


def cached_step(
    model: Callable[[Batch], Features],
    batches: Sequence[Batch],
    loss_fn: Callable[[Features, Tensor, Tensor], Losses],
    loss_parameters: Iterable[Tensor],
    backward: Callable[[Tensor], Any] = Tensor.backward,
    no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    prepare: Callable[[Batch], Batch] = lambda batch: batch,
) -> Losses:
    """Compute the losses of the whole batch and add its gradients to the parameters' `grad`.

    All passes but the last forward and backward run inside `no_sync()`, so that DistributedDataParallel reduces once.
    With a single micro-batch this is a plain step that encodes once.

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
            states.append(_random_state(batch))
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
            _restore_random_state(state)
            surrogate = gradient_carrier(zip(model(batch), gradient, strict=True))
            if last:
                surrogate = surrogate + gradient_carrier(zip(scales, gradients[len(features) :], strict=True))
            backward(surrogate)
    return losses._replace(total=losses.total.detach())


def _random_state(batch: Batch) -> RandomState:
    device = batch.media.frames.device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore_random_state(state: RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
