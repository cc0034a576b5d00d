"""Late fusion: how the similarities of a query with an item's picture and with its views make one score.

B items · V views · K slots · E width of the shared space

A view that is absent is a zero vector, and counts nowhere.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

POOLINGS = ("mean", "max", "logsumexp")  # the simplest first
POOLING_TEMPERATURE = 1 / 20


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The score a·⟨q, item⟩ + (1 − a)·pool_k w_k⟨q, view_k⟩.

    Attributes:
        global_weight: a.
        pooling: Of the views that an item has, their weights w scaled as named:
            "mean": Σ_k w_k⟨q, view_k⟩ with Σ_k w_k = 1;
            "max": max_k w_k⟨q, view_k⟩ with max_k w_k = 1;
            "logsumexp", which lies between: τ·log Σ_k w_k exp(⟨q, view_k⟩ / τ) with Σ_k w_k = 1 and τ = 1/20.
        view_weights: w by name of the view; 1 for a name that is not there. A view of weight 0 has no say.
    """

    global_weight: float = 1.0
    pooling: str = "mean"
    view_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def slots(self, views_BVE: Tensor, media_BE: Tensor, names: Sequence[str] = ()) -> tuple[Tensor, Tensor | None]:
        """Fold weights and pooling into slots whose similarities are pooled by max, or by logsumexp.

        An item without a view that counts has its own vector in their place.

        Args:
            views_BVE: Views, zeros where absent.
            media_BE: The items' own vectors.
            names: Names of the views, in order; further views have weight 1.

        Returns:
            Slots [B,K,E], K = 1 for "mean", else V; and for "logsumexp" the logarithms [B,K] of the weights.
        """
        weights_V = views_BVE.new_ones(views_BVE.shape[1])
        for place, name in enumerate(names[: len(weights_V)]):
            weights_V[place] = self.view_weights.get(name, 1.0)
        weights_BV = weights_V * (views_BVE != 0).any(2)
        described_B1 = (weights_BV > 0).any(1, keepdim=True)
        tiny = torch.finfo(weights_BV.dtype).tiny
        shares_BV = weights_BV / weights_BV.sum(1, keepdim=True).clamp(min=tiny)
        if self.pooling == "mean":
            mean_BE = torch.einsum("bv,bve->be", shares_BV, views_BVE)
            return torch.where(described_B1, mean_BE, media_BE)[:, None], None
        if self.pooling == "max":
            scaled_BVE = views_BVE * (weights_BV / weights_BV.amax(1, keepdim=True).clamp(min=tiny))[..., None]
            counted_BV = weights_BV > 0
            # The mean of what counts is never more similar than the best of it, so it can stand for an absent view.
            mean_BE = scaled_BVE.sum(1) / counted_BV.sum(1, keepdim=True).clamp(min=1)
            filler_BE = torch.where(described_B1, mean_BE, media_BE)
            return torch.where(counted_BV[..., None], scaled_BVE, filler_BE[:, None]), None
        own_share_V = torch.zeros_like(weights_V)
        own_share_V[0] = 1
        slots_BVE = torch.where(described_B1[..., None], views_BVE, media_BE[:, None])
        return slots_BVE, torch.where(described_B1, shares_BV, own_share_V).log()
