"""A LECCR in small, of the real slots, interaction and matching on towers of a few weights, and batches for it."""

import torch
from torch import nn
from torch.nn.functional import normalize

from model.batch import Batch, Features, Media, Texts
from model.interaction import Interaction
from model.matching import slot_cosines
from model.objective import objective
from model.slots import SemanticSlots

WORDS, PIXELS, TEXT_WIDTH, WIDTH, EMBED = 30, 6, 12, 8, 5


class ToyModel(nn.Module):
    def __init__(self, dropout=0.0, slots=3):
        super().__init__()
        self.words = nn.Embedding(WORDS, TEXT_WIDTH)
        self.tower = nn.Sequential(nn.Linear(TEXT_WIDTH, TEXT_WIDTH), nn.GELU(), nn.Dropout(dropout))
        self.eye = nn.Sequential(nn.Linear(PIXELS, WIDTH), nn.GELU(), nn.Dropout(dropout))
        self.semantic = SemanticSlots(WIDTH, TEXT_WIDTH, slots, layers=1, heads=2, dropout=dropout)
        self.interaction = Interaction(WIDTH, layers=1, heads=2, dropout=dropout)
        self.text_head = nn.Linear(TEXT_WIDTH, EMBED)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, EMBED) for _ in range(4))
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def states(self, texts):
        return self.tower(self.words(texts.tokens)) * texts.mask[..., None]

    def forward(self, batch):
        tokens_BND, mask_BN = self.eye(batch.media.frames), batch.media.mask
        described = batch.descriptions
        slots_BKD = self.semantic(self.states(described), described.mask)
        read_BND, read_BKD = self.interaction(tokens_BND, mask_BN, slots_BKD)
        media, local, slot, token = self.heads
        share_BN1 = (mask_BN / mask_BN.sum(1, keepdim=True))[..., None].to(tokens_BND.dtype)
        source_BE, target_BE = (
            normalize(self.text_head(self.states(texts).sum(1)), dim=-1) for texts in (batch.source, batch.target)
        )
        return Features(
            media_BE=normalize(media((read_BND * share_BN1).sum(1)), dim=-1),
            slots_BKE=normalize(local(read_BKD), dim=-1),
            slot_mean_BD=normalize(slot(slots_BKD), dim=-1).mean(1),
            token_mean_BD=(normalize(token(tokens_BND), dim=-1) * share_BN1).sum(1),
            slot_cosines_BKK=slot_cosines(slots_BKD),
            source_BE=source_BE,
            target_BE=target_BE,
        )

    @property
    def logit_scale(self):
        return self.log_scale.exp()


def loss_of(model, config):
    """(features, ids, weights) → Losses, with the model's learned scale: of this one, or of LeccrModel."""
    return lambda features, ids, weights: objective(features, model.logit_scale, ids, weights, config)


def make_model(seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    return ToyModel(**options).to(dtype)


def make_batch(count=16, seed=0, dtype=torch.float64):
    """Items that occur twice, near each other and far apart; pairs of weight 0; texts of 1 … 6 words; an item without
    description; clips of 2 … 4 frames."""
    generator = torch.Generator().manual_seed(seed)

    def mask(longest, least):
        lengths_B = torch.randint(least, longest + 1, (count, 1), generator=generator)
        return torch.arange(longest) < lengths_B

    def texts(least=1):
        return Texts(torch.randint(WORDS, (count, 6), generator=generator), mask(6, least))

    frames = torch.randn(count, 4, PIXELS, generator=generator, dtype=dtype)
    weights_B = torch.rand(count, generator=generator).round(decimals=2)
    weights_B[2::5] = 0
    ids_B = 100 + torch.arange(count)
    ids_B[-1], ids_B[count // 2], ids_B[1] = ids_B[0], ids_B[0], ids_B[2]
    descriptions = texts(least=0)
    descriptions.mask[3] = False
    return Batch(Media(frames, mask(4, 2)), texts(), texts(), descriptions, ids_B, weights_B)


def part(batch, start, stop):
    """Rows of a batch, each kind of text cut to the longest of them."""

    def rows(texts):
        longest = int(texts.mask[start:stop].sum(-1).max())
        return Texts(*(x[start:stop, ..., :longest] for x in texts))

    media = Media(*(x[start:stop] for x in batch.media))
    return Batch(media, *map(rows, batch[1:4]), batch.item_ids[start:stop], batch.weights[start:stop])


def split(batch, sizes):
    stops = torch.tensor(sizes).cumsum(0).tolist()
    return [part(batch, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}
