"""Similarities and losses as pure functions of rows, columns and who matches whom, which the caller chooses.

R rows · C columns · B items · K slots · E shared width

Each loss is one number per row, in nats, so that the caller can weigh the rows.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import kl_div, normalize


class Losses(NamedTuple):
    """The losses of this rank; the mean over ranks of any of them is that of the whole batch.

    Attributes:
        total: The weighted sum, with its graph.
        raw: Each term by name, before its weight, without a graph.
        weighted: Each term by name, after its weight, without a graph.
        gradients: Squared norm of the gradient of each weighted term with respect to the features of this rank, where
            it was asked for.
        slot_cosine: Mean cosine between different slots of an item, likewise; None where items have a single slot.
    """

    total: Tensor
    raw: dict[str, Tensor]
    weighted: dict[str, Tensor]
    gradients: Mapping[str, Tensor] = MappingProxyType({})
    slot_cosine: Tensor | None = None


def global_similarity(rows_RE: Tensor, columns_CE: Tensor) -> Tensor:
    """Cosine [R,C] of unit vectors, whichever side the items are on."""
    return rows_RE @ columns_CE.mT


def local_similarity(slots_RKE: Tensor, texts_CE: Tensor) -> Tensor:
    """l(v, x) = max over k of ⟨slot_k, h_x⟩ (equation 6): items are the rows, texts the columns [R,C].

    Slots that tie share the gradient. Transpose the result to have texts as rows.
    """
    slots, width = slots_RKE.shape[1:]
    similarity_SC = slots_RKE.reshape(-1, width) @ texts_CE.mT  # S = R·K
    return similarity_SC.view(len(slots_RKE), slots, len(texts_CE)).amax(1)


def slot_cosines(slots_BKD: Tensor) -> Tensor:
    """Cosine [B,K,K] of every pair of slots of an item."""
    unit_BKD = normalize(slots_BKD, dim=-1)
    return unit_BKD @ unit_BKD.mT


def mean_slot_cosine(cosines_BKK: Tensor) -> Tensor:
    """The mean cosine between different slots of an item, over the slots that are there; 0 if no item has two.

    The cosine of an absent slot with itself is 0.
    """
    there_BK = cosines_BKK.diagonal(dim1=1, dim2=2) > 0.5
    pairs_BKK = there_BK[:, :, None] & there_BK[:, None]
    pairs_BKK = pairs_BKK & ~torch.eye(cosines_BKK.shape[1], dtype=torch.bool, device=cosines_BKK.device)
    return (cosines_BKK * pairs_BKK).sum() / pairs_BKK.sum().clamp(min=1)


def contrastive(logits_RC: Tensor, match_RC: Tensor, candidates_C: Tensor | None = None) -> Tensor:
    """Cross-entropy with several positives: minus the mean of log softmax over a row's positives (equations 5, 6).

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> contrastive(logits, torch.eye(2, dtype=torch.bool))  # ln(1 + e⁻²) each
    tensor([0.1269, 0.1269])

    Args:
        logits_RC: Similarities divided by the temperature.
        match_RC: bool, True where row and column belong together.
        candidates_C: bool, False for columns to leave out. Default: all are candidates.

    Returns:
        [R]; 0 for a row without a positive.
    """
    if candidates_C is not None:
        match_RC = match_RC & candidates_C
    targets_RC = match_RC.to(logits_RC.dtype)  # also counted in this type: sums of booleans are slow
    log_p_RC = _without(logits_RC, candidates_C).log_softmax(1)
    return -(targets_RC * log_p_RC).sum(1) / targets_RC.sum(1).clamp(min=1)


def distillation(teacher_RC: Tensor, student_RC: Tensor, candidates_C: Tensor | None = None) -> Tensor:
    """KL(teacher ‖ student) per row, [R], of the softmaxes of two logits (equation 8); the teacher gets no gradient."""
    p_RC = _without(teacher_RC.detach(), candidates_C).log_softmax(1)
    q_RC = _without(student_RC, candidates_C).log_softmax(1)
    return kl_div(q_RC, p_RC, reduction="none", log_target=True).sum(1)


def min_max(scores_RC: Tensor) -> Tensor:
    """The whole matrix shifted and scaled to 0 … 1, as the released teacher does; a constant matrix becomes 0.

    >>> min_max(torch.tensor([[1.0, 3.0], [2.0, 5.0]]))
    tensor([[0.0000, 0.5000],
            [0.2500, 1.0000]])
    """
    low, high = scores_RC.min(), scores_RC.max()
    return (scores_RC - low) / (high - low).clamp(min=torch.finfo(scores_RC.dtype).tiny)


def diversity(cosines_BKK: Tensor, kind: str = "squared") -> Tensor:
    """How alike an item's slots are, [B] (equation 3); 0 for a single slot.

    Args:
        cosines_BKK: Cosines between the slots of an item.
        kind: "squared": mean cosine² over pairs of different slots, least (0) where they are orthogonal. "signed", as
            in the released code: cosines over all K² pairs, least where slots point away from each other.
    """
    values_BKK = cosines_BKK.square() if kind == "squared" else cosines_BKK
    slots = cosines_BKK.shape[-1]
    others_KK = ~torch.eye(slots, dtype=torch.bool, device=cosines_BKK.device)
    pairs = slots * (slots - 1) if kind == "squared" else slots**2
    return (values_BKK * others_KK).sum((1, 2)) / max(pairs, 1)


def _without(logits_RC: Tensor, candidates_C: Tensor | None) -> Tensor:
    """Logits without the columns that are not candidates."""
    if candidates_C is None:
        return logits_RC
    # The least finite number, not −∞: a row without any candidate stays finite, and its gradient 0.
    return logits_RC.masked_fill(~candidates_C, torch.finfo(logits_RC.dtype).min)
