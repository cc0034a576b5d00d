"""`--stage embed`: encode every packed item with its descriptions and captions, write `vectors`.

    training → what no earlier run has encoded → media in threads, a batch ahead → vectors of parts

Vectors of an earlier run are used again where the same model encoded the same content. None depends on other items, nor
on the split, views, late fusion and storage that an index chooses.
"""

import argparse
import asyncio
import concurrent.futures
import dataclasses
import io
import queue
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipeline.corpus.schema import TrainingDescription, TrainingRow
from pipeline.corpus.table import Table
from pipeline.engine.stage import Failure, Outcome, Progress, Row, Rows, Run, Say, ShardTask, Stage
from pipeline.errors import MediaError, UsageError
from pipeline.hashing import canonical_json, short_hash, stream_hash
from pipeline.media.features import MAGIC
from pipeline.media.uri import MediaThreads
from pipeline.options import option, read_options
from stages.data.samples import PARTS, human_captions
from stages.driver import RunOptions, run_stages

if TYPE_CHECKING:
    from stages.data.media import Frames
    from stages.retrieval.encoders import Space

TEXT_PARTS = ("view", "caption")  # whose vectors depend only on their text
MAX_LENGTH = 1e4  # longest valid vector: far longer than an encoder's, and within float16


@dataclasses.dataclass(frozen=True)
class EmbedOptions:
    """What encodes the items."""

    checkpoint: str = option("embedded", "a run folder, a model folder, a name on the Hub, or embedded")
    slot_views: tuple[str, ...] = option((), "views that the model reads (default: those of its training, or all)")
    batch_size: int = option(32, "items encoded at once on each device", at_least=1)


@dataclasses.dataclass(frozen=True)
class Embed(Stage):
    """Settings of the stage, from `of`.

    Attributes:
        checkpoint: Where the model is.
        model: Its fingerprint.
        width: Of its vectors.
        slot_views: Views that an item's own vectors depend on; empty for all, None if they depend on none.
        batch_size: Items encoded at once.
    """

    checkpoint: str
    model: str
    width: int
    slot_views: tuple[str, ...] | None
    batch_size: int

    name = "embed"
    tables = ("vectors",)
    parents = ("training",)
    records_per_item = 1

    @classmethod
    def of(cls, space: "Space", batch_size: int, slot_views: tuple[str, ...] = ()) -> Self:
        """The stage for a space, in which the model reads other views than that says."""
        views = slot_views or space.slot_views if space.reads_views else None
        return cls(space.identity["name"], space.model, space.width, views, batch_size)

    def arguments(self) -> list[str]:
        """Its options on the command line."""
        views = ["--slot-views", ",".join(self.slot_views)] if self.slot_views else []
        return ["--checkpoint", self.checkpoint, "--batch-size", str(self.batch_size), *views]

    def settings(self) -> dict[str, Any]:
        """Everything that decides a vector, apart from what is encoded."""
        views = None if self.slot_views is None else list(self.slot_views)
        return {"model": self.model, "width": self.width, "slot_views": views, "parts": list(PARTS)}

    def keeps(self, settings: dict[str, Any]) -> bool:
        """Vectors, if only parts of items were not encoded then."""
        return {**settings, "parts": list(PARTS)} == self.settings()

    def plan(self, corpus: Path, say: Say) -> tuple[int, int]:
        """Shards and items of `training`."""
        training = Table(corpus, "training")
        return training.num_shards, training.num_rows

    def notes(self, corpus: Path) -> dict[str, Any]:
        """`checkpoint`: where the model was."""
        return {"checkpoint": self.checkpoint}

    async def open(self, run: Run, progress: Progress) -> "EmbedWorker":
        """Load the model on every device."""
        return EmbedWorker(self, await asyncio.to_thread(self._spaces), progress)

    def _spaces(self) -> "list[Space]":
        import torch

        from stages.retrieval.encoders import open_space

        kind = torch.accelerator.current_accelerator()
        devices = (
            [torch.device(kind.type, number) for number in range(torch.accelerator.device_count())] if kind else []
        )
        spaces = []
        for device in devices or [torch.device("cpu")]:
            space = open_space(self.checkpoint)
            if space.model != self.model:
                raise UsageError(
                    f"--checkpoint {self.checkpoint} is {space.model} on this worker, and {self.model} where the run "
                    "was started. Give both the same files"
                )
            space.to(device)
            spaces.append(space)
        return spaces


def main(parsed: argparse.Namespace, beam_arguments: list[str]) -> int:
    """Run the stage; returns the exit status."""
    run, options = read_options(RunOptions, parsed), read_options(EmbedOptions, parsed)
    Table(run.corpus, "training")  # before the model is loaded

    def open_stages() -> list[Stage]:
        from stages.retrieval.encoders import open_space

        return [Embed.of(open_space(options.checkpoint), options.batch_size, options.slot_views)]

    return run_stages(run, beam_arguments, open_stages)


class EmbedWorker:
    """Encodes shard by shard, one on each device at a time."""

    def __init__(self, stage: Embed, spaces: "Sequence[Space]", progress: Progress):
        self.ahead = len(spaces) + 1  # the next shard is read meanwhile
        self._stage, self._progress = stage, progress
        self._idle: queue.SimpleQueue[Space] = queue.SimpleQueue()
        for space in spaces:
            self._idle.put(space)
        self._devices = concurrent.futures.ThreadPoolExecutor(len(spaces), "embed")
        self._media = MediaThreads("frames")

    async def shard(self, task: ShardTask) -> list[Outcome]:
        """Encode what is new in a shard."""
        return await asyncio.get_running_loop().run_in_executor(self._devices, self._outcomes, task)

    def _outcomes(self, task: ShardTask) -> list[Outcome]:
        items, texts = self._reusable(task)
        contents = [self._content(row) for row in task.rows]
        new = [row for row, content in zip(task.rows, contents, strict=True) if content not in items]
        self._progress.counts["items"] += len(task.rows) - len(new)
        space = self._idle.get()
        try:
            errors = self._encode_items(space, new, items)
            all_texts = {text["text"] for row in task.rows for text in row["descriptions"]}
            self._encode_texts(space, all_texts.union(*(human_captions(row["captions"]) for row in task.rows)), texts)
        finally:
            self._idle.put(space)
        outcomes = []
        for row, content in zip(task.rows, contents, strict=True):
            item_id = row["item_id"]
            if error := errors.get(item_id):
                outcomes.append(Outcome({}, [Failure(item_id, error.kind, str(error))]))
                continue
            views = [texts[short_hash(text["text"])] | {"view": text["view"]} for text in row["descriptions"]]
            parts = [*items[content], *(of | {"part": "view"} for of in views)]
            for text, language in human_captions(row["captions"]).items():
                parts.append(texts[short_hash(text)] | {"part": "caption", "view": language})
            outcomes.append(Outcome({"vectors": [part | {"item_id": item_id} for part in parts]}))
        return outcomes

    def _reusable(self, task: ShardTask) -> tuple[dict[str, Rows], dict[str, Row]]:
        """Rows of an earlier run by their content: those of items with their slots, and those of texts."""
        items, texts = dict[str, Rows](), dict[str, Row]()
        for tables in task.previous.values():
            rows = [row for row in tables["vectors"] if row["model"] == self._stage.model]
            of_item = [row for row in rows if row["part"] not in TEXT_PARTS]
            items |= {row["content"]: of_item for row in of_item}
            texts |= {row["content"]: row for row in rows if row["part"] in TEXT_PARTS}
        return items, texts

    def _encode_items(self, space: "Space", rows: Rows, items: dict[str, Rows]) -> dict[str, MediaError]:
        """Add the rows of items and their slots to `items`; returns why media cannot be read, by item."""
        from stages.data.media import load_ahead

        errors, size = dict[str, MediaError](), self._stage.batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        for batch, media in zip(
            batches, load_ahead(lambda it: list(self._media.map(_frames, it)), batches), strict=True
        ):
            pairs = list(zip(batch, media, strict=True))
            errors |= {row["item_id"]: frames for row, frames in pairs if isinstance(frames, MediaError)}
            readable = [(row, frames) for row, frames in pairs if not isinstance(frames, MediaError)]
            views = [self._views(row) for row, _ in readable]
            if readable:
                encoded = space.items([frames for _, frames in readable], [[it["text"] for it in of] for of in views])
                for (row, frames), of_item, item_E, slots_KE in zip(readable, views, *encoded, strict=True):
                    items[self._content(row)] = self._item_rows(space, row, of_item, item_E, slots_KE)
                    if has_moments(row):
                        of_frames = enumerate(space.items([[frame] for frame in frames], [[]] * len(frames))[0])
                        items[self._content(row)] += [
                            self._row(row["item_id"], "frame", str(number), frame_E, self._content(row))
                            for number, frame_E in of_frames
                        ]
            self._progress.counts["items"] += len(batch)
        return errors

    def _item_rows(
        self, space: "Space", row: Row, views: list[TrainingDescription], item_E: np.ndarray, slots_KE: np.ndarray
    ) -> Rows:
        names = list(map(str, range(len(slots_KE))))
        if space.slots_are_views:  # the slot of a view that is absent is zeros
            names = [view["view"] if view["text"].strip() else "" for view in views]
        slots = [("slot", name, slot_E) for name, slot_E in zip(names, slots_KE, strict=False) if name]
        content = self._content(row)
        return [self._row(row["item_id"], *part, content) for part in (("item", "", item_E), *slots)]

    def _encode_texts(self, space: "Space", all_texts: set[str], texts: dict[str, Row]) -> None:
        """Add the rows of texts that are not in `texts`."""
        new = sorted(sorted(text for text in all_texts if short_hash(text) not in texts), key=len)  # less padding
        for start in range(0, len(new), self._stage.batch_size):
            batch = new[start : start + self._stage.batch_size]
            for text, vector_E in zip(batch, space.descriptions(batch), strict=True):
                texts[short_hash(text)] = self._row(repr(text), "view", "", vector_E, short_hash(text))

    def _row(self, name: str, part: str, view: str, vector_E: np.ndarray, content: str) -> Row:
        """A row without its item. Raises UsageError if the vector is not that of a sound model."""
        length = float(np.linalg.norm(vector_E))
        if not length <= MAX_LENGTH:  # so that NaN is wrong as well
            raise UsageError(f"{name} has a vector of length {length:g}, expected about 1: has training diverged?")
        return {"part": part, "view": view, "vector": vector_E, "model": self._stage.model, "content": content}

    def _views(self, row: TrainingRow) -> list[TrainingDescription]:
        """The descriptions that the item's own vectors depend on; those that it lacks have no text."""
        if not self._stage.slot_views:
            return [] if self._stage.slot_views is None else row["descriptions"]
        texts = {text["view"]: text["text"] for text in row["descriptions"]}
        return [{"view": view, "text": texts.get(view, "")} for view in self._stage.slot_views]

    def _content(self, row: TrainingRow) -> str:
        """Hash of what the item's own vectors are made from."""
        media = row["sha256"] if row["media"] is None else stream_hash(io.BytesIO(row["media"]))
        return short_hash(canonical_json([media, self._views(row), *(["frames"] if has_moments(row) else [])]))

    async def close(self) -> None:
        """End the threads."""
        self._devices.shutdown(wait=False, cancel_futures=True)
        self._media.close()


def has_moments(row: TrainingRow) -> bool:
    """Whether the frames of an item are encoded one by one: of a video that has pictures."""
    return row["media_type"] == "video" and not (row["media"] or b"").startswith(MAGIC)


def _frames(row: TrainingRow) -> "Frames | MediaError":
    """The media of an item, or why they cannot be read."""
    from stages.data.media import read_frames

    try:
        return read_frames(dict(row))
    except MediaError as error:
        return error
    except (OSError, ValueError) as error:
        return MediaError("unreadable", str(error))
