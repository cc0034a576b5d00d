"""Captioners: a multimodal LLM behind chat servers, and the embedded describer.

A captioner is plain data, sent to Beam's workers. Opened there, it becomes a speaker, which prepares an item's frames
in a thread and then answers view by view.
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
from pipeline.media.images import Limits, frames, jpegs


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How much of an item a captioner is shown: pixels per frame, frames per video."""

    max_pixels: int = 768 * 768
    num_frames: int = 8
    limits: Limits = dataclasses.field(default_factory=Limits)


class Speaker(Protocol):
    """A captioner at work in one process. `ahead` bounds the items in work at once."""

    ahead: int

    def prepare(
        self, stream: BinaryIO, media_type: str, sampling: Sampling, views: Sequence[View]
    ) -> tuple[list[float], Any]:
        """Decode an item, in a thread: the times of its frames (none for an image), and what `ask` needs of them."""

    async def ask(self, prepared: Any, view: View, times_s: Sequence[float]) -> Answer:
        """Answer one view. Raises RequestFailed if this record fails."""

    async def close(self) -> None:
        """Release connections."""


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
        """Connect to the servers, on the running event loop."""
        return MllmSpeaker(self, api_key(run_folder(run.folder)), num_views)


class MllmSpeaker:
    """Asks chat servers: all views of an item share its encoded frames."""

    def __init__(self, captioner: MllmCaptioner, key: str, num_views: int):
        self._client = ChatClient(captioner.urls, captioner.name, captioner.window, captioner.retries, key)
        # Twice what fills the window, for items that wait for a retry, and some being decoded meanwhile.
        self.ahead = 2 * math.ceil(captioner.window / num_views) + 4 * (os.cpu_count() or 1)

    def prepare(
        self, stream: BinaryIO, media_type: str, sampling: Sampling, views: Sequence[View]
    ) -> tuple[list[float], Media]:
        """Encode the frames as JPEGs."""
        pictures = jpegs(
            stream, media_type, max_pixels=sampling.max_pixels, count=sampling.num_frames, limits=sampling.limits
        )
        times_s = [picture.timestamp_s for picture in pictures if picture.timestamp_s is not None]
        return times_s, media_of([picture.data for picture in pictures])

    async def ask(self, prepared: Media, view: View, times_s: Sequence[float]) -> Answer:
        """Send one request."""
        return await self._client.ask(view, view.ask(times_s), prepared)

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


@dataclasses.dataclass(frozen=True)
class EmbeddedCaptioner:
    """The classifier that describes without a server or a model hub."""

    name: str
    revision: str

    async def open(self, run: Run, num_views: int) -> Speaker:
        """Load the classifier."""
        return await asyncio.to_thread(EmbeddedSpeaker)


class EmbeddedSpeaker:
    """Describes in `prepare`, in a thread; `ask` only hands out the answers."""

    def __init__(self) -> None:
        self._describer = EmbeddedDescriber()
        self.ahead = 2 * (os.cpu_count() or 1)

    def prepare(
        self, stream: BinaryIO, media_type: str, sampling: Sampling, views: Sequence[View]
    ) -> tuple[list[float], dict[str, Answer]]:
        """Decode the frames and answer all views."""
        pictures = frames(
            stream, media_type, max_pixels=sampling.max_pixels, count=sampling.num_frames, limits=sampling.limits
        )
        times_s = [picture.timestamp_s for picture in pictures]
        answers = self._describer.describe([picture.image for picture in pictures], times_s, views)
        return [time for time in times_s if time is not None], answers

    async def ask(self, prepared: dict[str, Answer], view: View, times_s: Sequence[float]) -> Answer:
        """The answer that `prepare` made."""
        return prepared[view.name]

    async def close(self) -> None:
        """Nothing to release."""
