"""The lifetime of a vLLM server: started, waited for, watched, restarted within a budget, ended with its children.

vLLM is never imported: it runs in the environment of `--vllm-python` and is asked over HTTP on loopback, with a key of
its own in a file that only the owner of the run can read.
"""

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from pipeline.captioning.servers import KEY_FILE
from pipeline.corpus.table import state_folder
from pipeline.engine.progress import duration
from pipeline.engine.run_state import request_stop, run_folder, stop_request
from pipeline.engine.stage import Say
from pipeline.errors import EnvironmentTrouble, PipelineError
from pipeline.storage.files import local_folder

READY_WITHIN_S = 1_800.0
POLL_S = 0.5
REPORT_EVERY_S = 15.0
MAX_RESTARTS = 5
RESTARTS_RESET_S = 3_600.0  # after so long without a crash, the count of restarts begins again
UNHEALTHY_S = 60.0  # a server that answers no health check for so long is restarted
LOG = "vllm.log"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before loopback


class VllmServer:
    """A vLLM server that answers at `url` within a `with` block.

    If it dies, it is started again on the same port, at most MAX_RESTARTS times in a row. Then it stops the run.

    Args:
        model: Name or folder of the model.
        corpus: The folder whose state holds the server's key and log.
        say: Prints a line.
        python: Interpreter of the environment that has vLLM; None for this one.
        args: Further options of the server.

    Raises:
        EnvironmentTrouble: The server cannot be started.
    """

    def __init__(self, model: str, corpus: Path, say: Say, python: str | None = None, args: Sequence[str] = ()):
        self._model, self._corpus, self._say = model, corpus, say
        self._python = python or sys.executable
        self._arguments = args
        self._log_path = local_folder(state_folder(corpus)) / LOG
        self._key = secrets.token_hex(16)
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="vllm-watch", daemon=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> "VllmServer":
        if shutil.which(self._python) is None:
            raise EnvironmentTrouble(
                f"--vllm-python: {self._python} is not a program: give the interpreter that has vLLM"
            )
        key_file = run_folder(self._corpus) / KEY_FILE
        key_file.touch(mode=0o600)
        key_file.write_text(self._key)
        self._log_path.unlink(missing_ok=True)
        self._start()
        try:
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._watcher.join()
        self._end()

    def _start(self) -> None:
        command = [
            *(sys.executable, str(Path(__file__).with_name("guard.py"))),
            *(self._python, "-m", "vllm.entrypoints.openai.api_server"),
            *self._arguments,  # first: the last of options given twice counts
            *("--model", self._model, "--served-model-name", self._model),
            *("--host", "127.0.0.1", "--port", str(self._port)),
        ]
        environment = {**os.environ, "VLLM_API_KEY": self._key, "VLLM_NO_USAGE_STATS": "1"}
        environment.pop("PYTHONPATH", None)
        pipe, output = subprocess.PIPE, subprocess.STDOUT
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=log, stderr=output, env=environment, start_new_session=True
            )

    def _end(self) -> None:
        """Close the guard's pipe, upon which it ends the server's whole process group and itself."""
        self._process.communicate()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # in case the guard itself was killed

    def _wait_until_ready(self) -> None:
        started = reported = time.monotonic()
        self._say(f"vLLM: starting {self._model}; its log is {self._log_path}")
        while not self._is_healthy():
            now = time.monotonic()
            if self._ending.is_set():
                return
            if error := stop_request(self._corpus):
                raise error
            if self._process.poll() is not None:
                raise EnvironmentTrouble(f"vLLM did not start:\n{self._last_lines()}\nThe whole log: {self._log_path}")
            if now - started > READY_WITHIN_S:
                raise EnvironmentTrouble(f"vLLM was not ready after {duration(READY_WITHIN_S)}: see {self._log_path}")
            if now - reported >= REPORT_EVERY_S:
                reported = now
                self._say(f"vLLM: {duration(now - started)}: {self._last_lines(1)}")
            time.sleep(POLL_S)
        self._say(f"vLLM: ready after {duration(time.monotonic() - started)}")

    def _watch(self) -> None:
        """Start the server again whenever it has died or has been unhealthy for long, until the run ends."""
        restarts = 0
        ready = healthy = time.monotonic()
        while not self._ending.wait(POLL_S):
            if self._process.poll() is None:
                healthy = time.monotonic() if self._is_healthy() else healthy
                if time.monotonic() - healthy < UNHEALTHY_S:
                    continue
            restarts = 1 if healthy - ready > RESTARTS_RESET_S else restarts + 1
            if restarts > MAX_RESTARTS:
                message = f"vLLM died {restarts} times:\n{self._last_lines()}\nThe whole log: {self._log_path}. "
                message += "Finished work is kept: repair the server, then run the same command again"
                request_stop(self._corpus, EnvironmentTrouble(message))
                return
            self._say(f"vLLM: died, starting it again ({restarts} of {MAX_RESTARTS}): {self._last_lines(1, 'error')}")
            self._end()
            self._start()
            try:
                self._wait_until_ready()
            except EnvironmentTrouble as error:
                self._say(f"vLLM: {error}")
            except PipelineError:
                return  # the run is being stopped
            ready = healthy = time.monotonic()

    def _is_healthy(self) -> bool:
        try:
            with DIRECT.open(f"http://127.0.0.1:{self._port}/health", timeout=5):
                return True
        except (OSError, http.client.HTTPException):
            return False

    def _last_lines(self, count: int = 12, word: str = "") -> str:
        """The last lines of the log, or the last that contain `word`, if any does."""
        lines = self._log_path.read_text("utf-8", "replace").strip().splitlines()
        lines = [line for line in lines[-200:] if word in line.lower()] or lines
        return "\n".join(lines[-count:])[-3000:] or "(the log is empty)"
