"""The whole objective: own rows × the columns of all ranks, every loss once, their weighted sum.

B samples of this rank · R rows · C columns · K slots · E shared width
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.batch import Features
from model.gather import SCHEMES, gather_constant, gather_rows
from model.losses import contrastive, distillation, diversity, min_max
from model.matching import global_similarity, local_similarity

# cells of a matrix at once: 1 MB in fp32, which a processor's cache holds; a GPU wants fewer, larger kernels
BLOCK, BLOCK_GPU = 2**18, 2**22


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights have no unit; temperatures divide a similarity. Raises ValueError for a value out of its range.

    The teacher's and the student's temperature are the same by default, so that distillation is content exactly where
    the translation scores as its source does, and fixed, so that it cannot be pleased by moving the learned scale.
    """

    caption_vision_weight: float = 0.01  # w_cv
    distillation_weight: float = 0.5  # w_d; the loss between items and target texts keeps 1 − w_d
    local_weight: float = 0.01  # w_c
    diversity_weight: float = 0.01  # w_r
    teacher_weight: float = 0.8  # α, of the global similarity in the teacher; 1 − α is the local one's
    teacher_temperature: float = 0.1
    student_temperature: float = 0.1
    caption_vision_temperature: float = 1.0  # 1 as released
    caption_vision: str = "symmetric"  # "slots" as released: from slots to media alone
    diversity: str = "squared"  # cosines of slots; "signed" as released
    teacher: str = "softmax"  # both directions; "min_max" as released: no temperatures, texts → items alone
    teacher_orientation: str = "same"  # of the teacher's two matrices; "mixed" adds [text,item] to [item,text]
    local_columns: str = "all"  # "rank": local matching sees one rank, own captions the only positives
    gather: str = "autograd"  # "slice": only the local slice gets gradients, and every rank takes the full loss

    @classmethod
    def faithful(cls) -> "ObjectiveConfig":
        """As the released code computes it, faults included."""
        return cls(
            caption_vision="slots",
            diversity="signed",
            teacher="min_max",
            teacher_orientation="mixed",
            local_columns="rank",
            gather="slice",
        )

    def __post_init__(self) -> None:
        for name, allowed in (
            ("caption_vision", ("symmetric", "slots")),
            ("diversity", ("squared", "signed")),
            ("teacher", ("softmax", "min_max")),
            ("teacher_orientation", ("same", "mixed")),
            ("local_columns", ("all", "rank")),
            ("gather", SCHEMES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted {' or '.join(allowed)}")
        for name in ("caption_vision_weight", "local_weight", "diversity_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted 0 or more")
        for name in ("distillation_weight", "teacher_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted a number from 0 to 1")
        for name in ("teacher_temperature", "student_temperature", "caption_vision_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted more than 0")


class Losses(NamedTuple):
    """`total` of this rank, with its graph. `raw` and `weighted`: each term of it without graph, by name, before and
    after its weight; the mean over ranks of any of them is that of the whole batch."""

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]


class Samples(NamedTuple):
    features: Features
    ids_B: Tensor
    share_B: Tensor  # of a row in the losses that every row has
    pair_share_B: Tensor  # of a row in those that have its target text; 0: there is none


class Similarities(NamedTuple):
    """Items × texts and texts × items, rows first: of the global matching, and of the local matching of source texts,
    which is None without slots."""

    media_source_RC: Tensor
    source_media_RC: Tensor
    media_target_RC: Tensor
    target_media_RC: Tensor
    slots_source_RC: Tensor | None
    source_slots_RC: Tensor | None


Terms = dict[str, Tensor]
TermsOf = Callable[[Samples, Samples, Tensor], Terms]  # of rows, columns and the scale


def objective(
    features: Features, scale: Tensor, item_ids_B: Tensor, weights_B: Tensor, config: ObjectiveConfig
) -> Losses:
    """L = L_vs + w_cv·L_cv + (1 − w_d)·L_vt + w_d·L_kd + L_st + w_c·(L_sc + L_tc) + w_r·R (equation 9).

    `scale` is 1/τ. `item_ids_B` int64: samples with the same id are positives of each other. `weights_B`: of the pairs
    (s, t). Samples are as many on every rank. In fp32 at least, whatever autocast says. Without slots L_cv, L_sc, L_tc
    and R are left out. A term of weight 0 is computed all the same: its parameters stay in the graph on every rank.
    """
    with torch.autocast(features.media_BE.device.type, enabled=False):
        own = Features(*(x if x.dtype == torch.float64 else x.float() for x in features))
        scale = scale.to(own.media_BE.dtype)
        gathered = Features(
            *(gather_rows(x, config.gather) for x in own._replace(slot_cosines_BKK=own.media_BE[:, :0]))
        )
        weights_B = weights_B.to(own.media_BE.dtype)
        ids, weights = gather_constant(item_ids_B), gather_constant(weights_B)
        columns = _samples(gathered, ids, weights, weights.mean())
        rows = columns if config.gather == "slice" else _samples(own, item_ids_B, weights_B, weights.mean())

        whole = config.teacher == "min_max" or config.teacher_orientation == "mixed"  # needs the whole square matrix

        def terms(some: Samples, columns: Samples, scale: Tensor) -> Terms:
            similar = _similarities(some.features, columns.features)
            found = _global_terms(some, columns, similar, scale, config)
            if config.local_columns == "all":
                found |= _local_terms(some, columns, similar, scale)
            return found if whole else found | _distillation(some, columns, similar, config)

        total, raw = _in_blocks(terms, rows, columns, scale, config)
        rest: Terms = {}
        if config.local_columns == "rank":
            rank = _samples(own, torch.arange(len(item_ids_B), device=scale.device), weights_B, weights_B.mean())
            rest |= _local_terms(rank, rank, _similarities(own, own), scale)
        if whole:
            rest |= _distillation(columns, columns, _similarities(gathered, gathered), config)
        if _has_slots(own):
            rest["diversity"] = diversity(own.slot_cosines_BKK, config.diversity).mean()
        raw = {name: value.detach() for name, value in (raw | rest).items()}
        weighted = {name: value * _weight(name, config) for name, value in raw.items()}
    return Losses(total + _total(rest, config) if rest else total, raw, weighted)


def _weight(name: str, config: ObjectiveConfig) -> float:
    return {
        "media_source": 1.0,
        "source_target": 1.0,
        "media_target": 1 - config.distillation_weight,
        "distillation": config.distillation_weight,
        "caption_vision": config.caption_vision_weight,
        "local_source": config.local_weight,
        "local_target": config.local_weight,
        "diversity": config.diversity_weight,
    }[name]


def _samples(features: Features, ids_B: Tensor, weights_B: Tensor, mean_weight: Tensor) -> Samples:
    """`mean_weight`: over the samples of all ranks. Own rows get shares that sum to 1 in the mean over ranks: N ranks
    give what one would."""
    count = len(weights_B)
    mean_weight = mean_weight.clamp(min=torch.finfo(weights_B.dtype).tiny)  # no pair has a target text: shares of 0
    return Samples(features, ids_B, torch.full_like(weights_B, 1 / count), weights_B / mean_weight / count)


def _has_slots(features: Features) -> bool:
    return features.slots_BKE.shape[1] > 0


def _total(terms: Terms, config: ObjectiveConfig) -> Tensor:
    return torch.stack([value * _weight(name, config) for name, value in terms.items()]).sum()


def _in_blocks(
    terms: TermsOf, rows: Samples, columns: Samples, scale: Tensor, config: ObjectiveConfig
) -> tuple[Tensor, Terms]:
    """The terms of all rows and their weighted total with its graph, as sums over blocks of rows.

    Several blocks are differentiated one by one, each at once, so that memory grows with the columns and not with their
    square and nothing is computed twice.
    """
    size = max(1, (BLOCK if scale.device.type == "cpu" else BLOCK_GPU) // len(columns.ids_B))
    if len(rows.ids_B) <= size:
        found = terms(rows, columns, scale)
        return _total(found, config), found
    held, held_scale = columns._replace(features=_leaves(columns.features)), _leaf(scale)
    totals, pairs, found = [], [*zip(columns.features, held.features, strict=True), (scale, held_scale)], {}
    for block in _split(rows, size):
        held_block = block._replace(features=_leaves(block.features))
        part = terms(held_block, held, held_scale)
        total = _total(part, config)
        if total.requires_grad:
            total.backward()
        totals.append(total.detach())
        pairs += zip(block.features, held_block.features, strict=True)
        found = {name: found.get(name, 0) + value.detach() for name, value in part.items()}
    surrogate = carrying((value, leaf.grad) for value, leaf in pairs if leaf.grad is not None)
    return torch.stack(totals).sum() + (surrogate - surrogate.detach()), found


def carrying(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """A number whose gradient with respect to the first of each pair is the second; 0 where none needs any."""
    products = [(value * gradient).sum() for value, gradient in pairs if value.requires_grad]
    return torch.stack(products).sum() if products else torch.zeros(())


def _split(rows: Samples, size: int) -> Iterator[Samples]:
    features = zip(*(x.split(size) for x in rows.features), strict=True)
    for some, *others in zip(features, *(x.split(size) for x in rows[1:]), strict=True):
        yield Samples(Features(*some), *others)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_(value.requires_grad)


def _leaves(features: Features) -> Features:
    return Features(*map(_leaf, features))


def _symmetric(there_RC: Tensor, back_RC: Tensor, rows: Samples, columns: Samples, pairs: bool) -> Tensor:
    """Both roles of a loss: the columns of `there_RC` are texts, of `back_RC` what they describe. `pairs`: it is about
    target texts, so rows have the share of their pair, and texts that are not there are no candidates."""
    match_RC = rows.ids_B[:, None] == columns.ids_B
    share_R = rows.pair_share_B if pairs else rows.share_B
    seen_C = columns.pair_share_B > 0 if pairs else None
    return ((contrastive(there_RC, match_RC, seen_C) + contrastive(back_RC, match_RC)) / 2 * share_R).sum()


def _similarities(row: Features, column: Features) -> Similarities:
    local = _has_slots(row)
    return Similarities(
        global_similarity(row.media_BE, column.source_BE),
        global_similarity(row.source_BE, column.media_BE),
        global_similarity(row.media_BE, column.target_BE),
        global_similarity(row.target_BE, column.media_BE),
        local_similarity(row.slots_BKE, column.source_BE) if local else None,
        local_similarity(column.slots_BKE, row.source_BE).mT if local else None,
    )


def _global_terms(
    rows: Samples, columns: Samples, similar: Similarities, scale: Tensor, config: ObjectiveConfig
) -> Terms:
    """L_vs, L_vt, L_st (equation 5) and L_cv (equation 7)."""
    row, column = rows.features, columns.features

    def loss(there_RC: Tensor, back_RC: Tensor, factor: Tensor, pairs: bool) -> Tensor:
        return _symmetric(factor * there_RC, factor * back_RC, rows, columns, pairs)

    terms = {
        "media_source": loss(similar.media_source_RC, similar.source_media_RC, scale, pairs=False),
        "media_target": loss(similar.media_target_RC, similar.target_media_RC, scale, pairs=True),
        "source_target": loss(
            global_similarity(row.source_BE, column.target_BE),
            global_similarity(row.target_BE, column.source_BE),
            scale,
            pairs=True,
        ),
    }
    if _has_slots(row):
        there_RC = global_similarity(row.slot_mean_BD, column.token_mean_BD) / config.caption_vision_temperature
        if config.caption_vision == "slots":
            losses_R = contrastive(there_RC, rows.ids_B[:, None] == columns.ids_B)
            terms["caption_vision"] = (losses_R * rows.share_B).sum()
        else:
            back_RC = global_similarity(row.token_mean_BD, column.slot_mean_BD) / config.caption_vision_temperature
            terms["caption_vision"] = _symmetric(there_RC, back_RC, rows, columns, pairs=False)
    return terms


def _local_terms(rows: Samples, columns: Samples, similar: Similarities, scale: Tensor) -> Terms:
    """L_sc and L_tc (equation 6)."""
    row, column = rows.features, columns.features
    if similar.slots_source_RC is None or similar.source_slots_RC is None:
        return {}
    there_RC = local_similarity(row.slots_BKE, column.target_BE)
    back_RC = local_similarity(column.slots_BKE, row.target_BE).mT
    return {
        "local_source": _symmetric(
            scale * similar.slots_source_RC, scale * similar.source_slots_RC, rows, columns, pairs=False
        ),
        "local_target": _symmetric(scale * there_RC, scale * back_RC, rows, columns, pairs=True),
    }


def _distillation(rows: Samples, columns: Samples, similar: Similarities, config: ObjectiveConfig) -> Terms:
    """L_kd (equation 8). The teacher is of source texts and items, the student of target texts and items."""
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
        seen_C = columns.pair_share_B > 0
        of_texts_R = distillation(teacher * texts_RC, student * similar.target_media_RC)
        of_items_R = distillation(teacher * items_RC, student * similar.media_target_RC, seen_C)
        losses_R = (of_texts_R + of_items_R) / 2
    return {"distillation": (losses_R * rows.pair_share_B).sum()}
