"""The losses as pure functions of rows, columns and who matches whom. Which rows and columns is the caller's affair.

R rows · C columns · B items · K slots

Each gives one loss a row (in nats), so that the caller weighs the rows.
"""

import torch
from torch import Tensor
from torch.nn.functional import kl_div


def contrastive(logits_RC: Tensor, match_RC: Tensor, seen_C: Tensor | None = None) -> Tensor:
    """Cross-entropy with several positives: minus the mean over a row's positives of log softmax, [R].

    `match_RC` bool, True where row and column belong together. A column that is not `seen_C` is no candidate. A row
    left without a positive costs 0.

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> contrastive(logits, torch.eye(2, dtype=torch.bool))  # ln(1 + e⁻²) each
    tensor([0.1269, 0.1269])
    """
    if seen_C is not None:
        match_RC = match_RC & seen_C
    targets_RC = match_RC.to(logits_RC.dtype)  # counted in it too: sums of booleans are slow
    return -(targets_RC * _only_seen(logits_RC, seen_C).log_softmax(1)).sum(1) / targets_RC.sum(1).clamp(min=1)


def distillation(teacher_RC: Tensor, student_RC: Tensor, seen_C: Tensor | None = None) -> Tensor:
    """KL(teacher ‖ student) a row, [R], of the softmaxes of two logits (equation 8); the teacher gets no gradient."""
    p_RC = _only_seen(teacher_RC.detach(), seen_C).log_softmax(1)
    q_RC = _only_seen(student_RC, seen_C).log_softmax(1)
    return kl_div(q_RC, p_RC, reduction="none", log_target=True).sum(1)


def min_max(scores_RC: Tensor) -> Tensor:
    """The whole matrix moved and scaled to 0 … 1, as the released teacher is; a constant one becomes 0.

    >>> min_max(torch.tensor([[1.0, 3.0], [2.0, 5.0]]))
    tensor([[0.0000, 0.5000],
            [0.2500, 1.0000]])
    """
    low, high = scores_RC.min(), scores_RC.max()
    return (scores_RC - low) / (high - low).clamp(min=torch.finfo(scores_RC.dtype).tiny)


def diversity(cosines_BKK: Tensor, kind: str = "squared") -> Tensor:
    """How alike an item's slots are, [B] (equation 3): the mean over pairs of different slots of cosine².

    Least (0) where they are orthogonal. "signed", as released: the cosines themselves, least where the slots point away
    from each other, and over all K² pairs. 0 for one slot. Raises ValueError for another kind.
    """
    if kind not in ("squared", "signed"):
        raise ValueError(f"diversity: got {kind!r}, wanted 'squared' or 'signed'")
    values_BKK = cosines_BKK.square() if kind == "squared" else cosines_BKK
    slots = cosines_BKK.shape[-1]
    others_KK = ~torch.eye(slots, dtype=torch.bool, device=cosines_BKK.device)
    pairs = slots * (slots - 1) if kind == "squared" else slots**2
    return (values_BKK * others_KK).sum((1, 2)) / max(pairs, 1)


def _only_seen(logits_RC: Tensor, seen_C: Tensor | None) -> Tensor:
    if seen_C is None:
        return logits_RC
    # the least finite number, not −∞: a row with no candidate at all stays finite, and its gradient 0
    return logits_RC.masked_fill(~seen_C, torch.finfo(logits_RC.dtype).min)
