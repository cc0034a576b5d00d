"""What the ranks do in test_exact.py: one step of each kind on their share of one batch of 16."""

from dataclasses import replace
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import model.objective
from model.batch import Features
from model.losses import contrastive
from model.parts import cached_step, gather_constant, gather_rows, mean_over_ranks
from model.settings import ObjectiveConfig
from tests.model.toy import gradients, loss_of, make_batch, make_model, split

COUNT = 16
CONFIG = ObjectiveConfig(
    caption_vision_weight=0.3, distillation_weight=0.4, local_weight=0.5, diversity_weight=0.3, teacher_weight=0.6
)
WHOLE_TEACHER = replace(CONFIG, teacher="min_max", teacher_orientation="mixed")
FULL_LOSS = ObjectiveConfig(**{**vars(CONFIG), "gather": "slice"})
GATHERED_ONLY = ObjectiveConfig(
    caption_vision_weight=0, distillation_weight=0, local_weight=0, diversity_weight=0, gather="slice"
)
UNEVEN = {1: [5, 1, 7, 3], 2: [5, 1, 2], 4: [3, 1]}


def own_part(batch, rank, world):
    return split(batch, [COUNT // world] * world)[rank]


def result(losses, network):
    return {"total": losses.total.detach(), "raw": losses.raw, "gradients": gradients(network)}


def step(rank, world, config=CONFIG, gather=None, times=1, batch=None):
    """A plain step through DistributedDataParallel; `gather` in place of gather_rows."""
    network = make_model()
    parallel = DistributedDataParallel(network)
    batch = own_part(batch or make_batch(COUNT), rank, world)
    with mock.patch.object(model.objective, "gather_rows", gather or gather_rows):
        losses = loss_of(network, config)(parallel(batch), batch.item_ids, batch.weights)
        (losses.total * times).backward()
    return result(losses, network)


def put_back(rows, scheme):
    """All rows without gradient, but for the own ones."""
    everyone, own = list(gather_constant(rows).split(len(rows))), dist.get_rank()
    everyone[own] = rows
    return torch.cat(everyone)


def no_gradient(rows, scheme):
    return gather_constant(rows)


def full_gradient(rows, scheme):
    return gather_rows(rows)


class Misaligned:
    """The rows of one of the fields one further than they belong."""

    def __init__(self, field):
        self.calls, self.wrong = 0, Features._fields.index(field)

    def __call__(self, rows, scheme):
        self.calls += 1
        gathered = gather_rows(rows)
        return gathered.roll(1, 0) if self.calls == self.wrong + 1 else gathered


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
                parallel, batches, loss_of(network, CONFIG), [network.log_scale], no_sync=parallel.no_sync
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
        "ours": step(rank, world),
        "whole teacher": step(rank, world, WHOLE_TEACHER),
        "no target": step(rank, world, batch=no_target),
        "unequal": step(rank, world, batch=unequal),
        "head": head_after_gather(rank, world),
        "autograd, full loss": step(rank, world, FULL_LOSS, full_gradient),
        "slice, full loss": step(rank, world, FULL_LOSS),
        "put back, full loss": step(rank, world, FULL_LOSS, put_back),
        "put back, full loss × world": step(rank, world, FULL_LOSS, put_back, times=world),
        "no gradient, own rows": step(rank, world, CONFIG, no_gradient),
        "put back, own rows": step(rank, world, CONFIG, put_back),
        "autograd, own rows × world": step(rank, world, CONFIG, times=world),
        "faithful": step(rank, world, ObjectiveConfig.faithful()),
        "slice, gathered losses": step(rank, world, GATHERED_ONLY),
        "slice, gathered losses × world": step(rank, world, GATHERED_ONLY, times=world),
    }
    for field in ("media_BE", "slots_BKE", "slot_mean_BD", "token_mean_BD", "source_BE", "target_BE"):
        steps[f"misaligned {field}"] = step(rank, world, CONFIG, Misaligned(field))
    for dropout in (0.0, 0.4):
        plain, got = cached(rank, world, dropout)
        steps |= {f"one graph {dropout}": plain, f"cached {dropout}": got}
    steps["mean"] = mean_over_ranks(torch.tensor([1.0, 2.0]) * rank)
    return steps
