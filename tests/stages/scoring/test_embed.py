"""A split embedded by one process and by several: the same vectors, each once, in the order of the data."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.batch import Media, Texts
from stages.scoring.embed import Embedded, embed_split


class Toy(torch.nn.Module):
    """A vector says which item or text it was made from; K slots."""

    def __init__(self, slots=2):
        super().__init__()
        self.slots = slots
        self.dropout = torch.nn.Dropout(0.5)
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen = []

    def encode_media(self, media, descriptions):
        self.seen.append(len(media.frames))
        assert not torch.is_autocast_enabled("cpu")
        vectors = self.dropout(media.frames.flatten(1)[:, :1] * torch.tensor([1.0, 2.0]) * self.weight)
        return vectors, vectors[:, None].repeat(1, self.slots, 1) + descriptions.tokens[:, :1, None]

    def encode_text(self, texts):
        self.seen.append(len(texts.tokens))
        return self.dropout(texts.tokens[:, :1] * torch.tensor([1.0, 3.0]) * self.weight).bfloat16()


class NumberProcessor:
    """Pictures are numbers, texts are digits, descriptions are numbers."""

    def media(self, items):
        return Media(torch.tensor(items, dtype=torch.float32), torch.ones(len(items), 1, dtype=torch.bool))

    def texts(self, texts, training=False):
        assert not training
        return Texts(torch.tensor([[float(text)] for text in texts]), torch.ones(len(texts), 1, dtype=torch.bool))

    def descriptions(self, items):
        return Texts(torch.tensor(items, dtype=torch.float32), torch.ones(len(items), 1, dtype=torch.bool))


class Split:
    """Items 0, 1, 2 … with ids that are not sorted; two languages, one of which has no text of the first item."""

    def __init__(self, items):
        self.item_ids = np.array([(number * 7) % 101 - 50 for number in range(items)])
        texts = [str(number) for number in range(2 * items)]
        self.texts = {
            "de": (texts, np.repeat(self.item_ids, 2)),
            "fr": (texts[1:items][::-1], self.item_ids[1:][::-1]),
        }

    def items(self, rows):
        return [[row] for row in rows], [[100 * row] for row in rows]


class Ranks:
    """Accelerators of `world` ranks, each to be used in a thread of its own."""

    def __init__(self, world):
        self.world, self.given = world, [None] * world
        self.barrier = threading.Barrier(world, timeout=20)

    def __getitem__(self, rank):
        def gather(rows):
            self.given[rank] = rows
            self.barrier.wait()
            gathered = torch.cat(self.given)
            self.barrier.wait()
            return gathered

        return SimpleNamespace(
            process_index=rank,
            num_processes=self.world,
            is_main_process=rank == 0,
            device=torch.device("cpu"),
            gather=gather,
        )


def embedded(world, items, batch_size=4, slots=2):
    ranks = Ranks(world)

    def one(rank):
        return embed_split(Toy(slots), NumberProcessor(), Split(items), ranks[rank], batch_size)

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(one, range(world)))


def equal(one: Embedded, other: Embedded):
    same = [torch.equal(getattr(one, name), getattr(other, name)) for name in ("item_ids", "media_NE", "slots_NKE")]
    for language, both in one.texts.items():
        same += [torch.equal(mine, others) for mine, others in zip(both, other.texts[language], strict=True)]
    return all(same) and one.texts.keys() == other.texts.keys()


@pytest.mark.parametrize("world, items", [(1, 11), (2, 11), (3, 11), (3, 10), (4, 2)])
def test_every_rank_has_all_vectors_once_in_the_order_of_the_data(world, items):
    for embedded_split in embedded(world, items):
        numbers = torch.arange(items, dtype=torch.float32)
        assert embedded_split.item_ids.tolist() == Split(items).item_ids.tolist()
        assert embedded_split.media_NE.tolist() == (numbers[:, None] * torch.tensor([1.0, 2.0])).tolist()
        slots = embedded_split.media_NE + 100 * numbers[:, None]
        assert torch.equal(embedded_split.slots_NKE, slots[:, None].expand(-1, 2, -1))
        de, fr = embedded_split.texts["de"], embedded_split.texts["fr"]
        assert de[0][:, 0].tolist() == list(range(2 * items)) and de[0].dtype == torch.float32
        assert de[1].tolist() == np.repeat(embedded_split.item_ids.numpy(), 2).tolist()
        assert fr[0][:, 0].tolist() == list(range(items - 1, 0, -1))
        assert not embedded_split.media_NE.requires_grad and not de[0].requires_grad
