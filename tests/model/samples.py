"""Features of random samples, as an encoder would give them, and items that occur twice."""

import torch
from torch.nn.functional import normalize

from model.batch import Features
from model.losses import slot_cosines


def make_features(count, slots=3, width=8, seed=0, dtype=torch.float64, unit_slots=True, own=False):
    """Leaves with gradient, so that a test can ask what the loss wants of each."""
    generator = torch.Generator().manual_seed(seed)

    def rows(*shape):
        return torch.randn(count, *shape, generator=generator, dtype=dtype)

    slot_BKE = rows(slots, width)
    features = Features(
        media_BE=normalize(rows(width), dim=-1),
        slots_BKE=normalize(slot_BKE, dim=-1) if unit_slots else slot_BKE,
        slot_mean_BD=normalize(rows(width), dim=-1) * 0.7,
        token_mean_BD=normalize(rows(width), dim=-1) * 0.8,
        slot_cosines_BKK=slot_cosines(rows(slots, width)),
        source_BE=normalize(rows(width), dim=-1),
        target_BE=normalize(rows(width), dim=-1),
        own_BE=normalize(rows(width if own else 0), dim=-1),
    )
    return Features(*(x.detach().requires_grad_() for x in features))
