"""Who describes: a multimodal LLM behind chat servers, or the embedded describer. Both speak to the stage alike.

A captioner is plain data, sent to Beam's workers; opened there, it becomes a speaker, which prepares frames in a
thread and then answers view by view.
"""

import asyncio
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, BinaryIO, Protocol

from pipeline.captioning.chat_client import ChatClient, Media, Retries, api_key, media_of
from pipeline.captioning.embedded.describer import EmbeddedDescriber
from pipeline.captioning.prompts import Answer, View
from pipeline.engine.run_state import run_folder
from pipeline.engine.stage import Run
from pipeline.media.images import Frame, Jpeg, Limits, frames, jpegs


@dataclasses.dataclass(frozen=True)
class Look:
    """How much of a medium a captioner is shown: pixels a frame, frames a video."""

    max_pixels: int = 768 * 768
    num_frames: int = 8
    limits: Limits = dataclasses.field(default_factory=Limits)


def _times(shown: Sequence[Frame] | Sequence[Jpeg]) -> list[float]:
    return [frame.timestamp_s for frame in shown if frame.timestamp_s is not None]


class Speaker(Protocol):
    """A captioner at work in one process. `ahead` bounds the items in work at once."""

    ahead: int

    def prepare(self, stream: BinaryIO, media_type: str, look: Look, views: Sequence[View]) -> tuple[list[float], Any]:
        """Times of the frames shown (none for an image), and what `ask` needs of them. Called in a thread."""

    async def ask(self, prepared: Any, view: View, times_s: Sequence[float]) -> Answer:
        """The answer to one view. Raises RequestFailed for this record alone."""

    async def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class MllmCaptioner:
    """A model served at `urls`.

    `window` bounds the requests in flight per worker process. Without `urls` it needs a vLLM server of its own, started
    with the interpreter `vllm_python` and the further options `vllm_args`.
    """

    urls: tuple[str, ...]
    name: str
    revision: str = ""
    window: int = 64
    retries: Retries = dataclasses.field(default_factory=Retries)
    vllm_python: str | None = None
    vllm_args: tuple[str, ...] = ()

    async def open(self, run: Run, num_views: int) -> Speaker:
        return MllmSpeaker(self, api_key(run_folder(run.folder)), num_views)


class MllmSpeaker:
    def __init__(self, captioner: MllmCaptioner, key: str, num_views: int):
        self._client = ChatClient(captioner.urls, captioner.name, captioner.window, captioner.retries, key)
        # Twice what fills the window, for items that wait for a retry, and some being decoded meanwhile.
        self.ahead = 2 * math.ceil(captioner.window / num_views) + 4 * (os.cpu_count() or 1)

    def prepare(
        self, stream: BinaryIO, media_type: str, look: Look, views: Sequence[View]
    ) -> tuple[list[float], Media]:
        shown = jpegs(stream, media_type, max_pixels=look.max_pixels, count=look.num_frames, limits=look.limits)
        return _times(shown), media_of([frame.data for frame in shown])

    async def ask(self, prepared: Media, view: View, times_s: Sequence[float]) -> Answer:
        return await self._client.ask(view, view.ask(times_s), prepared)

    async def close(self) -> None:
        await self._client.close()


@dataclasses.dataclass(frozen=True)
class EmbeddedCaptioner:
    """The classifier that describes without any server or model hub (pipeline.captioning.embedded.describer)."""

    name: str
    revision: str

    async def open(self, run: Run, num_views: int) -> Speaker:
        return await asyncio.to_thread(EmbeddedSpeaker)


class EmbeddedSpeaker:
    def __init__(self) -> None:
        self._describer = EmbeddedDescriber()
        self.ahead = 2 * (os.cpu_count() or 1)

    def prepare(
        self, stream: BinaryIO, media_type: str, look: Look, views: Sequence[View]
    ) -> tuple[list[float], dict[str, Answer]]:
        shown = frames(stream, media_type, max_pixels=look.max_pixels, count=look.num_frames, limits=look.limits)
        images, times = [frame.image for frame in shown], [frame.timestamp_s for frame in shown]
        return _times(shown), self._describer.describe(images, times, views)

    async def ask(self, prepared: dict[str, Answer], view: View, times_s: Sequence[float]) -> Answer:
        return prepared[view.name]

    async def close(self) -> None:
        pass
