"""The training objective: own rows × the columns of all ranks, every loss once, and their weighted sum.

B samples of this rank · R rows · C columns · K slots · E shared width
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from model.batch import Features
from model.losses import (
    Losses,
    contrastive,
    distillation,
    diversity,
    global_similarity,
    local_similarity,
    mean_slot_cosine,
    min_max,
)
from model.parts import gather_constant, gather_rows, gradient_carrier
from model.settings import ObjectiveConfig

# Cells of a similarity matrix that are computed at once: 1 MB in float32, which fits into a CPU's cache. A GPU wants
# fewer, larger kernels.
BLOCK, BLOCK_GPU = 2**18, 2**22

Terms = dict[str, Tensor]


class Samples(NamedTuple):
    """Rows or columns of the similarity matrices.

    Attributes:
        features: Their features.
        ids_B: Item of each; equal ids are positives of each other.
        share_B: Share of each row in the losses that every row takes part in.
        pair_share_B: Share of each row in the losses about target texts; 0 where there is no target text.
    """

    features: Features
    ids_B: Tensor
    share_B: Tensor
    pair_share_B: Tensor


class Similarities(NamedTuple):
    """Items × texts and texts × items, rows first; the local ones, of source texts, are None without slots."""

    media_source_RC: Tensor
    source_media_RC: Tensor
    media_target_RC: Tensor
    target_media_RC: Tensor
    slots_source_RC: Tensor | None
    source_slots_RC: Tensor | None


def objective(
    features: Features,
    scales: Tensor,
    item_ids_B: Tensor,
    weights_B: Tensor,
    config: ObjectiveConfig,
    with_gradients: bool = False,
) -> Losses:
    """L = L_vs + w_cv·L_cv + (1 − w_d)·L_vt + w_d·L_kd + w_st·L_st + w_c·(L_sc + L_tc) + w_r·R (equation 9).

    Where slots are views, w_o·(L_os + L_ot) is added: of texts and the picture's own vector, before it reads its views.

    Computed in float32 at least, whatever autocast says. Without slots L_cv, L_sc, L_tc and R are left out. A term of
    weight 0 is computed all the same, so that its parameters are in the graph on every rank.

    Args:
        features: Of the samples of this rank; every rank has the same number.
        scales: 1/τ [2], of the global and of the local similarity.
        item_ids_B: int64; samples with the same id are positives of each other.
        weights_B: Weights of the pairs (s, t).
        config: Weights and variants of the losses.
        with_gradients: Whether to report the gradients of the terms and the cosine of slots, which costs a second
            backward pass through the losses.
    """
    with torch.autocast(features.media_BE.device.type, enabled=False):
        own = Features(*(x if x.dtype == torch.float64 else x.float() for x in features))
        if with_gradients:  # a tensor that stands for two features gets the gradient of each
            own = Features(*(x.view_as(x) for x in own))
        scales, weights_B = scales.to(own.media_BE.dtype), weights_B.to(own.media_BE.dtype)
        compared = own._replace(slot_cosines_BKK=own.media_BE[:, :0])  # only compared with one another, not gathered
        gathered = Features(*(gather_rows(x, config.gather) for x in compared))
        ids, weights = gather_constant(item_ids_B), gather_constant(weights_B)
        columns = _samples(gathered, ids, weights, weights.mean())
        rows = columns if config.gather == "slice" else _samples(own, item_ids_B, weights_B, weights.mean())

        # These variants need the whole square matrix, not blocks of rows.
        whole = config.teacher == "min_max" or config.teacher_orientation == "mixed"

        def block_terms(rows: Samples, columns: Samples, scales: Tensor) -> Terms:
            similar = _similarities(rows.features, columns.features)
            terms = _global_terms(rows, columns, similar, scales[0])
            if config.caption_vision_columns == "all":
                terms |= _caption_vision(rows, columns, scales[0], config)
            if config.local_columns == "all":
                terms |= _local_terms(rows, columns, similar, scales[1])
            return terms if whole else terms | _distillation(rows, columns, similar, config)

        total, raw, differentiable = _sum_over_blocks(block_terms, rows, columns, scales, config, with_gradients)
        rest: Terms = {}
        if config.caption_vision_columns == "rank":
            rank = _samples(own, item_ids_B, weights_B, weights_B.mean())
            rest |= _caption_vision(rank, rank, scales[0], config)
        if config.local_columns == "rank":
            rank = _samples(own, torch.arange(len(item_ids_B), device=scales.device), weights_B, weights_B.mean())
            rest |= _local_terms(rank, rank, _similarities(own, own), scales[1])
        if whole:
            rest |= _distillation(columns, columns, _similarities(gathered, gathered), config)
        if own.slots_BKE.shape[1]:
            rest["diversity"] = diversity(own.slot_cosines_BKK, config.diversity).mean()
        total = total + _total(rest, config) if rest else total
        raw = {name: value.detach() for name, value in (raw | rest).items()}
        losses = Losses(total, raw, {name: value * _weight(name, config) for name, value in raw.items()})
        if with_gradients:
            losses = losses._replace(gradients=_squared_norms(differentiable | rest, own, config))
            if own.slot_cosines_BKK.shape[1] > 1:
                losses = losses._replace(slot_cosine=mean_slot_cosine(own.slot_cosines_BKK.detach()))
    return losses


def _squared_norms(terms: Terms, features: Features, config: ObjectiveConfig) -> Terms:
    """Squared norm of the gradient that each weighted term has with respect to the features."""
    leaves = [x for x in features if x.requires_grad]
    norms = {name: features.media_BE.new_zeros(()) for name in terms}
    for name, value in terms.items():
        if _weight(name, config) and value.requires_grad:
            gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
            squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
            norms[name] = torch.stack(squares).sum() * _weight(name, config) ** 2
    return norms


def _weight(name: str, config: ObjectiveConfig) -> float:
    return {
        "media_source": 1.0,
        "source_target": config.source_target_weight,
        "own_source": config.own_weight,
        "own_target": config.own_weight,
        "media_target": 1 - config.distillation_weight,
        "distillation": config.distillation_weight,
        "caption_vision": config.caption_vision_weight,
        "local_source": config.local_weight,
        "local_target": config.local_weight,
        "diversity": config.diversity_weight,
    }[name]


def _total(terms: Terms, config: ObjectiveConfig) -> Tensor:
    return torch.stack([value * _weight(name, config) for name, value in terms.items()]).sum()


def _samples(features: Features, ids_B: Tensor, weights_B: Tensor, mean_weight: Tensor) -> Samples:
    """Samples whose shares sum to 1 in the mean over ranks, so that N ranks give what one rank would.

    `mean_weight` is the mean over the samples of all ranks.
    """
    count = len(weights_B)
    mean_weight = mean_weight.clamp(min=torch.finfo(weights_B.dtype).tiny)  # 0 where no pair has a target text
    return Samples(features, ids_B, torch.full_like(weights_B, 1 / count), weights_B / mean_weight / count)


def _sum_over_blocks(
    block_terms: Callable[[Samples, Samples, Tensor], Terms],
    rows: Samples,
    columns: Samples,
    scales: Tensor,
    config: ObjectiveConfig,
    separate: bool,
) -> tuple[Tensor, Terms, Terms]:
    """The weighted total with its graph, and the terms, as sums over blocks of rows.

    Several blocks are differentiated one after another, so that memory grows with the columns and not with their
    square, and nothing is computed twice. Only with `separate` do the terms returned last have the gradients of each.
    """
    size = max(1, (BLOCK if scales.device.type == "cpu" else BLOCK_GPU) // len(columns.ids_B))
    if len(rows.ids_B) <= size:
        terms = block_terms(rows, columns, scales)
        return _total(terms, config), terms, terms
    column_leaves, scales_leaf = columns._replace(features=_leaves(columns.features)), _leaf(scales)
    leaves = [*zip(columns.features, column_leaves.features, strict=True), (scales, scales_leaf)]
    totals, terms = [], {}
    separately: dict[str, dict[Tensor, Tensor]] = {}  # the gradients of each term
    for block in _split(rows, size):
        block_leaves = block._replace(features=_leaves(block.features))
        block_values = block_terms(block_leaves, column_leaves, scales_leaf)
        if separate:
            pairs = [
                *zip(columns.features, column_leaves.features, strict=True),
                *zip(block.features, block_leaves.features, strict=True),
            ]
            for name, value in block_values.items():
                if _weight(name, config):
                    _add_gradients(separately.setdefault(name, {}), value, pairs)
        total = _total(block_values, config)
        if total.requires_grad:
            total.backward()
        totals.append(total.detach())
        leaves += zip(block.features, block_leaves.features, strict=True)
        terms = {name: terms.get(name, 0) + value.detach() for name, value in block_values.items()}
    carrier = gradient_carrier((value, leaf.grad) for value, leaf in leaves if leaf.grad is not None)
    carriers = {name: gradient_carrier(gradients.items()) for name, gradients in separately.items()}
    return torch.stack(totals).sum() + (carrier - carrier.detach()), terms, terms | carriers


def _add_gradients(sums: dict[Tensor, Tensor], value: Tensor, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Add the gradient of `value` with respect to the second tensor of each pair to the sum of the first."""
    pairs = [(tensor, leaf) for tensor, leaf in pairs if leaf.requires_grad]
    gradients = torch.autograd.grad(value, [leaf for _, leaf in pairs], retain_graph=True, allow_unused=True)
    for (tensor, _), gradient in zip(pairs, gradients, strict=True):
        if gradient is not None:
            sums[tensor] = sums[tensor] + gradient if tensor in sums else gradient


def _split(rows: Samples, size: int) -> Iterator[Samples]:
    features = zip(*(x.split(size) for x in rows.features), strict=True)
    for block, *others in zip(features, *(x.split(size) for x in rows[1:]), strict=True):
        yield Samples(Features(*block), *others)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(value.requires_grad)


def _leaves(features: Features) -> Features:
    return Features(*map(_leaf, features))


def _symmetric(
    scale: Tensor | float, there_RC: Tensor, back_RC: Tensor, rows: Samples, columns: Samples, pairs: bool = False
) -> Tensor:
    """The mean of a contrastive loss in both directions.

    The columns of `there_RC` are texts, those of `back_RC` what the texts describe. With `pairs` the loss is about
    target texts: rows have the share of their pair, and absent texts are not candidates.
    """
    match_RC = rows.ids_B[:, None] == columns.ids_B
    share_R = rows.pair_share_B if pairs else rows.share_B
    present_C = columns.pair_share_B > 0 if pairs else None
    losses_R = contrastive(scale * there_RC, match_RC, present_C) + contrastive(scale * back_RC, match_RC)
    return (losses_R / 2 * share_R).sum()


def _similarities(row: Features, column: Features) -> Similarities:
    local = row.slots_BKE.shape[1] > 0
    return Similarities(
        global_similarity(row.media_BE, column.source_BE),
        global_similarity(row.source_BE, column.media_BE),
        global_similarity(row.media_BE, column.target_BE),
        global_similarity(row.target_BE, column.media_BE),
        local_similarity(row.slots_BKE, column.source_BE) if local else None,
        local_similarity(column.slots_BKE, row.source_BE).mT if local else None,
    )


def _global_terms(rows: Samples, columns: Samples, similar: Similarities, scale: Tensor) -> Terms:
    """L_vs, L_vt, L_st (equation 5); where slots are views also L_os and L_ot."""
    row, column = rows.features, columns.features
    source_target_RC = global_similarity(row.source_BE, column.target_BE)
    target_source_RC = global_similarity(row.target_BE, column.source_BE)
    terms = {
        "media_source": _symmetric(scale, similar.media_source_RC, similar.source_media_RC, rows, columns),
        "media_target": _symmetric(scale, similar.media_target_RC, similar.target_media_RC, rows, columns, pairs=True),
        "source_target": _symmetric(scale, source_target_RC, target_source_RC, rows, columns, pairs=True),
    }
    if row.own_BE.shape[1]:
        own_source_RC, source_own_RC = row.own_BE @ column.source_BE.mT, row.source_BE @ column.own_BE.mT
        own_target_RC, target_own_RC = row.own_BE @ column.target_BE.mT, row.target_BE @ column.own_BE.mT
        terms["own_source"] = _symmetric(scale, own_source_RC, source_own_RC, rows, columns)
        terms["own_target"] = _symmetric(scale, own_target_RC, target_own_RC, rows, columns, pairs=True)
    return terms


def _caption_vision(rows: Samples, columns: Samples, scale: Tensor, config: ObjectiveConfig) -> Terms:
    """L_cv (equation 7)."""
    row, column = rows.features, columns.features
    if not row.slots_BKE.shape[1]:
        return {}
    there_RC = global_similarity(row.slot_mean_BD, column.token_mean_BD)
    back_RC = global_similarity(row.token_mean_BD, column.slot_mean_BD)
    cv_scale = 1 / config.caption_vision_temperature if config.caption_vision_temperature else scale
    if config.caption_vision == "slots":
        losses_R = contrastive(cv_scale * there_RC, rows.ids_B[:, None] == columns.ids_B)
        return {"caption_vision": (losses_R * rows.share_B).sum()}
    return {"caption_vision": _symmetric(cv_scale, there_RC, back_RC, rows, columns)}


def _local_terms(rows: Samples, columns: Samples, similar: Similarities, scale: Tensor) -> Terms:
    """L_sc and L_tc (equation 6)."""
    if similar.slots_source_RC is None or similar.source_slots_RC is None:
        return {}
    slots_target_RC = local_similarity(rows.features.slots_BKE, columns.features.target_BE)
    target_slots_RC = local_similarity(columns.features.slots_BKE, rows.features.target_BE).mT
    return {
        "local_source": _symmetric(scale, similar.slots_source_RC, similar.source_slots_RC, rows, columns),
        "local_target": _symmetric(scale, slots_target_RC, target_slots_RC, rows, columns, pairs=True),
    }


def _distillation(rows: Samples, columns: Samples, similar: Similarities, config: ObjectiveConfig) -> Terms:
    """L_kd (equation 8). The teacher compares source texts and items, the student target texts and items."""
    texts_RC, items_RC = similar.source_media_RC, similar.media_source_RC
    local_texts_RC, local_items_RC = similar.source_slots_RC, similar.slots_source_RC
    if config.teacher_orientation == "mixed":
        local_texts_RC = local_items_RC
    if config.teacher == "min_max":
        texts_RC, local_texts_RC = min_max(texts_RC), None if local_texts_RC is None else min_max(local_texts_RC)
    alpha = config.teacher_weight
    if local_texts_RC is not None and local_items_RC is not None:
        texts_RC = alpha * texts_RC + (1 - alpha) * local_texts_RC
        items_RC = alpha * items_RC + (1 - alpha) * local_items_RC
    if config.teacher == "min_max":
        losses_R = distillation(texts_RC, similar.target_media_RC)
    else:
        teacher, student = 1 / config.teacher_temperature, 1 / config.student_temperature
        present_C = columns.pair_share_B > 0
        text_losses_R = distillation(teacher * texts_RC, student * similar.target_media_RC)
        item_losses_R = distillation(teacher * items_RC, student * similar.media_target_RC, present_C)
        losses_R = (text_losses_R + item_losses_R) / 2
    return {"distillation": (losses_R * rows.pair_share_B).sum()}
