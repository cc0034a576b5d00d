"""How well an item and a text match: by their global vectors, and by the slot that fits the text best.

R rows · C columns · K slots · E shared width
"""

import torch
from torch import Tensor


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


def score(media_RE: Tensor, slots_RKE: Tensor, texts_CE: Tensor, global_weight: float) -> Tensor:
    """a·global + (1 − a)·local [R,C] (equation 10), items × texts; only the global similarity without slots."""
    similarity_RC = global_similarity(media_RE, texts_CE)
    if slots_RKE.shape[1] == 0:
        return similarity_RC
    return global_weight * similarity_RC + (1 - global_weight) * local_similarity(slots_RKE, texts_CE)


def slot_cosines(slots_BKD: Tensor) -> Tensor:
    """Cosine [B,K,K] of every pair of slots of an item."""
    unit_BKD = torch.nn.functional.normalize(slots_BKD, dim=-1)
    return unit_BKD @ unit_BKD.mT
