"""Files of batch services in OpenAI's format: chat requests to upload, and results to read.

    {"custom_id": "KEY", "method": "POST", "url": "/v1/chat/completions", "body": {…}}
    {"custom_id": "KEY", "response": {"status_code": 200, "body": {…}}, "error": null}

A `custom_id` is the key of the answer in the response cache, and the times of a video's frames: `KEY:0.5:1.5`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline.captioning.chat_client import RequestFailed, error_text, parse_answer
from pipeline.captioning.prompts import Answer
from pipeline.errors import UsageError

MAX_REQUESTS, MAX_BYTES = 50_000, 190_000_000  # of a file; OpenAI takes 50,000 requests and 200 MB


class BatchWriter:
    """Writes requests to FOLDER/requests-00000.jsonl and further files, each within the limits of batch services."""

    def __init__(self, folder: Path):
        if any(folder.glob("requests-*.jsonl")):
            raise UsageError(f"--batch-export: {folder} has requests already. Give a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._room = folder, [0, 0]
        self.files: list[BinaryIO] = []
        self.ids: set[str] = set()

    def add(self, key: str, times_s: Sequence[float], body: bytes) -> None:
        """Write a request, unless it was written for another item of the same content."""
        custom_id = ":".join([key, *map(repr, times_s)])
        if custom_id in self.ids:
            return
        self.ids.add(custom_id)
        head = json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions"})
        line = head[:-1].encode() + b', "body": ' + body + b"}\n"
        self._room = [self._room[0] - 1, self._room[1] - len(line)]
        if min(self._room) < 0:
            self.close()
            self.files.append((self._folder / f"requests-{len(self.files):05d}.jsonl").open("wb"))
            self._room = [MAX_REQUESTS - 1, MAX_BYTES - len(line)]
        self.files[-1].write(line)

    def close(self) -> None:
        """Close the last file."""
        for file in self.files[-1:]:
            file.close()


def read_results(path: Path) -> Iterator[tuple[str, list[float], Answer | RequestFailed]]:
    """Read a file of results, or all .jsonl files of a folder; files of requests are skipped.

    Yields:
        The answer's key, the times of the frames in seconds, and the answer or why there is none.

    Raises:
        UsageError: A line is not a result.
    """
    paths = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not paths or not paths[0].exists():
        raise UsageError(f"--batch-import: {path} is not a file of results or a folder of .jsonl files")
    for file in paths:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    result = json.loads(line)
                    if "body" in result:
                        break
                    key, *times = result["custom_id"].split(":")
                    response, times_s = result.get("response") or {}, [float(time) for time in times]
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    raise UsageError(f"--batch-import: line {number} of {file} is not a result: {error!r}") from error
                yield key, times_s, _reply(response, result.get("error"))


def _reply(response: dict[str, object], error: object) -> Answer | RequestFailed:
    body = json.dumps(response.get("body") or error).encode()
    if (status := response.get("status_code")) != 200:
        return RequestFailed(f"http_{status}" if status else "batch", error_text(body))
    try:
        return parse_answer(body, "its limit")
    except RequestFailed as failure:
        return failure
