"""`--stage captions`: describe every item from several views, write `descriptions`.

    items → read and check the bytes → frames, shrunk → one question a view → cleaned → descriptions

An answer goes into the response cache before its request counts as done, so a killed run pays for no answer twice.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
import weakref
from pathlib import Path
from typing import Any, Self

from pipeline.captioning.captioners import EmbeddedCaptioner, MllmCaptioner, Sampling, Speaker
from pipeline.captioning.chat_client import RequestFailed
from pipeline.captioning.cleaning import clean
from pipeline.captioning.prompts import Answer, View
from pipeline.captioning.response_cache import ResponseCache
from pipeline.engine.run_state import Progress
from pipeline.engine.stage import Failure, Outcome, Rows, Run, Stage
from pipeline.errors import MediaError
from pipeline.hashing import canonical_json, short_hash, stream_hash
from pipeline.media.images import open_media

DESCRIPTION_LANGUAGE = "en"
Reply = Answer | Failure


@dataclasses.dataclass(frozen=True)
class Captions(Stage):
    """Settings of the stage: who describes, from which views, being shown how much of an item."""

    captioner: MllmCaptioner | EmbeddedCaptioner
    views: tuple[View, ...]
    look: Sampling = dataclasses.field(default_factory=Sampling)

    name = "captions"
    tables = ("descriptions",)
    parents = ("items",)

    @property
    def records_per_item(self) -> int:
        return len(self.views)

    def settings(self) -> dict[str, Any]:
        return {
            "captioner": self.captioner.name,
            "revision": self.captioner.revision,
            "views": {view.name: dataclasses.asdict(view) for view in self.views},
            "max_pixels": self.look.max_pixels,
            "num_frames": self.look.num_frames,
        }

    def decoding(self, view: View, media_type: str) -> str:
        """Everything beside model, prompt and content that decides an answer, as canonical JSON."""
        decoding = {"max_pixels": self.look.max_pixels, "max_tokens": view.max_tokens, "temperature": view.temperature}
        return canonical_json({**decoding, "num_frames": self.look.num_frames} if media_type == "video" else decoding)

    @property
    def server(self) -> MllmCaptioner | None:
        return self.captioner if isinstance(self.captioner, MllmCaptioner) else None

    def asking(self, server: MllmCaptioner) -> Self:
        return dataclasses.replace(self, captioner=server)

    async def open(self, run: Run, progress: Progress) -> "CaptionsWorker":
        cache = ResponseCache(Path(run.cache))
        return CaptionsWorker(self, await self.captioner.open(run, len(self.views)), cache, progress)


class CaptionsWorker:
    """Describes items: frames in a pool of threads, questions on the event loop."""

    def __init__(self, stage: Captions, speaker: Speaker, cache: ResponseCache, progress: Progress):
        self._stage, self._speaker, self._cache, self._progress = stage, speaker, cache, progress
        self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, "frames")
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self.ahead = speaker.ahead

    async def item(
        self, row: dict[str, Any], joined: dict[str, Rows], kept: dict[str, Rows], retrying: bool
    ) -> Outcome:
        done = {old["view"]: old for old in kept.get("descriptions", ()) if old["sha256"] == row["sha256"]}
        missing = [view for view in self._stage.views if view.name not in done]
        replies = await self._replies(row, missing, retrying) if missing else {}
        made, failures = [], []
        for view in self._stage.views:
            if view.name in done:
                made.append(done[view.name])
                continue
            times_s, reply = replies[view.name]
            if isinstance(reply, Failure):
                failures.append(reply)
            else:
                made.append(self._row(row, view, reply, times_s))
        return Outcome({"descriptions": made}, failures)

    async def _replies(
        self, row: dict[str, Any], views: list[View], retrying: bool
    ) -> dict[str, tuple[list[float], Reply]]:
        """By view, (times of the frames shown, reply). Items of the same content take turns: one pays for all."""
        replies: dict[str, tuple[list[float], Reply]] = {}
        async with self._turns.setdefault(row["sha256"], asyncio.Lock()):
            for view in views:
                if remembered := self._remembered(row, view, retrying):
                    replies[view.name] = remembered
            if unknown := [view for view in views if view.name not in replies]:
                replies.update(await self._describe(row, unknown))
        return replies

    async def _describe(self, row: dict[str, Any], views: list[View]) -> dict[str, tuple[list[float], Reply]]:
        try:
            times_s, prepared = await asyncio.get_running_loop().run_in_executor(self._pool, self._prepare, row, views)
        except MediaError as error:
            return {view.name: ([], Failure(row["item_id"], error.kind, str(error), view=view.name)) for view in views}
        asked = (self._ask(row, prepared, view, times_s) for view in views)
        return dict(zip((view.name for view in views), await asyncio.gather(*asked), strict=True))

    def _prepare(self, row: dict[str, Any], views: list[View]) -> tuple[list[float], Any]:
        with open_media(row["uri"]) as stream:
            if stream_hash(stream) != row["sha256"]:
                raise MediaError(
                    "changed",
                    f"{row['uri']} has other bytes than when it was ingested: "
                    "--stage ingest --overwrite takes the input as it is now",
                )
            return self._speaker.prepare(stream, row["media_type"], self._stage.look, views)

    async def _ask(
        self, row: dict[str, Any], prepared: Any, view: View, times_s: list[float]
    ) -> tuple[list[float], Reply]:
        reply: Reply
        try:
            reply = await self._speaker.ask(prepared, view, times_s)
        except RequestFailed as error:
            reply = Failure(row["item_id"], error.kind, str(error), error.attempts, view.name)
            if not error.permanent:
                return times_s, reply
        self._remember(row, view, times_s, reply)
        counts = self._progress.counts
        counts["requests"] += 1
        if isinstance(reply, Answer):
            counts["prompt_tokens"] += reply.prompt_tokens or 0
            counts["completion_tokens"] += reply.completion_tokens or 0
        return times_s, reply

    def _key(self, row: dict[str, Any], view: View) -> str:
        captioner = self._stage.captioner
        decoding = self._stage.decoding(view, row["media_type"])
        return short_hash(canonical_json([row["sha256"], captioner.name, captioner.revision, view.prompt_id, decoding]))

    def _remember(self, row: dict[str, Any], view: View, times_s: list[float], reply: Reply) -> None:
        kind = "answer" if isinstance(reply, Answer) else "failure"
        self._cache.put(self._key(row, view), {kind: dataclasses.asdict(reply), "times_s": times_s})

    def _remembered(self, row: dict[str, Any], view: View, retrying: bool) -> tuple[list[float], Reply] | None:
        """An answer paid for before; a permanent failure too, unless this run is there to try it again."""
        stored = self._cache.get(self._key(row, view))
        if stored is None or (retrying and "failure" in stored):
            return None
        self._progress.counts["from_cache"] += 1
        if "failure" in stored:
            # The failure may have been met under another item with the same content.
            return stored["times_s"], Failure(**{**stored["failure"], "id": row["item_id"], "view": view.name})
        answer = stored["answer"]
        return stored["times_s"], Answer(**{**answer, "flags": tuple(answer["flags"])})

    def _row(self, row: dict[str, Any], view: View, answer: Answer, times_s: list[float]) -> dict[str, Any]:
        text, flags = clean(answer.text, answer.finish_reason)
        return {
            "item_id": row["item_id"],
            "view": view.name,
            "text": text,
            "language": DESCRIPTION_LANGUAGE,
            "captioner": self._stage.captioner.name,
            "revision": self._stage.captioner.revision,
            "prompt_id": view.prompt_id,
            "decoding": self._stage.decoding(view, row["media_type"]),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "flags": sorted({*flags, *answer.flags}),
            "frame_times_s": times_s,
            "sha256": row["sha256"],
        }

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._speaker.close()
        self._cache.close()
