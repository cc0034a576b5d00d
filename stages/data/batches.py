"""From `training` shards to tensors. Rows stay on disk until a step wants them; pictures are decoded last.

index of samples → rows of a step → frames, texts, descriptions → processor → Batch

An item's frames are pictures, or the rows of an array of features that were computed before.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageOps

from model.batch import Batch, Texts
from model.processing import LeccrProcessor
from pipeline.errors import UsageError
from stages.data.features import check_media, wanted_dim
from stages.data.media import Frames, item_frames
from stages.data.samples import (
    ALL,
    HUMAN,
    MACHINE,
    Shards,
    all_views,
    build_index,
    check_views,
    no_such_split,
    rows_of,
    select_views,
    sources,
    target,
    weight,
)
from stages.data.states import States


class TrainingData:
    """Samples of a split of one or more corpora. `slot_views`: whose descriptions feed the slots; none: every view.

    Raises UsageError for a corpus without the table, a split without rows, languages or views that are not there.
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
        states: States | None = None,
    ):
        self.shards = Shards(corpora)
        self.slot_views = tuple(slot_views) or (ALL,)
        self.human_targets = human_targets
        self.index = build_index(
            self.shards, split, languages, source_language, extra_views, self.slot_views, human_targets
        )
        self.source_language = source_language
        self.by_quality = pair_weighting
        self.states = states

    def __len__(self) -> int:
        return len(self.index)

    @property
    def languages(self) -> tuple[str, ...]:
        return self.index.languages

    @property
    def notes(self) -> tuple[str, ...]:
        return self.index.notes

    def item_id(self, sample: int) -> str:
        number, row = int(self.index.shards[sample]), int(self.index.rows[sample])
        return self.shards.shard(number).column("item_id")[row].as_py()

    def texts(self, most: int = 200_000) -> Iterator[str]:
        """Texts of the split in the languages that are trained, its descriptions too, for a tokenizer to learn: those
        of all items, or of about `most` spread evenly.
        """
        known = {self.source_language, *self.languages}
        for number, row in self._rows(most):
            shard = self.shards.shard(number)
            yield from (
                text["text"]
                for text in shard.column("captions")[row].as_py()
                if text["language"] in known
                and (self.human_targets or text["origin"] == MACHINE or text["language"] == self.source_language)
            )
            yield from select_views(shard.column("descriptions")[row].as_py(), self.slot_views)

    def _rows(self, most: int) -> Iterator[tuple[int, int]]:
        """(shard, row) of items: the samples of a row lie one after the other."""
        shards, rows = self.index.shards, self.index.rows
        firsts = np.flatnonzero(np.append(True, (np.diff(shards) != 0) | (np.diff(rows) != 0)))
        firsts = firsts[:: math.ceil(len(firsts) / most)]
        return zip(shards[firsts].tolist(), rows[firsts].tolist(), strict=True)

    def batch(
        self, samples: Sequence[int], processor: LeccrProcessor, *, seed: int, epoch: int, augment: float = 0.0
    ) -> Batch:
        """What is drawn for a sample (language, text) depends on (seed, epoch, sample) alone, and so does whether it is
        mirrored, with probability `augment`; features are not.
        """
        media, source, targets, views, ids, weights, places = [], [], [], [], [], [], []
        size, input_dim = processor.policy.image_size, wanted_dim(processor)
        for sample in map(int, samples):
            number, place = int(self.index.shards[sample]), int(self.index.rows[sample])
            row = self.shards.row(number, place)
            random = np.random.default_rng([seed, epoch, sample])
            source_id, text = sources(row, int(self.index.texts[sample]))
            pair = target(row, source_id, self.languages, random, self.human_targets)
            turned = random.random() < augment
            frames = item_frames(self.shards, number, row, size, input_dim)
            turns = turned and not isinstance(frames, np.ndarray)
            media.append([ImageOps.mirror(frame) for frame in frames] if turns else frames)
            source.append(text)
            targets.append(pair["text"] if pair else "")
            views.append(select_views(row["descriptions"], self.slot_views))
            ids.append(content_id(row["sha256"]))
            weights.append(weight(pair, self.by_quality))
            places.append((number, place))
        return Batch(
            processor.media(media),
            processor.texts(source, training=True),
            processor.texts(targets, training=True),
            self._descriptions(processor, views, places),
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor(weights, dtype=torch.float32),
        )

    def _descriptions(
        self, processor: LeccrProcessor, views: Sequence[Sequence[str]], places: Sequence[tuple[int, int]]
    ) -> Texts:
        return self.states.texts(places) if self.states else processor.descriptions(views)


class EvaluationData:
    """A split to be scored: every item once, and by language the texts with the item that each is of.

    `languages`: none given, all that the split has. Human texts where a language has any in this split, else
    translations, and `notes` says so. The same content in two corpora is one item. Raises UsageError likewise.
    """

    def __init__(
        self, corpora: Sequence[Path], split: str, languages: Sequence[str] = (), slot_views: Sequence[str] = ()
    ):
        self.shards, self.split = Shards(corpora), split
        self.input_dim: int | None = None  # see `expect`
        self.slot_views = tuple(slot_views) or (ALL,)
        if slot_views:
            check_views(self.shards, "slot_views", slot_views, all_views(self.shards))
        self.item_names: list[str] = []
        self.places: list[tuple[int, int]] = []
        self.notes: list[str] = []
        ids: dict[int, None] = {}
        found: dict[str, dict[bool, list[tuple[str, str, int]]]] = {}  # by language, human or not: id, text, item
        for number, row, item in rows_of(self.shards, split):
            content = content_id(item["sha256"])
            if content not in ids:
                ids[content] = None
                self.item_names.append(item["item_id"])
                self.places.append((number, row))
            for caption in item["captions"]:
                by_origin = found.setdefault(caption["language"], {True: [], False: []})
                by_origin[caption["origin"] == HUMAN].append((caption["caption_id"], caption["text"], content))
        if not ids:
            raise no_such_split(self.shards, split, self._splits)
        self.item_ids = np.array(list(ids), np.int64)
        chosen = self._chosen(languages, found, split)
        rows = {language: found[language][True] or found[language][False] for language in chosen}
        self.caption_ids = {language: [row[0] for row in texts] for language, texts in rows.items()}
        self.texts = {
            language: ([row[1] for row in texts], np.array([row[2] for row in texts], np.int64))
            for language, texts in rows.items()
        }
        for language in chosen:
            if not found[language][True]:
                self.notes.append(f"{language}: no human text in split {split}: scored on machine-made ones")

    @cached_property
    def _splits(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for number in range(len(self.shards)):
            for name in self.shards.shard(number).column("split").to_pylist():
                counts[name] = counts.get(name, 0) + 1
        return counts

    def _chosen(self, wanted: Sequence[str], found: dict[str, Any], split: str) -> list[str]:
        missing = [language for language in wanted if language not in found]
        has = ", ".join(sorted(found)) or "none"
        if missing or not found:
            raise UsageError(
                f"languages: got {', '.join(missing) or 'none'}, split {split!r} has texts in {has}: name some of "
                "those, or pack a corpus that has the others"
            )
        return list(wanted) or sorted(found)

    def expect(self, processor: Any, model: str) -> None:
        """Media as this processor takes them. Raises UsageError, which names the model, where the split has others."""
        self.input_dim = wanted_dim(processor)
        if self.input_dim is not None:
            check_media(self.shards, [self.split], model, self.input_dim)

    def items(self, rows: Sequence[int]) -> tuple[list[Frames], list[list[str]]]:
        """Frames and descriptions of these items."""
        frames, descriptions = [], []
        for place in rows:
            number, row = self.places[place]
            item = self.shards.row(number, row)
            frames.append(item_frames(self.shards, number, item, input_dim=self.input_dim))
            descriptions.append(select_views(item["descriptions"], self.slot_views))
        return frames, descriptions


def content_id(sha256: str) -> int:
    """The first eight bytes of a content hash as int64: one picture in two corpora is one item."""
    return int.from_bytes(bytes.fromhex(sha256[:16]), "big", signed=True)
