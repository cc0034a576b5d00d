"""Heads that start from what is already known, and the reader through which an item's picture sees its descriptions.

At the start every part that training adds is neutral: heads are the identity on a space that pretrained towers share,
and the gates of what heads and reader add are zero.

B items or texts · V views · I width of a summary · E width of the shared space
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

HIDDEN = 1024
FAST = 10.0  # a parameter that is used times FAST learns that many times as fast under Adam
TEXT_DROPOUT = 0.3


class ResidualHead(nn.Module):
    """T(u) = A u + b + γ ∘ MLP(u), with γ = 0 at the start: the text head, shared by queries and descriptions.

    A is the identity at the start where I = E, else random.
    """

    def __init__(self, width: int, shared: int):
        super().__init__()
        self.project = identity_layer(width, shared)
        self.mlp = _mlp(width, shared)
        self.gate_E = nn.Parameter(torch.zeros(shared))

    def forward(self, summary_BI: Tensor) -> Tensor:
        """Project summaries [B,I] to [B,E], not normalised."""
        return self.project(summary_BI) + self.gate_E * self.mlp(summary_BI)


class ViewReader(nn.Module):
    """ĥ_v = norm(g + a·m̄ + η ∘ MLP(m̄)): the picture's vector g reads its views, m̄ = Σ_k w_k m_k.

    The trust in a view is w = softmax_k(c_k + s·⟨g, m_k⟩) over the views that are there: c learns which views help, s
    how far a view that contradicts the picture is doubted. Weights are equal at the start; without views ĥ_v = g.

    Args:
        shared: E.
        views: V.
        read: Whether ĥ_v reads the views at all.
        trust: "agreement": as above; "name": s stays 0; "equal": c too.
        start: a at the start. 0 leaves the score of pretrained towers as it is.
    """

    trust_V: nn.Parameter | None
    agreement: nn.Parameter | None

    def __init__(self, shared: int, views: int, read: bool, trust: str, start: float):
        super().__init__()
        self.trust_V = None if trust == "equal" else nn.Parameter(torch.zeros(views))
        self.agreement = nn.Parameter(torch.zeros(())) if trust == "agreement" else None
        self.read = read
        if read:
            self.share = nn.Parameter(torch.tensor(float(start)))
            self.mlp = _mlp(shared, shared)
            self.gate_E = nn.Parameter(torch.zeros(shared))

    def forward(self, own_BE: Tensor, views_BVE: Tensor, present_BV: Tensor) -> tuple[Tensor, Tensor]:
        """ĥ_v [B,E] and m̄ [B,E].

        Args:
            own_BE: g, of unit length.
            views_BVE: m, of unit length.
            present_BV: bool, True where there is a view.
        """
        mean_BE = torch.einsum("bv,bve->be", self.trust(own_BE, views_BVE, present_BV), views_BVE)
        if not self.read:
            return own_BE, mean_BE
        described_B1 = present_BV.any(1, keepdim=True)
        added_BE = self.share * mean_BE + self.gate_E * self.mlp(mean_BE) * described_B1
        return normalize(own_BE + added_BE, dim=-1), mean_BE

    def trust(self, own_BE: Tensor, views_BVE: Tensor, present_BV: Tensor) -> Tensor:
        """W [B,V]: the trust in each view, 0 where it is absent, else together 1. Arguments as for `forward`."""
        logits_BV = views_BVE.new_zeros(views_BVE.shape[:2])
        if self.trust_V is not None:
            logits_BV = logits_BV + FAST * self.trust_V[: views_BVE.shape[1]]
        if self.agreement is not None:
            logits_BV = logits_BV + FAST * self.agreement * torch.einsum("be,bve->bv", own_BE.detach(), views_BVE)
        return logits_BV.masked_fill(~present_BV, torch.finfo(logits_BV.dtype).min).softmax(1) * present_BV


def media_head(width: int, shared: int, dropout: float) -> nn.Module:
    """The head of media: the identity for towers that project into the shared space, else a random network.

    Half of `dropout` is applied to the summary, all of it to the hidden layer.
    """
    if width == shared:
        return identity_layer(width, shared)
    return nn.Sequential(
        nn.Dropout(dropout / 2), nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(dropout), nn.Linear(HIDDEN, shared)
    )


def identity_layer(width: int, shared: int) -> nn.Linear:
    """A linear layer that starts as the identity where the widths agree, else random."""
    layer = nn.Linear(width, shared)
    if width == shared:
        with torch.no_grad():
            layer.weight.copy_(torch.eye(width))
            layer.bias.zero_()
    return layer


def _mlp(width: int, shared: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.GELU(), nn.Dropout(TEXT_DROPOUT), nn.Linear(HIDDEN, shared)
    )
