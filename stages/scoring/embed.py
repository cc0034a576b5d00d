"""A split as vectors: every rank encodes its share, and all of them end with all vectors.

N items · M texts · E shared width · K slots · L rows of one rank
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from model.batch import Media, Texts, to_device
from model.fusion import Fusion
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from pipeline.engine.progress import ProgressLine
from pipeline.errors import PipelineError
from stages.data.batches import EvaluationData
from stages.data.media import load_ahead
from stages.scoring.baselines import Baseline


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A split as vectors, on the CPU, float32, the same on every rank; rows in the order of the data.

    Attributes:
        item_ids: [N] int64.
        media_NE: The items' own vectors.
        slots_NKE: Slots; K = 0 without any.
        texts: By language: vectors [M,E], and [M] int64, the item of each.
        views: Names of the slots that are views, not yet fused: zeros where a view is absent.
        log_shares_NK: Of slots that are fused by logsumexp, the logarithms of their weights.
    """

    item_ids: Tensor
    media_NE: Tensor
    slots_NKE: Tensor
    texts: dict[str, tuple[Tensor, Tensor]]
    views: tuple[str, ...] = ()
    log_shares_NK: Tensor | None = None

    def language(self, language: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """The arguments of `ranking.ranked` for a language: its texts, and the items that have one."""
        text_ME, items_M = self.texts[language]
        keep_N = torch.isin(self.item_ids, items_M)
        shares_NK = None if self.log_shares_NK is None else self.log_shares_NK[keep_N]
        return text_ME, items_M, self.media_NE[keep_N], self.item_ids[keep_N], self.slots_NKE[keep_N], shares_NK

    def fused(self, fusion: Fusion) -> "Embedded":
        """The same with slots that can be ranked: views weighed and pooled. Other slots stay as they are."""
        if not self.views:
            return self
        slots_NKE, log_shares_NK = fusion.slots(self.slots_NKE, self.media_NE, self.views)
        return dataclasses.replace(self, slots_NKE=slots_NKE, log_shares_NK=log_shares_NK, views=())

    def only(self, item_ids: Tensor) -> "Embedded":
        """The same with these items only, and the languages that have a text of them."""
        keep_N = torch.isin(self.item_ids, item_ids)
        texts = {}
        for language, (text_ME, items_M) in self.texts.items():
            keep_M = torch.isin(items_M, item_ids)
            if keep_M.any():
                texts[language] = text_ME[keep_M], items_M[keep_M]
        return dataclasses.replace(
            self,
            item_ids=self.item_ids[keep_N],
            media_NE=self.media_NE[keep_N],
            slots_NKE=self.slots_NKE[keep_N],
            texts=texts,
            log_shares_NK=None if self.log_shares_NK is None else self.log_shares_NK[keep_N],
        )


def embed_split(
    model: LeccrModel | Baseline,
    processor: LeccrProcessor,
    data: EvaluationData,
    accelerator: Accelerator,
    batch_size: int,
) -> Embedded:
    """Encode a split in float32, views of its items not yet fused; afterwards the model is in the mode it was in.

    Args:
        model: The encoder, on the accelerator's device.
        processor: Its processor.
        data: The split.
        accelerator: The ranks.
        batch_size: Items, or texts, that each rank encodes at once.
    """
    was_training, device = model.training, accelerator.device

    def load_media(rows: list[int]) -> tuple[Media, Texts]:
        return data.load_items(rows, processor)

    def encode_media(loaded: tuple[Media, Texts]) -> tuple[Tensor, ...]:
        media, descriptions = loaded
        return model.encode_media(to_device(media, device), to_device(descriptions, device), fused=False)

    def encode_texts(loaded: Texts) -> tuple[Tensor]:
        return (model.encode_text(to_device(loaded, device)),)

    encode_all = functools.partial(encode_rows, accelerator, batch_size)
    item_ids = torch.from_numpy(np.array(data.item_ids, np.int64))
    texts = {}
    model.train(False)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            media_NE, slots_NKE = encode_all("items", item_ids, range(len(item_ids)), load_media, encode_media)
            for language, (strings, items) in data.texts.items():

                def load_texts(rows: list[int], language: str = language) -> Texts:
                    return data.load_texts(language, rows, processor)

                by_length = np.argsort([len(text) for text in strings], kind="stable").tolist()  # less padding
                numbers = torch.arange(len(strings))
                (text_ME,) = encode_all(f"texts in {language}", numbers, by_length, load_texts, encode_texts)
                texts[language] = text_ME, torch.from_numpy(np.array(items, np.int64))
    finally:
        model.train(was_training)
    num_slots = slots_NKE.shape[1] if model.slots_are_views else 0
    names = (*data.slot_views, *[""] * num_slots)[:num_slots]  # one without a name where no item has a description
    return Embedded(item_ids, media_NE, slots_NKE, texts, names)


def encode_rows(
    accelerator: Accelerator,
    batch_size: int,
    what: str,
    ids: Tensor,
    order: Sequence[int],
    load: Callable[[list[int]], Any],
    encode: Callable[[Any], tuple[Tensor, ...]],
) -> list[Tensor]:
    """Encode rows on all ranks, each a share of them.

    Ranks have equally many rows: where the split does not divide, the last ones are encoded twice, and the doubles are
    dropped by their id.

    Args:
        accelerator: The ranks.
        batch_size: Rows that each rank encodes at once.
        what: Name of the rows for the progress display.
        ids: A number [N] for each row, distinct.
        order: Rows in the order in which they are encoded.
        load: Loads these rows as a batch, in a thread.
        encode: Encodes a batch to vectors, one tensor for each kind.

    Returns:
        The vectors of each kind, in the order of `ids`, on the CPU.

    Raises:
        PipelineError: The ranks read different rows.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    length = math.ceil(len(ids) / world)
    mine = [order[min(place * world + rank, len(ids) - 1)] for place in range(length)]
    batches = [mine[start : start + batch_size] for start in range(0, length, batch_size)]
    parts = []
    with ProgressLine(length, what, visible=accelerator.is_main_process) as progress:
        for batch, loaded in zip(batches, load_ahead(load, batches), strict=True):
            parts.append([vectors.float() for vectors in encode(loaded)])
            progress.update(progress.done + len(batch))
    columns = [ids[mine], *(torch.cat(column) for column in zip(*parts, strict=True))]
    gathered_ids, *vectors = (accelerator.gather(rows.to(accelerator.device)).cpu() for rows in columns)
    first = {number: row for row, number in reversed(list(enumerate(gathered_ids.tolist())))}
    if first.keys() != set(ids.tolist()) or len(first) != len(ids):
        raise PipelineError(f"processes encoded {len(first):,} of {len(ids):,} {what}: do all read one corpus?")
    places = [first[number] for number in ids.tolist()]
    return [rows[places] for rows in vectors]
