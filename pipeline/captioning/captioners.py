"""Captioners, and how a run chooses one: a multimodal LLM behind chat servers, or the embedded describer.

A captioner is plain data, sent to Beam's workers. Opened there, it becomes a speaker, which prepares an item's frames
in a thread and then answers view by view.

    with served(choose_captioner("auto", servers, views, say), corpus, say) as captioner:
        speaker = await captioner.open(run, sampling, len(views))
"""

import asyncio
import contextlib
import dataclasses
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

from pipeline.captioning.chat_client import KEY_VARIABLE, ChatClient, Extras, Media, Retries, media_of
from pipeline.captioning.embedded.describer import EmbeddedDescriber, check_views, embedded_revision
from pipeline.captioning.prompts import VIDEO_PREAMBLE, Answer, View
from pipeline.captioning.servers import api_key, base_url, served_model
from pipeline.captioning.vllm_server import READY_WITHIN_S, VllmServer
from pipeline.engine.run_state import run_folder
from pipeline.engine.stage import Run, Say
from pipeline.errors import EnvironmentTrouble, UsageError, printable
from pipeline.hashing import canonical_json, folder_hash
from pipeline.media.images import Limits, frames, jpegs
from pipeline.options import option

URL_VARIABLE = "LECCR_MLLM_URL"
Answers = dict[str, Answer]  # view → answer
DEFAULT_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How much of an item a captioner is shown: pixels per frame, frames per video."""

    max_pixels: int = 768 * 768
    count: int = 8
    limits: Limits = dataclasses.field(default_factory=Limits)


def question(view: View, times_s: Sequence[float]) -> str:
    """The prompt of a view for a picture (no times), or for a video's frames taken at `times_s`, in seconds."""
    if not times_s:
        return view.prompt.replace("{media}", "picture")
    times = ", ".join(f"{time:.1f} s" for time in times_s)
    return VIDEO_PREAMBLE.format(count=len(times_s), times=times) + view.prompt.replace("{media}", "video")


@dataclasses.dataclass(frozen=True)
class MllmCaptioner:
    """A model served at `urls`.

    `window` bounds the requests in flight per worker process. Without `urls` it needs a vLLM server of its own, started
    with the interpreter `vllm_python` and the further options `vllm_args`; or, with `batch`, the results of a batch
    service: what they do not answer fails.
    """

    urls: tuple[str, ...]
    name: str
    revision: str = ""
    window: int = 64
    retries: Retries = dataclasses.field(default_factory=Retries)
    extras: Extras = dataclasses.field(default_factory=Extras)
    vllm_python: str | None = None
    vllm_args: tuple[str, ...] = ()
    batch: bool = False

    def client(self, run: Run) -> ChatClient:
        """Connect to the servers, on the running event loop."""
        key = api_key(run_folder(run.corpus))
        urls = [base_url(url) for url in self.urls]
        return ChatClient(urls, self.name, self.window, self.retries, key, self.extras)

    async def open(self, run: Run, sampling: Sampling, num_views: int) -> "MllmSpeaker":
        """Connect to the servers."""
        return MllmSpeaker(self.client(run), self.window, sampling, num_views)


class MllmSpeaker:
    """Asks chat servers: all views of an item share its encoded frames. `ahead` bounds the items in work at once."""

    def __init__(self, client: ChatClient, window: int, sampling: Sampling, num_views: int):
        self._client, self._sampling = client, sampling
        # Twice what fills the window, for items that wait for a retry, and some being decoded meanwhile.
        self.ahead = 2 * math.ceil(window / num_views) + 4 * (os.cpu_count() or 1)

    def prepare(self, stream: BinaryIO, media_type: str, views: Sequence[View]) -> tuple[list[float], Media]:
        """Encode an item's frames, in a thread: their times (none for an image), and what `ask` needs of them."""
        pictures, times_s = zip(*jpegs(stream, media_type, **vars(self._sampling)), strict=True)
        return [time_s for time_s in times_s if time_s is not None], media_of(pictures)

    async def ask(self, prepared: Media, view: View, times_s: Sequence[float]) -> Answer:
        """Answer one view. Raises RequestFailed if this record fails."""
        return await self._client.ask(view, question(view, times_s), prepared)

    def request(self, prepared: Media, view: View, times_s: Sequence[float]) -> bytes:
        """The request of one view in JSON, for a batch service."""
        return self._client.request(view, question(view, times_s), prepared)

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


@dataclasses.dataclass(frozen=True)
class EmbeddedCaptioner:
    """The classifier that describes without a server or a model hub."""

    name: str
    revision: str
    extras: ClassVar = Extras()

    async def open(self, run: Run, sampling: Sampling, num_views: int) -> "EmbeddedSpeaker":
        """Load the classifier."""
        return await asyncio.to_thread(EmbeddedSpeaker, sampling)


class EmbeddedSpeaker:
    """Describes in `prepare`, in a thread; `ask` only hands out the answers."""

    def __init__(self, sampling: Sampling) -> None:
        self._describer, self._sampling = EmbeddedDescriber(), sampling
        self.ahead = 2 * (os.cpu_count() or 1)

    def prepare(self, stream: BinaryIO, media_type: str, views: Sequence[View]) -> tuple[list[float], Answers]:
        """Decode the frames and answer all views."""
        pictures = frames(stream, media_type, **vars(self._sampling))
        times_s = [picture.timestamp_s for picture in pictures]
        answers = self._describer.describe([picture.image for picture in pictures], times_s, views)
        return [time for time in times_s if time is not None], answers

    async def ask(self, prepared: Answers, view: View, times_s: Sequence[float]) -> Answer:
        """The answer that `prepare` made."""
        return prepared[view.name]

    async def close(self) -> None:
        """Nothing to release."""


Speaker = MllmSpeaker | EmbeddedSpeaker
Captioner = MllmCaptioner | EmbeddedCaptioner
AnyCaptioner = TypeVar("AnyCaptioner", bound=Captioner)


def _extra_body(text: str) -> str:
    """Parameters of requests as a JSON object, in canonical form."""
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not JSON ({error}). Example: '{{\"seed\": null}}'") from None
    if not isinstance(body, dict):
        raise ValueError(f"{text!r} is not a JSON object such as '{{\"seed\": null}}'")
    if own := sorted(body.keys() & {"messages", "model", "n", "stream"}):
        raise ValueError(f"{own[0]} cannot be set here: the run sets it")
    return canonical_json(body)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Chat servers: which model, where it is served or how to start it, and how long to try."""

    mllm_url: tuple[str, ...] = option(
        (),
        "an OpenAI-compatible server; repeat it for several: each item goes to the least loaded. "
        f"Its key: ${KEY_VARIABLE}",
        metavar="URL",
        repeat=True,
    )
    mllm: str = option(
        "", "model to ask for, or to start vLLM with (default: the only one served)", metavar="MODEL|PATH", parse=str
    )
    mllm_revision: str = option(
        "", "revision recorded in every row (default: the hash of a local folder)", metavar="TEXT", parse=str
    )
    system_prompt: str = option("", "system prompt of every request", metavar="TEXT", parse=str)
    extra_body: str = option(
        "",
        """further parameters of every request, such as '{"chat_template_kwargs": {"enable_thinking": false}}'; null """
        """leaves one out, as in '{"seed": null}'""",
        metavar="JSON",
        parse=_extra_body,
    )
    vllm_python: str | None = option(None, "interpreter that has vLLM (default: this one)", metavar="PATH")
    vllm_args: tuple[str, ...] = option(
        (), "further options of the vLLM server, quoted", metavar="TEXT", parse=lambda text: tuple(shlex.split(text))
    )
    window: int = option(64, "requests in flight per worker process", at_least=1)
    timeout: float = option(Retries.timeout_s, "seconds until a request is given up and tried again", at_least=0.01)
    attempts: int = option(Retries.attempts, "times a request is tried before its record fails", at_least=1)
    patience: float = option(
        Retries.patience_s,
        "seconds to wait for a server that is down, and the longest Retry-After to obey, before the run ends",
        at_least=0,
    )


def choose_captioner(name: str, servers: ServerOptions, views: tuple[View, ...], say: Say) -> Captioner:
    """Choose the captioner and say which one and why.

    Args:
        name: `auto`, `vllm` or `embedded`.
        servers: The chat servers given.
        views: The views to answer.
        say: Prints a line.

    Returns:
        A captioner. An `MllmCaptioner` without `urls` needs a server of its own: see `served`.

    Raises:
        UsageError: Options contradict each other, or a view cannot be answered.
        EnvironmentTrouble: No server answers, or a package is missing.
    """
    if name == "embedded":
        if servers.mllm_url or servers.mllm:
            raise UsageError(
                "--captioner embedded asks no server: leave out --mllm-url and --mllm, or give --captioner vllm"
            )
        return _embedded(servers, views, "--captioner embedded", say)
    if model := choose_model(servers, "captioner", say, required=name == "vllm"):
        return model
    if _can_start_vllm(servers.vllm_python):
        say(f"captioner: {DEFAULT_MODEL} on a vLLM server started by this run (a CUDA device and vLLM are available)")
        return _mllm(servers, (), DEFAULT_MODEL)
    return _embedded(servers, views, f"no --mllm-url, no ${URL_VARIABLE}, and no CUDA device with vLLM", say)


def batch_captioner(servers: ServerOptions) -> MllmCaptioner:
    """The model that a batch service is asked for. Raises UsageError if it is not named."""
    if not servers.mllm:
        raise UsageError("batch files need the name of the model: give --mllm MODEL, as the service calls it")
    return dataclasses.replace(_mllm(servers, (), servers.mllm), batch=True)


def choose_model(servers: ServerOptions, role: str, say: Say, *, required: bool = True) -> MllmCaptioner | None:
    """The model on the chat servers that the options or the environment name.

    Args:
        servers: The chat servers given.
        role: What the model is for, at the start of the line said: `captioner` or `translator`.
        say: Prints a line.
        required: Whether to take the default model if neither a server nor a model is named.

    Returns:
        The model, without `urls` if its server is still to be started; None only if not `required`.
    """
    from_environment = (url.strip() for url in os.environ.get(URL_VARIABLE, "").split(","))
    urls = servers.mllm_url or tuple(filter(None, from_environment))
    if urls:
        source = "--mllm-url" if servers.mllm_url else f"${URL_VARIABLE}"
        model = asyncio.run(served_model(urls, servers.mllm, say))
        say(f"{role}: {printable(model)} at {', '.join(urls)} ({source})")
        return _mllm(servers, urls, model)
    if required or servers.mllm:
        model = servers.mllm or DEFAULT_MODEL
        say(f"{role}: {model} on a vLLM server started by this run (no --mllm-url, no ${URL_VARIABLE})")
        return _mllm(servers, (), model)
    return None


@contextlib.contextmanager
def served(captioner: AnyCaptioner, corpus: Path, say: Say) -> Iterator[AnyCaptioner]:
    """Start the captioner's own vLLM server if it needs one, and end it with the block.

    Args:
        captioner: As chosen. One that has `urls`, or needs no server, is yielded as it is.
        corpus: The folder whose `.state` holds the server's key and log; the run must hold its lock.
        say: Prints a line.

    Yields:
        The captioner with the address of its server.
    """
    if not isinstance(captioner, MllmCaptioner) or captioner.urls or captioner.batch:
        yield captioner
        return
    with VllmServer(captioner.name, corpus, say, captioner.vllm_python, captioner.vllm_args) as server:
        # A restarted server takes as long as the first start did, and VllmServer decides when to give up.
        patience_s = max(captioner.retries.patience_s, READY_WITHIN_S)
        retries = dataclasses.replace(captioner.retries, patience_s=patience_s)
        ready: Any = dataclasses.replace(captioner, urls=(server.url,), retries=retries)
        yield ready


def _embedded(servers: ServerOptions, views: tuple[View, ...], reason: str, say: Say) -> EmbeddedCaptioner:
    if servers.system_prompt or servers.extra_body:
        raise UsageError(
            f"the embedded describer ({reason}) takes no --system-prompt and no --extra-body: leave them out, or name "
            "a server with --mllm-url"
        )
    check_views(views)
    say(f"captioner: the embedded describer, an image classifier and not a language model ({reason})")
    return EmbeddedCaptioner(EmbeddedDescriber.captioner, embedded_revision())


def _mllm(servers: ServerOptions, urls: tuple[str, ...], model: str) -> MllmCaptioner:
    revision = servers.mllm_revision or (folder_hash(Path(model)) if Path(model).is_dir() else "")
    retries = Retries(servers.attempts, servers.timeout, servers.patience)
    extras = Extras(servers.system_prompt, servers.extra_body)
    return MllmCaptioner(urls, model, revision, servers.window, retries, extras, servers.vllm_python, servers.vllm_args)


def _can_start_vllm(python: str | None) -> bool:
    """Whether the driver lists a CUDA device and the interpreter has vLLM. Neither torch nor vLLM is imported."""
    if shutil.which("nvidia-smi") is None:
        return False
    find_vllm = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    commands = (["nvidia-smi", "-L"], [python or sys.executable, "-c", find_vllm])
    try:
        statuses = (subprocess.run(args, stdout=subprocess.DEVNULL, timeout=60).returncode for args in commands)
        return not any(statuses)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentTrouble(f"cannot look for a CUDA device and vLLM: {error}. Check --vllm-python") from error
