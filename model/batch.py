"""What goes into the model and what comes out of its encoders, as tensors with a mask.

B items · F frames · P tokens a frame · N visual tokens · V views · T text tokens · K slots · H heads · E shared width
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Media(NamedTuple):
    """Images are videos of one frame. `frames` [B,F,3,H,W] uint8 pixels, or [B,F,·] floats that were computed before;
    `mask` [B,F] bool, True where there is a frame."""

    frames: Tensor
    mask: Tensor


class Texts(NamedTuple):
    """`tokens` [B,T] int64 ids, or [B,T,·] float vectors; `mask` [B,T] bool.

    Descriptions have a view axis where they are ids: [B,V,T], and `mask` with them; as vectors (the states of a frozen
    encoder) the views of an item lie one after the other on T. A row whose mask is all False is no text.
    """

    tokens: Tensor
    mask: Tensor


class Batch(NamedTuple):
    """B samples: an item, an English caption of it, that caption in another language, the item's descriptions."""

    media: Media
    source: Texts  # s
    target: Texts  # t
    descriptions: Texts  # c
    item_ids: Tensor  # [B] int64, of the content: samples of one item are no negatives of each other
    weights: Tensor  # [B] float32, of the pair (s, t) in the losses that have t; 0: there is no t


def map_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with each of its tensors changed: moved, cut."""
    media, source, target, descriptions, ids, weights = batch
    return Batch(
        Media(*map(change, media)),
        Texts(*map(change, source)),
        Texts(*map(change, target)),
        Texts(*map(change, descriptions)),
        change(ids),
        change(weights),
    )


class Features(NamedTuple):
    """All that the losses need of a sample, one row each, so that a batch can be encoded in parts."""

    media_BE: Tensor  # ĥ_v, unit length
    slots_BKE: Tensor  # W_l M̂; unit length if `normalize_slots`; K = 0 without slots
    slot_mean_BD: Tensor  # mean_k norm(W_cp M_k); zeros without slots
    token_mean_BD: Tensor  # mean_n norm(W_vp Z_n)
    slot_cosines_BKK: Tensor  # of the slots M of one item
    source_BE: Tensor  # h_s, unit length
    target_BE: Tensor  # h_t, unit length


class Attention(NamedTuple):
    """What the slots of an item read, by the heads of the last layer of each stack; of sum 1 over what there is."""

    slots_BKE: Tensor  # W_l M̂, as `encode_media` gives them
    words_BHKT: Tensor  # over the description's tokens, a view's after the other's; 0 throughout without description
    words_mask_BT: Tensor  # bool, True where there is a token
    media_BHKN: Tensor  # over the visual tokens
    media_mask_BN: Tensor  # bool
