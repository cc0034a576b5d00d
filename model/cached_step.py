"""A step on a batch that does not fit: features first, their gradients from the loss, then each part once more.

Pass 1 encodes the micro-batches without graph; the loss over all of them gives the gradient of every feature; pass 2
encodes them again, each as it was (its random state is replayed), and carries those gradients into the encoders. The
gradients are those of the plain step, the memory that of one micro-batch, the time about 4/3.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from model.batch import Batch, Features
from model.objective import Losses, carrying

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
    """Losses of the whole batch, without graph; its gradients are added to the parameters' `grad`.

    `batches`: micro-batches of any sizes; `prepare` takes one to the device, so that the others' pixels stay where they
    are. `loss_fn(features, item_ids, weights)`. `loss_parameters`: those that the loss uses and the model does not (the
    scale); they take part in the last backward. All but the last forward and backward run inside `no_sync()`, so
    DistributedDataParallel reduces once. One micro-batch is a plain step, encoded once.
    """
    if not batches:
        raise ValueError("cached_step: got no micro-batch, wanted one or more")
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
    # some versions of torch would use again what autocast cast here, without gradient
    torch.clear_autocast_cache()

    features = Features(*(torch.cat(field).requires_grad_() for field in zip(*parts, strict=True)))
    loss_parameters = [parameter for parameter in loss_parameters if parameter.requires_grad]
    losses = loss_fn(features, torch.cat(ids), torch.cat(weights))
    wanted = torch.autograd.grad(losses.total, [*features, *loss_parameters], allow_unused=True, materialize_grads=True)
    gradients = zip(*(field.split([len(x) for x in ids]) for field in wanted[: len(features)]), strict=True)

    for number, (batch, state, gradient) in enumerate(zip(batches, states, gradients, strict=True), start=1):
        last = number == len(batches)
        with contextlib.nullcontext() if last else no_sync():
            batch = prepare(batch)
            _replay(state)
            surrogate = carrying(zip(model(batch), gradient, strict=True))
            if last:
                surrogate = surrogate + carrying(zip(loss_parameters, wanted[len(features) :], strict=True))
            backward(surrogate)
    return losses._replace(total=losses.total.detach())


def _random_state(batch: Batch) -> RandomState:
    device = batch.media.frames.device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _replay(state: RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
