"""A split as vectors: every rank encodes its share, and all of them end with all.

N items · M texts · E shared width · K slots · L rows of one rank
"""

import concurrent.futures
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from model.batch import Media, Texts
from pipeline.engine.progress import PLAIN_S, REDRAW_S, duration
from pipeline.errors import PipelineError


class EvaluationView(Protocol):
    """A split to be scored, in the same order on every rank."""

    @property
    def item_ids(self) -> Any:
        """[N] int64, distinct."""

    @property
    def texts(self) -> Mapping[str, tuple[Sequence[str], Any]]:
        """By language the texts, and [M] int64 the item of each."""

    def items(self, rows: Sequence[int]) -> tuple[Sequence[Sequence[Any]], Sequence[Sequence[str]]]:
        """Frames and descriptions of these items."""


class Encoder(Protocol):
    """`LeccrModel`, or a baseline."""

    training: bool

    def train(self, mode: bool = True) -> Any: ...
    def encode_media(self, media: Media, descriptions: Texts) -> tuple[Tensor, Tensor]: ...
    def encode_text(self, texts: Texts) -> Tensor: ...


class Processor(Protocol):
    def media(self, items: Sequence[Sequence[Any]]) -> Media: ...
    def texts(self, texts: Sequence[str], training: bool = False) -> Texts: ...
    def descriptions(self, items: Sequence[Sequence[str]]) -> Texts: ...


@dataclasses.dataclass(frozen=True)
class Embedded:
    """On the processor, float32, the same on every rank; rows in the data's order."""

    item_ids: Tensor  # [N] int64
    media_NE: Tensor
    slots_NKE: Tensor  # K = 0 without slots
    texts: dict[str, tuple[Tensor, Tensor]]  # by language: [M,E], and [M] int64, the item of each

    def language(self, language: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `ranking.ranks` is given for a language: its texts, and the items that have one."""
        text_ME, items_M = self.texts[language]
        keep_N = torch.isin(self.item_ids, items_M)
        return text_ME, items_M, self.media_NE[keep_N], self.item_ids[keep_N], self.slots_NKE[keep_N]


def embed_split(
    model: Encoder, processor: Processor, data: EvaluationView, accelerator: Accelerator, batch_size: int
) -> Embedded:
    """Encode a split in float32, `batch_size` items or texts at once on each rank. The model's mode is as before."""
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad(), torch.autocast(accelerator.device.type, enabled=False):
            return _embed(model, processor, data, accelerator, batch_size)
    finally:
        model.train(was_training)


def _embed(
    model: Encoder, processor: Processor, data: EvaluationView, accelerator: Accelerator, batch_size: int
) -> Embedded:
    device = accelerator.device

    def load_media(rows: list[int]) -> tuple[Media, Texts]:
        frames, descriptions = data.items(rows)
        return processor.media(frames), processor.descriptions(descriptions)

    def encode_media(loaded: tuple[Media, Texts]) -> tuple[Tensor, ...]:
        media, descriptions = loaded
        return model.encode_media(
            Media(*(it.to(device) for it in media)), Texts(*(it.to(device) for it in descriptions))
        )

    share = Share(accelerator, batch_size)
    item_ids = torch.from_numpy(np.array(data.item_ids, np.int64))
    media_NE, slots_NKE = share.encode("items", item_ids, range(len(item_ids)), load_media, encode_media)
    texts = {}
    for language, (strings, items) in data.texts.items():

        def load_texts(rows: list[int], strings: Sequence[str] = strings) -> Texts:
            return processor.texts([strings[row] for row in rows])

        def encode_texts(loaded: Texts) -> tuple[Tensor]:
            return (model.encode_text(Texts(*(it.to(device) for it in loaded))),)

        by_length = np.argsort([len(text) for text in strings], kind="stable").tolist()  # less padding
        numbers = torch.arange(len(strings))
        (text_ME,) = share.encode(f"texts in {language}", numbers, by_length, load_texts, encode_texts)
        texts[language] = text_ME, torch.from_numpy(np.array(items, np.int64))
    return Embedded(item_ids, media_NE, slots_NKE, texts)


class Share:
    """This rank's part of the work, and the exchange of results."""

    def __init__(self, accelerator: Accelerator, batch_size: int):
        self.accelerator, self.batch_size = accelerator, batch_size

    def encode(
        self,
        what: str,
        ids: Tensor,
        order: Sequence[int],
        load: Callable[[list[int]], Any],
        encode: Callable[[Any], tuple[Tensor, ...]],
    ) -> list[Tensor]:
        """Vectors of all rows, in the order of `ids`; `order`: in which rows are encoded.

        Ranks have equally many rows, the last ones again where the split does not divide: doubles go by their id.
        """
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        length = math.ceil(len(ids) / world)
        mine = [order[min(place * world + rank, len(ids) - 1)] for place in range(length)]
        batches = [mine[start : start + self.batch_size] for start in range(0, length, self.batch_size)]
        progress = _Progress(what, length, self.accelerator.is_main_process)
        parts = []
        for batch, loaded in zip(batches, _ahead(load, batches), strict=True):
            parts.append([vectors.float() for vectors in encode(loaded)])
            progress.add(len(batch))
        found_ids = self._gathered(ids[mine])
        vectors = [self._gathered(torch.cat(column)) for column in zip(*parts, strict=True)]
        return [_in_order(what, ids, found_ids, rows) for rows in vectors]

    def _gathered(self, rows: Tensor) -> Tensor:
        return self.accelerator.gather(rows.to(self.accelerator.device)).cpu()


def _in_order(what: str, ids: Tensor, found_ids: Tensor, rows: Tensor) -> Tensor:
    """One row of each id, in the order of `ids`."""
    first = {number: row for row, number in reversed(list(enumerate(found_ids.tolist())))}
    if first.keys() != set(ids.tolist()) or len(first) != len(ids):
        raise PipelineError(
            f"{len(first):,} {what} came back from all processes, {len(ids):,} were wanted: do all of them read the "
            "same corpus?"
        )
    return rows[[first[number] for number in ids.tolist()]]


def _ahead(load: Callable[[list[int]], Any], batches: Sequence[list[int]]) -> Iterator[Any]:
    """Loaded batches; the next one is loaded while this one is encoded."""
    with concurrent.futures.ThreadPoolExecutor(1, "loading") as pool:
        coming = pool.submit(load, batches[0]) if batches else None
        for batch in [*batches[1:], None]:
            if coming is None:
                return
            loaded = coming.result()
            coming = pool.submit(load, batch) if batch is not None else None
            yield loaded


class _Progress:
    """On rank 0's standard error: a line drawn over and over on a terminal, now and then a plain one elsewhere."""

    def __init__(self, what: str, total: int, is_main: bool):
        self.what, self.total, self.done, self.is_main = what, total, 0, is_main
        self.terminal = is_main and sys.stderr.isatty()
        self.started = self.shown = time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        ended = self.terminal and self.done == self.total
        if not self.is_main or (now - self.shown < (REDRAW_S if self.terminal else PLAIN_S) and not ended):
            return
        self.shown = now
        rate = self.done / max(now - self.started, 1e-9)
        left = duration((self.total - self.done) / rate)
        line = f"{self.what}: {self.done:,}/{self.total:,} encoded on this process · {rate:,.1f}/s · ETA {left}"
        sys.stderr.write(("\r\x1b[K" if ended else f"\r{line}\x1b[K") if self.terminal else f"{line}\n")
        sys.stderr.flush()
