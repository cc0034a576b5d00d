"""Which captioner or chat model a run uses, by its options and by what the machine has.

with served(choose_captioner("auto", servers, views, say), corpus, say) as captioner:
    ...
"""

import asyncio
import contextlib
import dataclasses
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pipeline.captioning.captioners import EmbeddedCaptioner, MllmCaptioner
from pipeline.captioning.chat_client import KEY_VARIABLE, Retries, environment_key, served_model
from pipeline.captioning.embedded.describer import EmbeddedDescriber, check_views, embedded_revision
from pipeline.captioning.prompts import DEFAULT_VIEWS, View
from pipeline.captioning.vllm_server import READY_WITHIN_S, VllmServer
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import folder_hash
from pipeline.options import option

URL_VARIABLE = "LECCR_MLLM_URL"
DEFAULT_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
Captioner = MllmCaptioner | EmbeddedCaptioner
AnyCaptioner = TypeVar("AnyCaptioner", bound=Captioner)
Say = Callable[[str], None]


def _split_arguments(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"got {text!r}: {error}") from error


@dataclasses.dataclass(frozen=True)
class CaptionerOptions:
    """Who describes the items, from which views, at which size."""

    captioner: str = option(
        "auto",
        "auto: the server of --mllm-url or $LECCR_MLLM_URL, else vLLM if a CUDA device and vLLM are available, "
        "else the embedded describer",
        choices=("auto", "vllm", "embedded"),
    )
    views: str = option(DEFAULT_VIEWS, "names of views, or .yaml files that define views")
    max_pixels: int = option(768 * 768, "pictures are shrunk to this area in pixels", at_least=32 * 32)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Chat servers: which model, where it is served or how to start it, and how long to try."""

    mllm_url: tuple[str, ...] = option(
        (),
        "an OpenAI-compatible server; repeat it for several: each request goes to the least loaded. "
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
    vllm_python: str | None = option(
        None, "interpreter of the environment that has vLLM (default: this one)", metavar="PATH"
    )
    vllm_args: tuple[str, ...] = option(
        (), "further options of the vLLM server, quoted", metavar="TEXT", parse=_split_arguments
    )
    window: int = option(64, "requests in flight per worker process", at_least=1)
    timeout: float = option(
        Retries.timeout_s, "seconds until a request is given up and tried again", at_least=0.01, metavar="S"
    )
    attempts: int = option(Retries.attempts, "times a request is tried before its record fails", at_least=1)
    patience: float = option(
        Retries.patience_s, "seconds to wait for a server that is down before the run ends", at_least=0, metavar="S"
    )


def choose_captioner(name: str, servers: ServerOptions, views: tuple[View, ...], say: Say) -> Captioner:
    """Choose the captioner and say which one and why.

    Args:
        name: `auto`, `vllm` or `embedded`, as `CaptionerOptions.captioner`.
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
        return _embedded(views, "--captioner embedded", say)
    if model := choose_model(servers, "captioner", say, required=name == "vllm"):
        return model
    if _cuda_device() and _has_vllm(servers.vllm_python):
        say(f"captioner: {DEFAULT_MODEL} on a vLLM server started by this run (a CUDA device and vLLM are available)")
        return _mllm(servers, (), DEFAULT_MODEL)
    return _embedded(views, f"no --mllm-url, no ${URL_VARIABLE}, and no CUDA device with vLLM", say)


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
        model = asyncio.run(served_model(urls, servers.mllm, environment_key(), say))
        say(f"{role}: {model} at {', '.join(urls)} ({source})")
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
    if not isinstance(captioner, MllmCaptioner) or captioner.urls:
        yield captioner
        return
    with VllmServer(captioner.name, corpus, python=captioner.vllm_python, args=captioner.vllm_args, say=say) as server:
        # A restarted server takes as long as the first start did, and VllmServer decides when to give up.
        patience_s = max(captioner.retries.patience_s, READY_WITHIN_S)
        retries = dataclasses.replace(captioner.retries, patience_s=patience_s)
        ready: Any = dataclasses.replace(captioner, urls=(server.url,), retries=retries)
        yield ready


def _embedded(views: tuple[View, ...], reason: str, say: Say) -> EmbeddedCaptioner:
    check_views(views)
    say(f"captioner: the embedded describer, an image classifier and not a language model ({reason})")
    return EmbeddedCaptioner(EmbeddedDescriber.captioner, embedded_revision())


def _mllm(servers: ServerOptions, urls: tuple[str, ...], model: str) -> MllmCaptioner:
    revision = servers.mllm_revision or (folder_hash(Path(model)) if Path(model).is_dir() else "")
    retries = Retries(servers.attempts, servers.timeout, servers.patience)
    return MllmCaptioner(urls, model, revision, servers.window, retries, servers.vllm_python, servers.vllm_args)


def _cuda_device() -> bool:
    """Whether the driver lists a device, by nvidia-smi so that torch need not be imported."""
    program = shutil.which("nvidia-smi")
    if not program:
        return False
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and b"GPU" in listing.stdout


def _has_vllm(python: str | None) -> bool:
    if python is None or python == sys.executable:
        return importlib.util.find_spec("vllm") is not None
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        return subprocess.run([python, "-c", code], timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentTrouble(f"--vllm-python: cannot run {python}: {error}") from error
