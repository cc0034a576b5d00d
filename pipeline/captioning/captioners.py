"""Who describes: a multimodal LLM behind chat servers, or the embedded describer. Both speak to the stage alike.

A captioner is plain data, sent to Beam's workers; opened there, it becomes a speaker, which prepares frames in a
thread and then answers view by view.
"""

import asyncio
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

from pipeline.captioning.client import ChatClient, Media, Retries, api_key, media_of
from pipeline.captioning.embedded import EmbeddedDescriber
from pipeline.captioning.views import Answer, View
from pipeline.media import Frame, encode_jpeg
from pipeline.runstate import run_folder
from pipeline.window import Run


class Speaker(Protocol):
    """A captioner at work in one process. `ahead` bounds the items in work at once."""

    ahead: int

    def prepare(self, frames: Sequence[Frame], views: Sequence[View]) -> Any:
        """What `ask` needs of an item's frames. Called in a thread."""

    async def ask(self, prepared: Any, view: View, times_s: Sequence[float]) -> Answer:
        """The answer to one view. Raises RequestFailed for this record alone."""

    async def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class MllmCaptioner:
    """A model served at `urls`. `window` bounds the requests in flight of one worker process."""

    urls: tuple[str, ...]
    name: str
    revision: str = ""
    window: int = 64
    retries: Retries = dataclasses.field(default_factory=Retries)

    async def open(self, run: Run, num_views: int) -> Speaker:
        return MllmSpeaker(self, api_key(run_folder(run.folder)), num_views)


class MllmSpeaker:
    def __init__(self, captioner: MllmCaptioner, key: str, num_views: int):
        self._client = ChatClient(captioner.urls, captioner.name, captioner.window, captioner.retries, key)
        # Twice what fills the window, for items that wait for a retry, and some being decoded meanwhile.
        self.ahead = 2 * math.ceil(captioner.window / num_views) + 4 * (os.cpu_count() or 1)

    def prepare(self, frames: Sequence[Frame], views: Sequence[View]) -> Media:
        return media_of([encode_jpeg(frame.image) for frame in frames])

    async def ask(self, prepared: Media, view: View, times_s: Sequence[float]) -> Answer:
        return await self._client.ask(view, view.ask(times_s), prepared)

    async def close(self) -> None:
        await self._client.close()


@dataclasses.dataclass(frozen=True)
class EmbeddedCaptioner:
    """The classifier that describes without any server or model hub (pipeline.captioning.embedded)."""

    name: str
    revision: str

    async def open(self, run: Run, num_views: int) -> Speaker:
        return await asyncio.to_thread(EmbeddedSpeaker)


class EmbeddedSpeaker:
    def __init__(self) -> None:
        self._describer = EmbeddedDescriber()
        self.ahead = 2 * (os.cpu_count() or 1)

    def prepare(self, frames: Sequence[Frame], views: Sequence[View]) -> dict[str, Answer]:
        images, times = [frame.image for frame in frames], [frame.timestamp_s for frame in frames]
        return self._describer.describe(images, times, views)

    async def ask(self, prepared: dict[str, Answer], view: View, times_s: Sequence[float]) -> Answer:
        return prepared[view.name]

    async def close(self) -> None:
        pass
