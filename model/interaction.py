"""Visual tokens and semantic slots read each other (equation 4).

B items · N visual tokens · K slots · D width · H heads · L2 layers
"""

from typing import Any

from torch import Tensor, nn

from model.slots import cross_attention_stack


class Interaction(nn.Module):
    """Two stacks of cross-attention layers. Each reads the input of the other, not its output.

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
        weights_BHKN: Tensor = layers[-1].weights(slots_BKD, tokens_BND, mask_BN)
        return weights_BHKN
