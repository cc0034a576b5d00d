"""From `training` shards to tensors: rows stay on disk until a step reads them, and pictures are decoded last.

index of samples → samples of a step → rows → frames, texts, descriptions → processor → Batch
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from model.batch import Batch, Media, Texts
from model.modeling import LeccrModel
from model.processing import LeccrProcessor
from pipeline.errors import UsageError
from stages.data.media import UNCHANGED, Augmentation, Frames, check_media, item_frames
from stages.data.samples import (
    HUMAN,
    MACHINE,
    MLLM,
    Shards,
    all_views,
    build_index,
    check_views,
    draw_target,
    no_such_split,
    pair_weight,
    resolve_views,
    select_views,
    source_text,
    split_rows,
)
from stages.data.states import Stored, find_states

ORIGIN_NOTES = {  # of queries, the best first
    HUMAN: "",
    MACHINE: "machine-made texts",
    MLLM: "descriptions, by which items may be found too: this flatters",
}


class TrainingData:
    """The samples of a split of one or more corpora.

    Args:
        corpora: Corpus folders.
        split: Split to train on.
        languages: Target languages; empty for all that the split has.
        source_language: Language of the captions that were translated.
        extra_views: Views that also serve as source captions.
        slot_views: Views that the slots read; empty for all.
        pair_weighting: Whether the quality of a translation weighs its pair.
        human_targets: Whether human texts serve as target texts.
        val_fraction: See `Shards`.

    Raises:
        UsageError: A table, split, language or view is missing.
    """

    def __init__(
        self,
        corpora: Sequence[Path],
        *,
        split: str = "train",
        languages: Sequence[str] = (),
        source_language: str = "en",
        extra_views: Sequence[str] = (),
        slot_views: Sequence[str] = (),
        pair_weighting: bool = True,
        human_targets: bool = True,
        val_fraction: float = 0.0,
    ):
        self.shards = Shards(corpora, val_fraction)
        self.shards.fetch_ahead()
        self.slot_views = resolve_views(self.shards, slot_views)
        self.human_targets = human_targets
        self.index = build_index(
            self.shards, split, languages, source_language, extra_views, self.slot_views, human_targets
        )
        self.languages = self.index.languages
        self.source_language = source_language
        self.pair_weighting = pair_weighting
        self.stored = Stored()  # read in place of pictures and texts

    def __len__(self) -> int:
        return len(self.index)

    def item_id(self, sample: int) -> str:
        """The item of a sample."""
        number, row = int(self.index.shards[sample]), int(self.index.rows[sample])
        return str(self.shards.shard(number).column("item_id")[row].as_py())

    def texts(self, limit: int = 200_000) -> Iterator[str]:
        """Captions and descriptions in the trained languages, to learn a tokenizer from.

        Those of all items, or of about `limit` items spread evenly.
        """
        languages = {self.source_language, *self.languages}
        shards, rows = self.index.shards, self.index.rows
        firsts = np.flatnonzero(np.append(True, (np.diff(shards) != 0) | (np.diff(rows) != 0)))  # sample of each item
        firsts = firsts[:: math.ceil(len(firsts) / limit)]
        for number, row in zip(shards[firsts].tolist(), rows[firsts].tolist(), strict=True):
            shard = self.shards.shard(number)
            for text in shard.column("captions")[row].as_py():
                usable = self.human_targets or text["origin"] != HUMAN or text["language"] == self.source_language
                if usable and text["language"] in languages:
                    yield text["text"]
            yield from select_views(shard.column("descriptions")[row].as_py(), self.slot_views)

    def batch(
        self,
        samples: Sequence[int],
        processor: LeccrProcessor,
        *,
        seed: int,
        epoch: int,
        augmentation: Augmentation = UNCHANGED,
    ) -> Batch:
        """Read samples into tensors.

        The target text drawn for a sample, and how its pictures change, depend only on (seed, epoch, sample).
        """
        media, source, targets, views, ids, weights, places = [], [], [], [], [], [], []
        source_places, target_places = list[tuple[int, int, int | None]](), list[tuple[int, int, int | None]]()
        size, input_dim, stored = processor.policy.image_size, processor.policy.input_dim, self.stored
        for sample in map(int, samples):
            number, place = int(self.index.shards[sample]), int(self.index.rows[sample])
            row = self.shards.row(number, place, media=not stored.media)
            self.shards.check_unchanged(number)
            random = np.random.default_rng([seed, epoch, sample])
            source_place = int(self.index.texts[sample])
            source_id, text = source_text(row, source_place)
            target = draw_target(row, source_id, self.languages, random, self.human_targets)
            if not stored.media:
                frames = item_frames(self.shards, number, row, augmentation.pixels(size), input_dim)
                media.append(augmentation.apply(frames, size, random))
            source.append(text)
            targets.append(target["text"] if target else "")
            views.append(select_views(row["descriptions"], self.slot_views))
            ids.append(content_id(row["sha256"]))
            weights.append(pair_weight(target, self.pair_weighting))
            places.append((number, place))
            source_places.append((number, place, source_place))
            target_number = next((i for i, caption in enumerate(row["captions"]) if caption is target), None)
            target_places.append((number, place, target_number))
        return Batch(
            stored.media.media(places) if stored.media else processor.media(media),
            stored.texts(source_places) if stored.captions else processor.texts(source),
            stored.texts(target_places) if stored.captions else processor.texts(targets),
            stored.descriptions.descriptions(places) if stored.descriptions else processor.descriptions(views),
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor(weights, dtype=torch.float32),
        )


@dataclasses.dataclass(eq=False)
class StepBatches(Dataset[Batch]):
    """`batches[i]` is this rank's batch of step i + 1 of the run, so loader workers can fetch them in any order.

    Attributes:
        data: The samples.
        processor: Turns them into tensors.
        batch_size: Samples per step over all ranks.
        seed: Of order and drawn texts.
        augmentation: How pictures change at random.
        rank: This rank.
        world: Number of ranks, see `check_batch_size`.
    """

    data: TrainingData
    processor: LeccrProcessor
    batch_size: int
    seed: int = 0
    augmentation: Augmentation = UNCHANGED
    rank: int = 0
    world: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch."""
        return len(self.data) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        samples, epoch = self._samples(step, self.rank, self.world), step // self.steps_per_epoch
        return self.data.batch(samples, self.processor, seed=self.seed, epoch=epoch, augmentation=self.augmentation)

    def item_ids(self, step: int) -> list[str]:
        """The items of a step's whole batch, over all ranks."""
        return sorted({self.data.item_id(sample) for sample in self._samples(step, 0, 1)})

    def _samples(self, step: int, rank: int, world: int) -> list[int]:
        epoch, place = divmod(step, self.steps_per_epoch)
        samples = step_samples(
            len(self.data), self.batch_size, seed=self.seed, epoch=epoch, step=place, rank=rank, world=world
        )
        return list(map(int, samples))


def check_batch_size(samples: int, batch_size: int, world: int) -> None:
    """Raise UsageError if an epoch has not a single whole batch, or the ranks cannot share a batch evenly."""
    if batch_size > samples:
        raise UsageError(f"batch_size={batch_size}: there are only {samples:,} samples. Set a smaller one, or add data")
    if batch_size % world:
        raise UsageError(f"batch_size={batch_size}: {world:,} processes share a multiple of {world:,} evenly")


def step_samples(
    samples: int, batch_size: int, *, seed: int, epoch: int, step: int, rank: int = 0, world: int = 1
) -> np.ndarray:
    """Samples of a rank in step `step` (from 0) of an epoch, [batch_size / world] uint32.

    A pure function of its arguments, so that a run resumes where it stopped. An epoch is a permutation of all samples;
    a step takes the next batch of it, and a rank its slice of the batch. The remainder of an epoch is left out.

    >>> [step_samples(7, 4, seed=0, epoch=0, step=0, rank=rank, world=2).tolist() for rank in (0, 1)]
    [[0, 5], [1, 6]]
    >>> step_samples(7, 4, seed=0, epoch=0, step=0).tolist()
    [0, 5, 1, 6]
    """
    size = batch_size // world
    start = step * batch_size + rank * size
    return _permutation(samples, seed, epoch)[start : start + size]


@functools.lru_cache(maxsize=2)
def _permutation(samples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch, 4 bytes per sample."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(np.arange(samples, dtype=np.uint32))


class EvaluationData:
    """A split to score: every item once, and per language the texts with the item of each.

    Uses human texts where a language has any in the split, else translations, with a note. The same content in two
    corpora is one item.

    Attributes:
        item_ids: [N] int64 content ids.
        item_names: Item ids of the corpus, in the same order.
        texts: By language the texts, and [M] int64 the item of each.
        caption_ids: By language the id of each text.
        notes: Messages for the user.

    Args:
        corpora: Corpus folders.
        split: The split.
        languages: Languages to score; empty for all that the split has, but for those that only descriptions are in.
        slot_views: Views that the slots read; empty for all.
        val_fraction: See `Shards`.

    Raises:
        UsageError: A table, split, language or view is missing.
    """

    def __init__(
        self,
        corpora: Sequence[Path],
        split: str,
        languages: Sequence[str] = (),
        slot_views: Sequence[str] = (),
        val_fraction: float = 0.0,
    ):
        self.shards, self.split = Shards(corpora, val_fraction), split
        self.shards.fetch_ahead()
        self.input_dim: int | None = None  # see `expect`
        self.slot_views = resolve_views(self.shards, slot_views)
        if slot_views:
            check_views(self.shards, "slot_views", slot_views, all_views(self.shards))
        self.item_names: list[str] = []
        self.places: list[tuple[int, int]] = []
        contents: dict[int, None] = {}
        # By language: origin, id, text, item, place of the text.
        captions: dict[str, list[tuple[str, str, str, int, tuple[int, int, int]]]] = {}
        for number, row, item in split_rows(self.shards, split):
            content = content_id(item["sha256"])
            if content not in contents:
                contents[content] = None
                self.item_names.append(item["item_id"])
                self.places.append((number, row))
            for place, caption in enumerate(item["captions"]):
                texts = captions.setdefault(caption["language"], [])
                texts.append((caption["origin"], caption["caption_id"], caption["text"], content, (number, row, place)))
        if not contents:
            raise no_such_split(self.shards, split)
        self.item_ids = np.array(list(contents), np.int64)
        if (missing := sorted(set(languages) - captions.keys())) or not captions:
            has = ", ".join(sorted(captions)) or "no language"
            raise UsageError(f"languages={','.join(missing)}: split {split!r} has texts in {has}")
        self.caption_ids: dict[str, list[str]] = {}
        self.texts: dict[str, tuple[list[str], np.ndarray]] = {}
        self.stored = Stored()  # read in place of pictures and texts
        self._text_places: dict[str, tuple[tuple[int, int, int], ...]] = {}
        self.notes: list[str] = []
        spoken = [language for language in sorted(captions) if any(row[0] != MLLM for row in captions[language])]
        for language in list(languages) or spoken:
            present = {row[0] for row in captions[language]}
            best = next(origin for origin in ORIGIN_NOTES if origin in present)
            texts = [row for row in captions[language] if row[0] == best]
            _, ids, strings, items, places = zip(*texts, strict=True)
            self._text_places[language] = places
            self.caption_ids[language] = list(ids)
            self.texts[language] = list(strings), np.array(items, np.int64)
            if note := ORIGIN_NOTES[best]:
                self.notes.append(f"{language}: no human text in split {split}: scored on {note}")

    def expect(self, processor: Any, model: str) -> None:
        """Check that the split has media that this processor reads; raises UsageError naming the model."""
        self.input_dim = getattr(getattr(processor, "policy", None), "input_dim", 0)
        check_media(self.shards, [self.split], model, self.input_dim)

    def use_stored(self, model: Any, processor: Any) -> None:
        """Read what training has stored with the corpora of the model's encoders."""
        if isinstance(model, LeccrModel):
            self.stored = find_states(self.shards, model, processor, self.slot_views)

    def items(self, rows: Sequence[int]) -> tuple[list[Frames], list[list[str]]]:
        """Frames and descriptions of these items."""
        frames, descriptions = [], []
        for place in rows:
            number, row = self.places[place]
            item = self.shards.row(number, row)
            frames.append(item_frames(self.shards, number, item, input_dim=self.input_dim))
            descriptions.append(select_views(item["descriptions"], self.slot_views))
        return frames, descriptions

    def load_items(self, rows: Sequence[int], processor: Any) -> tuple[Media, Texts]:
        """These items as tensors: media, and descriptions."""
        media, descriptions = self.stored.media, self.stored.descriptions
        places = [self.places[row] for row in rows]
        if media and descriptions:
            return media.media(places), descriptions.descriptions(places)
        frames, views = self.items(rows)
        return (
            media.media(places) if media else processor.media(frames),
            descriptions.descriptions(places) if descriptions else processor.descriptions(views),
        )

    def load_texts(self, language: str, rows: Sequence[int], processor: Any) -> Texts:
        """These texts of a language as tensors."""
        if self.stored.captions:
            return self.stored.texts([self._text_places[language][row] for row in rows])
        return processor.texts([self.texts[language][0][row] for row in rows])


def content_id(sha256: str) -> int:
    """The first eight bytes of a content hash as int64: the same picture in two corpora is one item."""
    return int.from_bytes(bytes.fromhex(sha256[:16]), "big", signed=True)
