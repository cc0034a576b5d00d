"""`--dry-run N`: describe a few items and print picture, prompt and answer; the corpus is not touched."""

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.captioning import choose
from pipeline.captioning.chat_client import RequestFailed
from pipeline.captioning.cleaning import clean
from pipeline.engine.run_state import locked
from pipeline.engine.stage import Run
from pipeline.errors import MediaError
from pipeline.media.images import open_media, probe
from pipeline.sources import SourceItem, all_items
from stages.captions import Captions
from stages.ingest import Ingest


def dry_run(ingest: Ingest, stage: Captions, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Returns the exit status: 1 where nothing could be described."""
    sources = ingest.sources()
    for source in sources:
        say(f"input: {source.summary}")
    items = list(itertools.islice(all_items(sources), options.dry_run))
    with (
        tempfile.TemporaryDirectory(prefix="dry-run-") as folder,
        locked(Path(folder)),
        choose.serving(stage, options, Path(folder), say) as ready,
    ):
        described = asyncio.run(_describe(ready, items, Path(folder), say))
    say(f"dry run: {described} of {len(items)} items described; nothing was written")
    return 0 if described else 1


async def _describe(stage: Captions, items: list[SourceItem], folder: Path, say: Callable[[str], None]) -> int:
    speaker = await stage.captioner.open(Run("dry-run", str(folder), 0, {}, ""), len(stage.views))
    described = 0
    try:
        for item in items:
            described += await _describe_item(speaker, stage, item, say)
    finally:
        await speaker.close()
    return described


async def _describe_item(speaker: Any, stage: Captions, item: SourceItem, say: Callable[[str], None]) -> bool:
    say(f"\n{item.item_id}  {item.uri}")
    try:
        with open_media(item.uri) as stream:
            seen = probe(stream, stage.look.limits)
            stream.seek(0)
            times_s, prepared = await asyncio.to_thread(
                speaker.prepare, stream, seen.media_type, stage.look, stage.views
            )
    except MediaError as error:
        say(f"  failed: {error.kind}: {error}")
        return False
    shown = f", {len(times_s)} frames at {', '.join(f'{time:.1f} s' for time in times_s)}" if times_s else ""
    say(f"  {seen.media_type} {seen.width}×{seen.height}{shown}")
    answered = 0
    for view in stage.views:
        say(f"  {view.name}: {view.ask(times_s)}")
        try:
            answer = await speaker.ask(prepared, view, times_s)
        except RequestFailed as error:
            say(f"    failed: {error.kind}: {error}")
            continue
        answered += 1
        text, flags = clean(answer.text, answer.finish_reason)
        flags = tuple(sorted({*flags, *answer.flags}))
        say(f"    → {text}" + (f"  [{', '.join(flags)}]" if flags else ""))
        if text != answer.text:
            say(f"      as it came: {answer.text!r}")
    return answered > 0
