"""The clients that bench/captions.py measures, each run in a process of its own: bare, client, stage, beam.

    python -c "from bench.contenders import main; main()" bare PHOTOS --url URL --window 80 …

The last line of output is JSON: `requests`, `seconds` from the first request sent to the last answer as the client
sees them, and CPU seconds by part.
"""

import argparse
import asyncio
import base64
import io
import json
import math
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.captioning.captioners import question
from pipeline.captioning.chat_client import ChatClient, Retries, media_of
from pipeline.captioning.prompts import BUILT_IN
from pipeline.media.images import jpegs as encoded_pictures

VIEWS = tuple(BUILT_IN.values())
JPEG_QUALITY = 90  # as the stage encodes


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def prepare(path: Path, max_pixels: int) -> bytes:
    """One Pillow decode, resize (if the photo exceeds the budget) and encode: the least that any client has to do."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = math.sqrt(max_pixels / (image.width * image.height))
    if scale < 1:
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def sent(path: Path, max_pixels: int) -> bytes:
    """The photo as the stage sends it, so that every contender sends the same bytes."""
    with path.open("rb") as stream:
        return encoded_pictures(stream, "image", max_pixels=max_pixels, count=1)[0].data


def content(jpeg: bytes, prompt: str) -> list[dict[str, Any]]:
    url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]


def messages(jpegs: Sequence[bytes], requests: int) -> list[tuple[list[dict[str, Any]], int]]:
    """(content parts, token limit) of each request: photo by photo, its views one after the other."""
    listed = [(content(jpeg, question(view, ())), view.max_tokens) for jpeg in jpegs for view in VIEWS]
    return listed[:requests]


def bare(photos: Sequence[Path], options: argparse.Namespace) -> dict[str, float]:
    """The ceiling: aiohttp, ready-made bodies, a sliding window; answers are parsed and dropped."""
    import aiohttp

    began = cpu_s()
    jpegs = [prepare(path, options.max_pixels) for path in photos]
    pillow_cpu_s = cpu_s() - began
    jpegs = [sent(path, options.max_pixels) for path in photos]
    bodies = [
        json.dumps(
            {
                "model": options.model,
                "messages": [{"role": "user", "content": parts}],
                "max_tokens": max_tokens,
                "temperature": 0.0,
                "seed": 0,
            }
        ).encode()
        for parts, max_tokens in messages(jpegs, options.requests)
    ]
    waiting = iter(bodies)

    async def ask_on(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            async with session.post(f"{options.url}/v1/chat/completions", data=body) as response:
                answer = json.loads(await response.read())
            if response.status != 200 or not answer["choices"]:
                raise SystemExit(f"the server answered {response.status}: {answer}")

    async def ask_all() -> None:
        headers = {"Content-Type": "application/json"}
        connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            await asyncio.gather(*(ask_on(session) for _ in range(options.window)))

    before, began_s = cpu_s(), time.monotonic()
    asyncio.run(ask_all())
    asked = {"seconds": time.monotonic() - began_s, "asking_cpu_s": cpu_s() - before, "pillow_cpu_s": pillow_cpu_s}
    return {"requests": len(bodies), "body_kib": sum(map(len, bodies)) / len(bodies) / 1024, **asked}


def client(photos: Sequence[Path], options: argparse.Namespace) -> dict[str, float]:
    """The stage's chat client without the stage, on encoded photos."""
    media = [media_of([sent(path, options.max_pixels)]) for path in photos]

    async def ask_all() -> None:
        chat = ChatClient([f"{options.url}/v1"], options.model, options.window, Retries())
        pairs = [(view, item) for item in media for view in VIEWS][: options.requests]
        await asyncio.gather(*(chat.ask(view, question(view, ()), item) for view, item in pairs))
        await chat.close()

    before, began_s = cpu_s(), time.monotonic()
    asyncio.run(ask_all())
    return {"requests": options.requests, "seconds": time.monotonic() - began_s, "asking_cpu_s": cpu_s() - before}


def stage(_: Sequence[Path], options: argparse.Namespace) -> dict[str, float]:
    """`beam_runner.run`, on a corpus whose items are ingested; Beam's part, from its graph to its end, is timed."""
    import beam_runner
    from pipeline.engine import beam as engine

    times: dict[str, float] = {}
    run_stages = engine.run_stages

    def timed(*arguments: Any) -> Any:
        before, began_s = cpu_s(), time.monotonic()
        try:
            return run_stages(*arguments)
        finally:
            times.update(seconds=time.monotonic() - began_s, beam_cpu_s=cpu_s() - before)

    engine.run_stages = timed
    arguments = ["--stage", "captions", "--output", options.corpus, "--mllm-url", options.url]
    arguments += ["--mllm", options.model, "--window", options.window, "--max-pixels", options.max_pixels]
    status = beam_runner.run([str(argument) for argument in arguments])
    if status:
        raise SystemExit(status)
    return {"requests": options.requests, **times}


def beam(photos: Sequence[Path], options: argparse.Namespace) -> dict[str, float]:
    """Beam's RunInference with its handler for vLLM's chat, on the same runner, from the same photos.

    Each photo is decoded and encoded once, in the step before, for all of its views. With `ready`, that is done before
    the clock starts: what the client alone can do. The handler is Beam's own, pointed at a running server.
    """
    import apache_beam
    from apache_beam.ml.inference import vllm_inference
    from apache_beam.ml.inference.base import RunInference
    from openai import AsyncOpenAI

    from pipeline.engine.beam import beam_options

    class RunningServer(vllm_inference.VLLMChatModelHandler):
        def load_model(self) -> Address:
            return Address()

    vllm_inference.getAsyncVLLMClient = lambda port: AsyncOpenAI(api_key="EMPTY", base_url=f"{options.url}/v1")
    if options.ready:
        _ready.update((path, _chats(path, options.max_pixels)) for path in photos)
    handler = RunningServer(options.model, min_batch_size=options.batch, max_batch_size=options.batch)
    most = max(view.max_tokens for view in VIEWS)
    before, began_s = cpu_s(), time.monotonic()
    with apache_beam.Pipeline(options=beam_options([])) as pipeline:
        paths = pipeline | apache_beam.Create(photos, reshuffle=False)
        chats = paths | apache_beam.FlatMap(_chats, options.max_pixels)
        answers = chats | RunInference(handler, inference_args={"max_tokens": most, "temperature": 0.0})
        answers | apache_beam.Map(_check_answer)
    asked = {"requests": len(photos) * len(VIEWS), "seconds": time.monotonic() - began_s}
    return {**asked, "beam_cpu_s": cpu_s() - before}


class Address:
    """Stands for the server process that Beam's handler would start and watch."""

    def get_server_port(self) -> int:
        return 0

    def check_connectivity(self) -> None:
        raise RuntimeError("the server failed a request")


_ready: dict[Path, list[Any]] = {}  # found again by the steps: the runner works in this process


def _chats(path: Path, max_pixels: int) -> list[Any]:
    from apache_beam.ml.inference.vllm_inference import OpenAIChatMessage

    if path in _ready:
        return _ready[path]
    jpeg = sent(path, max_pixels)
    return [[OpenAIChatMessage("user", content(jpeg, question(view, ())))] for view in VIEWS]


def _check_answer(result: Any) -> None:
    if not result.inference.choices[0].message.content:
        raise ValueError(f"got an answer without text: {result.inference}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=("bare", "client", "stage", "beam"))
    parser.add_argument("photos", type=Path)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    for name in ("requests", "window", "max-pixels", "batch"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--ready", type=int, default=0)
    options = parser.parse_args()
    photos = sorted(options.photos.iterdir())[: math.ceil(options.requests / len(VIEWS))]
    contender = {"bare": bare, "client": client, "stage": stage, "beam": beam}[options.contender]
    print(json.dumps(contender(photos, options)))
