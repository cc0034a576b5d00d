"""Multi-view semantic slots: learned queries that read the descriptions of an item, then its visual tokens.

B items · Q queries · M keys · T description tokens · N visual tokens · K slots · D width · C width of the
description's states · H heads · d = D/H
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention

QUERY_STD = 0.02


class CrossAttentionLayer(nn.Module):
    """x ← LayerNorm(x + Drop(W2·Drop(GELU(W1·MHA(x, m, m))))), as in the released code; no self-attention.

    The heads' projections are applied on whichever side is shorter, as Σ_t a_t·(W m_t) = W·(Σ_t a_t·m_t): with 4 slots
    that read 128 tokens of width 768 this takes a third of the time of projecting every token. There is no key bias:
    it shifts all scores of a query alike, which the softmax does not see.

    Args:
        width: D.
        heads: H, a divisor of D.
        dropout: Probability, in the feed-forward half.
        attention_dropout: Probability, of attention weights.
    """

    def __init__(self, width: int, heads: int = 8, dropout: float = 0.1, attention_dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise ValueError(f"num_heads={heads}: expected a divisor of the width {width}")
        self.heads, self.attention_dropout = heads, attention_dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width), nn.Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BQD: Tensor, m_BMD: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """What each x reads in m, [B,Q,D].

        Args:
            x_BQD: Queries.
            m_BMD: Memory that they read.
            mask_BM: bool, True where there is an m: at least once per row.
        """
        attend = self._few_queries if x_BQD.shape[1] <= m_BMD.shape[1] else self._few_keys
        return self.norm(x_BQD + self.feed_forward(attend(x_BQD, m_BMD, mask_BM)))

    def weights(self, x_BQD: Tensor, m_BMD: Tensor, mask_BM: Tensor | None = None) -> Tensor:
        """Attention weights [B,H,Q,M] of each x over m; they sum to 1 over M and are 0 where masked.

        `forward` never holds them where m is long.
        """
        query_BQHd = self.query(x_BQD).unflatten(-1, (self.heads, -1))
        key_BMHd = self.key(m_BMD).unflatten(-1, (self.heads, -1))
        scores_BHQM = torch.einsum("bqhd,bmhd->bhqm", query_BQHd, key_BMHd) * query_BQHd.shape[-1] ** -0.5
        if mask_BM is not None:
            scores_BHQM = scores_BHQM.masked_fill(~mask_BM[:, None, None], -torch.inf)
        return scores_BHQM.softmax(-1)

    def _few_queries(self, x_BQD: Tensor, m_BMD: Tensor, mask_BM: Tensor | None) -> Tensor:
        """⟨W_q x, W_k m⟩ as ⟨W_kᵀ W_q x, m⟩, and W_v after the weighted sum of m."""
        query_BQHd = self.query(x_BQD).unflatten(-1, (self.heads, -1))
        key_HdD = self.key.weight.unflatten(0, (self.heads, -1))
        value_HdD = self.value.weight.unflatten(0, (self.heads, -1))
        absorbed_BGD = torch.einsum("bqhd,hdw->bhqw", query_BQHd, key_HdD).flatten(1, 2)
        memory_B1MD = m_BMD[:, None]  # fused kernels need an axis of heads
        read_B1GD = scaled_dot_product_attention(  # G = H·Q: every head of every query is a query of width D
            absorbed_BGD[:, None],
            memory_B1MD,
            memory_B1MD,
            attn_mask=None if mask_BM is None else mask_BM[:, None, None],
            dropout_p=self.attention_dropout if self.training else 0.0,
            scale=query_BQHd.shape[-1] ** -0.5,
        )
        values_BQHd = torch.einsum("bhqw,hdw->bqhd", read_B1GD[:, 0].unflatten(1, (self.heads, -1)), value_HdD)
        return self.out(values_BQHd.flatten(2) + self.value.bias)

    def _few_keys(self, x_BQD: Tensor, m_BMD: Tensor, mask_BM: Tensor | None) -> Tensor:
        """⟨W_q x, W_k m⟩ as ⟨x, W_qᵀ W_k m⟩, and W_o before the weighted sum of values."""
        key_BMHd = self.key(m_BMD).unflatten(-1, (self.heads, -1))
        value_BMHd = self.value(m_BMD).unflatten(-1, (self.heads, -1))
        query_HdD = self.query.weight.unflatten(0, (self.heads, -1))
        out_DHd = self.out.weight.unflatten(1, (self.heads, -1))
        key_BHMD = torch.einsum("bmhd,hdw->bhmw", key_BMHd, query_HdD)
        shift_BHM = torch.einsum("bmhd,hd->bhm", key_BMHd, self.query.bias.unflatten(0, (self.heads, -1)))
        scores_BQG = torch.baddbmm(shift_BHM.flatten(1)[:, None], x_BQD, key_BHMD.flatten(1, 2).mT)  # G = H·M
        scores_BQHM = scores_BQG.unflatten(-1, (self.heads, -1)) * key_BMHd.shape[-1] ** -0.5
        if mask_BM is not None:
            scores_BQHM = scores_BQHM.masked_fill(~mask_BM[:, None, None], -torch.inf)
        value_BHMD = torch.einsum("bmhd,whd->bhmw", value_BMHd, out_DHd)
        weights_BQHM = dropout(scores_BQHM.softmax(-1), self.attention_dropout, self.training)
        return weights_BQHM.flatten(2) @ value_BHMD.flatten(1, 2) + self.out.bias


def cross_attention_stack(count: int, width: int, stack_init: str = "independent", **settings: Any) -> nn.ModuleList:
    """`count` layers in sequence; with `stack_init` "copies", as in the released code, all start as the first.

    Its attention starts as PyTorch's: without biases, and Xavier-uniform in queries, keys and values as one matrix.
    """
    layers = [CrossAttentionLayer(width, **settings) for _ in range(count)]
    if stack_init == "independent" or not layers:
        return nn.ModuleList(layers)
    first = layers[0]
    for layer in (first.query, first.key, first.value):
        nn.init.uniform_(layer.weight, -math.sqrt(1.5 / width), math.sqrt(1.5 / width))
    for layer in (first.query, first.value, first.out):
        nn.init.zeros_(layer.bias)
    return nn.ModuleList([copy.deepcopy(first) for _ in layers])


class SemanticSlots(nn.Module):
    """Learned queries that read an item's descriptions (equation 2); a null token stands in where there is none.

    Args:
        width: D, of the slots.
        text_width: C, of the descriptions' states.
        count: K, slots.
        layers: L1, cross-attention layers.
        slot_init: "normal": queries start at N(0, 0.02); "zero", as in the released code, makes them all alike.
        **layer: Arguments of `cross_attention_stack`.
    """

    def __init__(
        self, width: int, text_width: int, count: int = 4, layers: int = 3, slot_init: str = "normal", **layer: Any
    ):
        super().__init__()
        self.queries_KD = nn.Parameter(torch.zeros(count, width))
        if slot_init == "normal":
            nn.init.normal_(self.queries_KD, std=QUERY_STD)
        self.null_D = nn.Parameter(torch.randn(width) * QUERY_STD)
        self.project = nn.Linear(text_width, width)
        self.layers = cross_attention_stack(layers, width, **layer)

    def forward(self, states_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """Compute the slots M [B,K,D].

        Args:
            states_BTC: States of the descriptions; finite values where masked change nothing.
            mask_BT: bool, True where there is a token.
        """
        memory_BMD, mask_BM = self._memory(states_BTC, mask_BT)
        return self._read(memory_BMD, mask_BM, len(self.layers))

    def attention(self, states_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        """Attention weights [B,H,K,T] of the last layer; they sum to 1 over T and are 0 where there is no token.

        For an item without descriptions all are 0: the null token has all the weight.
        """
        memory_BMD, mask_BM = self._memory(states_BTC, mask_BT)
        slots_BKD = self._read(memory_BMD, mask_BM, len(self.layers) - 1)
        last: Any = self.layers[-1]
        weights_BHKM: Tensor = last.weights(slots_BKD, memory_BMD, mask_BM)
        return weights_BHKM[..., :-1]

    def _memory(self, states_BTC: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """What the slots read, [B,T+1,D], and its mask.

        The last token is the null token. A row sees it exactly when it sees no other, also where T is 0.
        """
        tokens_BTD = self.project(states_BTC)
        null_B1D = self.null_D.to(tokens_BTD.dtype).expand(len(tokens_BTD), 1, -1)
        return torch.cat([tokens_BTD, null_B1D], dim=1), torch.cat([mask_BT, ~mask_BT.any(1, keepdim=True)], dim=1)

    def _read(self, memory_BMD: Tensor, mask_BM: Tensor, layers: int) -> Tensor:
        """The slots [B,K,D] after so many layers."""
        slots_BKD = self.queries_KD.expand(len(memory_BMD), -1, -1)
        for layer in list(self.layers)[:layers]:
            slots_BKD = layer(slots_BKD, memory_BMD, mask_BM)
        return slots_BKD


class Interaction(nn.Module):
    """Visual tokens and slots read each other (equation 4), in two stacks of cross-attention layers.

    Each stack reads the input of the other, not its output.

    Args:
        width: D.
        layers: L2, layers per stack.
        **layer: Arguments of `cross_attention_stack`.
    """

    def __init__(self, width: int, layers: int = 2, **layer: Any):
        super().__init__()
        self.tokens_read = cross_attention_stack(layers, width, **layer)
        self.slots_read = cross_attention_stack(layers, width, **layer)

    def forward(self, tokens_BND: Tensor, mask_BN: Tensor, slots_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Compute Ẑ [B,N,D] and M̂ [B,K,D] from Z, its mask (bool, True where there is a token) and M.

        Ẑ at a masked token has no meaning.
        """
        read_BND, read_BKD = tokens_BND, slots_BKD
        for layer in self.tokens_read:
            read_BND = layer(read_BND, slots_BKD)
        for layer in self.slots_read:
            read_BKD = layer(read_BKD, tokens_BND, mask_BN)
        return read_BND, read_BKD

    def attention(self, tokens_BND: Tensor, mask_BN: Tensor, slots_BKD: Tensor) -> Tensor:
        """Attention weights [B,H,K,N] of the slots' last layer; they sum to 1 over N and are 0 where masked."""
        layers: list[Any] = list(self.slots_read)
        for layer in layers[:-1]:
            slots_BKD = layer(slots_BKD, tokens_BND, mask_BN)
        return layers[-1].weights(slots_BKD, tokens_BND, mask_BN)
