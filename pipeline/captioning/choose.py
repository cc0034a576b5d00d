"""Which captioner a run uses, and why: `--captioner auto|vllm|embedded`."""

import argparse
import asyncio
import contextlib
import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pipeline.captioning.captioners import EmbeddedCaptioner, MllmCaptioner
from pipeline.captioning.chat_client import Retries, environment_key, served_model
from pipeline.captioning.embedded.describer import EmbeddedDescriber, check_views, embedded_revision
from pipeline.captioning.prompts import View
from pipeline.captioning.vllm_server import READY_WITHIN_S, VllmServer
from pipeline.engine.stage import Stage
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import folder_hash

URL_VARIABLE = "LECCR_MLLM_URL"
DEFAULT_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
Captioner = MllmCaptioner | EmbeddedCaptioner
AnyStage = TypeVar("AnyStage", bound=Stage)
Say = Callable[[str], None]


def choose(options: argparse.Namespace, views: tuple[View, ...], say: Say) -> Captioner:
    """The captioner that the options ask for. One whose server is still to be started has no `urls` yet."""
    if options.captioner == "embedded" and (options.mllm_url or options.mllm):
        raise UsageError(
            "--captioner embedded asks no server: leave --mllm-url and --mllm out, or give --captioner vllm"
        )
    if options.captioner == "embedded":
        return _embedded(views, "--captioner embedded", say)
    if model := served(options, "captioner", options.captioner == "vllm", say):
        return model
    if _cuda_device() and _has_vllm(options.vllm_python):
        say(f"captioner: {DEFAULT_MODEL} on a vLLM server of this run's own (a CUDA device and vLLM are here)")
        return _mllm(options, (), DEFAULT_MODEL)
    reason = f"no --mllm-url, no ${URL_VARIABLE}, and no CUDA device with vLLM here"
    return _embedded(views, reason, say)


def served(options: argparse.Namespace, role: str, needed: bool, say: Say) -> MllmCaptioner | None:
    """The model on chat servers that the options name; where none is named, None, or the default one if `needed`."""
    from_environment = (url.strip() for url in os.environ.get(URL_VARIABLE, "").split(","))
    urls = tuple(options.mllm_url or filter(None, from_environment))
    if urls:
        source = "--mllm-url" if options.mllm_url else f"${URL_VARIABLE}"
        model = asyncio.run(served_model(urls, options.mllm or "", environment_key().strip(), say))
        say(f"{role}: {model} at {', '.join(urls)} ({source})")
        return _mllm(options, urls, model)
    if needed or options.mllm:
        model = options.mllm or DEFAULT_MODEL
        say(f"{role}: {model} on a vLLM server of this run's own (no --mllm-url, no ${URL_VARIABLE})")
        return _mllm(options, (), model)
    return None


def _embedded(views: tuple[View, ...], reason: str, say: Say) -> EmbeddedCaptioner:
    check_views(views)
    say(f"captioner: the embedded describer, an image classifier and no language model ({reason})")
    return EmbeddedCaptioner(EmbeddedDescriber.captioner, embedded_revision())


def _mllm(options: argparse.Namespace, urls: tuple[str, ...], model: str) -> MllmCaptioner:
    revision = options.mllm_revision or (folder_hash(Path(model)) if Path(model).is_dir() else "")
    retries = Retries(options.attempts, options.timeout, options.patience)
    return MllmCaptioner(urls, model, revision, options.window, retries)


def _cuda_device() -> bool:
    """Whether the driver lists a device: asked of nvidia-smi, so that torch need not be imported."""
    program = shutil.which("nvidia-smi")
    if not program:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and b"GPU" in listed.stdout


def _has_vllm(python: str | None) -> bool:
    if python is None or python == sys.executable:
        return importlib.util.find_spec("vllm") is not None
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        return subprocess.run([python, "-c", code], timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentTrouble(f"--vllm-python: cannot run {python}: {error}") from error


@contextlib.contextmanager
def serving(stage: AnyStage, options: argparse.Namespace, corpus: Path, say: Say) -> Iterator[AnyStage]:
    """The stage ready to be worked: where its model has no server, one is started here and ended with the block."""
    model = stage.server
    if model is None or model.urls:
        yield stage
        return
    with VllmServer(model.name, corpus, python=options.vllm_python, args=options.vllm_args, say=say) as server:
        # A server that is started again takes as long as it did at first; the one who starts it says when to give up.
        retries = dataclasses.replace(model.retries, patience_s=max(model.retries.patience_s, READY_WITHIN_S))
        yield stage.asking(dataclasses.replace(model, urls=(server.url,), retries=retries))
