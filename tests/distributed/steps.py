"""What the ranks do in test_exact.py: one step of each kind on their share of one batch of 16."""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model.batch import Features
from model.losses import contrastive
from model.objective import objective
from model.parts import cached_step, gather_constant, gather_rows, mean_over_ranks
from model.settings import ObjectiveConfig
from tests.model.towers import FAITHFUL
from tests.model.toy import gradients, loss_of, make_batch, make_model, split

COUNT = 16
CONFIG = ObjectiveConfig(
    caption_vision_weight=0.3, distillation_weight=0.4, local_weight=0.5, diversity_weight=0.3, teacher_weight=0.6
)
WHOLE_TEACHER = replace(CONFIG, teacher="min_max", teacher_orientation="mixed")
GATHERED_ONLY = ObjectiveConfig(
    caption_vision_weight=0, distillation_weight=0, local_weight=0, diversity_weight=0, gather="slice"
)
UNEVEN = {1: [5, 1, 7, 3], 2: [5, 1, 2], 4: [3, 1]}


def own_part(batch, rank, world):
    return split(batch, [COUNT // world] * world)[rank]


def result(losses, network):
    return {"total": losses.total.detach(), "raw": losses.raw, "gradients": gradients(network)}


def step(rank, world, config=CONFIG, batch=None):
    """A plain step through DistributedDataParallel."""
    network = make_model()
    parallel = DistributedDataParallel(network)
    batch = own_part(batch or make_batch(COUNT), rank, world)
    losses = loss_of(network, config)(parallel(batch), batch.item_ids, batch.weights)
    losses.total.backward()
    return result(losses, network)


def term_gradients(rank, world):
    """Squared norms of the gradient of each term with respect to this rank's features."""
    network, batch = make_model(), own_part(make_batch(COUNT), rank, world)
    return objective(network(batch), network.logit_scales, batch.item_ids, batch.weights, CONFIG, True).gradients


def head_after_gather(rank, world):
    """A layer that the columns meet after the gather and the rows without one."""
    torch.manual_seed(0)
    tower, head = (nn.Linear(6, 6, dtype=torch.float64) for _ in range(2))
    network = nn.ModuleDict({"tower": tower, "head": head})
    network.forward = lambda x_BD: tower(x_BD).tanh()
    parallel = DistributedDataParallel(network) if world else network
    x_BD = torch.randn(COUNT, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(COUNT) // 3
    size = COUNT // max(world, 1)
    own, own_ids = x_BD[rank * size :][:size], ids[rank * size :][:size]
    h_BD = parallel(own)
    logits_RC = head(h_BD) @ head(gather_rows(h_BD)).mT
    loss = contrastive(logits_RC, own_ids[:, None] == gather_constant(own_ids)).mean()
    loss.backward()
    return {"total": loss.detach(), "gradients": gradients(network)}


def cached(rank, world, dropout):
    """The results of a plain and of a cached step on uneven micro-batches, with the buckets that were reduced."""
    results = []
    for name in ("plain", "cached"):
        network = make_model(dropout=dropout)
        parallel = DistributedDataParallel(network)
        reductions = []

        def hook(state, bucket, reductions=reductions):
            reductions.append(bucket.index())
            done = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True).get_future()
            return done.then(lambda future: future.value()[0])

        parallel.register_comm_hook(None, hook)
        batches = split(own_part(make_batch(COUNT), rank, world), UNEVEN[world])
        torch.manual_seed(rank)
        if name == "cached":
            losses = cached_step(
                parallel, batches, loss_of(network, CONFIG), network.temperature_parameters, no_sync=parallel.no_sync
            )
        else:
            losses = one_graph(network, parallel, batches)
        results.append(result(losses, network) | {"reductions": torch.tensor(reductions)})
    return results


def one_graph(network, parallel, batches):
    """All micro-batches in one graph, so with the same dropout; the gradients are averaged by hand, as
    DistributedDataParallel allows one forward a backward."""
    with parallel.no_sync():
        parts = [parallel(batch) for batch in batches]
        features = Features(*(torch.cat(field) for field in zip(*parts, strict=True)))
        ids, weights = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("item_ids", "weights"))
        losses = loss_of(network, CONFIG)(features, ids, weights)
        losses.total.backward()
    for gradient in gradients(network).values():
        dist.all_reduce(gradient.div_(dist.get_world_size()))
    return losses


def everything(rank, world):
    """All steps in one group: starting processes is what takes the time."""
    no_target = make_batch(COUNT)._replace(weights=torch.zeros(COUNT))
    unequal = make_batch(COUNT)
    unequal.weights[: COUNT // 2] = 0  # a whole rank without a target text
    steps = {
        "corrected": step(rank, world),
        "whole teacher": step(rank, world, WHOLE_TEACHER),
        "no target": step(rank, world, batch=no_target),
        "unequal": step(rank, world, batch=unequal),
        "head": head_after_gather(rank, world),
        "faithful": step(rank, world, FAITHFUL),
        "term gradients": term_gradients(rank, world),
        "slice": step(rank, world, GATHERED_ONLY),
    }
    for dropout in (0.0, 0.4):
        steps[f"one graph {dropout}"], steps[f"cached {dropout}"] = cached(rank, world, dropout)
    steps["mean"] = mean_over_ranks(torch.tensor([1.0, 2.0]) * rank)
    return steps
