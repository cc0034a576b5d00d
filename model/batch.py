"""Model inputs and encoder outputs: tensors with a mask.

B items · F frames · M frames that are present · P tokens per frame · N visual tokens · V views · T text tokens ·
K slots · H heads · E shared width
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor


class FrameLayout(NamedTuple):
    """Where the frames of a batch are: sizes that a mask on a GPU gives only to a program that waits for it.

    Attributes:
        places_M: int64, the place of each present frame among all B·F.
        longest: Number of frames of the longest item.
        has_images: Whether an item has exactly one frame.
    """

    places_M: Tensor
    longest: int
    has_images: bool


class Media(NamedTuple):
    """Images and videos; an image is a video of one frame.

    Attributes:
        frames: [B,F,3,H,W] uint8 pixels, or [B,F,P,·] floats that a frozen picture tower made of them, or [B,F,·]
            precomputed float features.
        mask: [B,F] bool, True where there is a frame.
        layout: Of the mask, see `to_device`. Default: read from the mask where it is needed.
    """

    frames: Tensor
    mask: Tensor
    layout: FrameLayout | None = None


class Texts(NamedTuple):
    """Captions, queries or descriptions. A row whose mask is all False is an absent text.

    Descriptions as token ids have a view axis: tokens and mask are [B,V,T]. As vectors (the states of a frozen
    encoder) the views of an item follow one another along T.

    Attributes:
        tokens: [B,T] int64 ids, or [B,T,·] float vectors; of captions [B,1,I] are the summaries of a frozen encoder.
        mask: [B,T] bool, True where there is a token.
    """

    tokens: Tensor
    mask: Tensor


class Batch(NamedTuple):
    """B samples: an item, an English caption of it, that caption in another language, the item's descriptions.

    Attributes:
        media: The items v.
        source: English captions s.
        target: The captions t in the target language.
        descriptions: The descriptions c.
        item_ids: [B] int64, by content: samples of one item are positives of each other.
        weights: [B] float32, weight of the pair (s, t) in the losses that use t; 0 where t is absent.
    """

    media: Media
    source: Texts
    target: Texts
    descriptions: Texts
    item_ids: Tensor
    weights: Tensor


Inputs = TypeVar("Inputs", Batch, Media, Texts)


def map_tensors(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """Apply a function to every tensor of a batch, for example to slice it; the layout of its frames is dropped."""
    source, target, descriptions = (Texts(*map(function, texts)) for texts in batch[1:4])
    media = Media(function(batch.media.frames), function(batch.media.mask))
    return Batch(media, source, target, descriptions, function(batch.item_ids), function(batch.weights))


def frame_layout(mask_BF: Tensor) -> FrameLayout:
    """The layout of frames with this mask."""
    counts_B = mask_BF.sum(1)
    places_M = mask_BF.flatten().nonzero()[:, 0]
    return FrameLayout(places_M, int(counts_B.max()), bool((counts_B == 1).any()))


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Move a batch, media or texts; the layout of frames is read before, while their mask is on the CPU.

    From pinned memory this does not wait for the device.
    """

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    if isinstance(inputs, Texts):
        return Texts(*map(move, inputs))
    if isinstance(inputs, Media):
        layout = inputs.layout or frame_layout(inputs.mask)
        return Media(move(inputs.frames), move(inputs.mask), layout._replace(places_M=move(layout.places_M)))
    return map_tensors(inputs, move)._replace(media=to_device(inputs.media, device))


class Features(NamedTuple):
    """What the losses need of each sample, one row per sample, so that a batch can be encoded in parts.

    Attributes:
        media_BE: ĥ_v, unit length.
        slots_BKE: W_l M̂, unit length with `normalize_slots`; K = 0 without slots. Views as slots: their mean, K = 1.
        slot_mean_BD: mean over k of norm(W_cp M_k); zeros without slots. Views as slots: m̄, by trust.
        token_mean_BD: mean over n of norm(W_vp Z_n). Views as slots: the picture's own vector g.
        slot_cosines_BKK: Cosines between the slots M of one item.
        source_BE: h_s, unit length.
        target_BE: h_t, unit length.
        own_BE: g where slots are views, else [B,0].
    """

    media_BE: Tensor
    slots_BKE: Tensor
    slot_mean_BD: Tensor
    token_mean_BD: Tensor
    slot_cosines_BKK: Tensor
    source_BE: Tensor
    target_BE: Tensor
    own_BE: Tensor
