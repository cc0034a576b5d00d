"""A LeccrModel of a few weights, and batches for it, to compare steps bit by bit."""

import torch

from model.batch import Batch, Media, Texts
from model.modeling import LeccrModel
from model.objective import objective

WORDS = 30


def make_model(seed=0, dtype=torch.float64, dropout=0.0, slots="queries"):
    torch.manual_seed(seed)
    tower = {"kind": "tiny", "width": 8, "layers": 1, "heads": 2, "dropout": dropout}
    return LeccrModel.create(
        media={**tower, "image_size": 8, "patch_size": 4},
        text={**tower, "vocab_size": WORDS, "max_tokens": 8},
        embed_dim=6,
        slots=slots,
        heads="aligned" if slots == "views" else "random",
        views=("caption", "objects"),
        num_slots=3,
        slot_layers=1,
        interaction_layers=1,
        num_heads=2,
        dropout=dropout,
    ).to(dtype)


def loss_of(model, config):
    """(features, ids, weights) → Losses, with the model's learned scales."""
    return lambda features, ids, weights: objective(features, model.logit_scales, ids, weights, config)


def make_batch(count=16, seed=0):
    """Items that occur twice, next to each other and far apart; pairs of weight 0; texts of 1 … 6 words; two views of
    each description, one item without any; images among clips of 2 … 4 frames."""
    generator = torch.Generator().manual_seed(seed)

    def mask(longest, least):
        lengths_B = torch.randint(least, longest + 1, (count, 1), generator=generator)
        return torch.arange(longest) < lengths_B

    def texts(least=1):
        return Texts(torch.randint(WORDS, (count, 6), generator=generator), mask(6, least))

    weights_B = torch.rand(count, generator=generator).round(decimals=2)
    weights_B[2::5] = 0
    ids_B = 100 + torch.arange(count)
    ids_B[-1], ids_B[count // 2], ids_B[1] = ids_B[0], ids_B[0], ids_B[2]
    descriptions = Texts(*(torch.stack(views, dim=1) for views in zip(texts(0), texts(0), strict=True)))
    descriptions.mask[3] = False
    frames = torch.randint(256, (count, 4, 3, 8, 8), generator=generator, dtype=torch.uint8)
    frame_mask = mask(4, 2)
    frame_mask[::3, 1:] = False
    return Batch(Media(frames, frame_mask), texts(), texts(), descriptions, ids_B, weights_B)


def part(batch, start, stop):
    """Rows of a batch, each kind of text cut to the longest of them."""

    def rows(texts):
        longest = max(1, int(texts.mask[start:stop].sum(-1).max()))
        return Texts(*(x[start:stop, ..., :longest] for x in texts))

    media = Media(batch.media.frames[start:stop], batch.media.mask[start:stop])
    return Batch(media, *map(rows, batch[1:4]), batch.item_ids[start:stop], batch.weights[start:stop])


def split(batch, sizes):
    stops = torch.tensor(sizes).cumsum(0).tolist()
    return [part(batch, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
