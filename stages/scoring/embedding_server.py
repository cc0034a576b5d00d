"""A server of OpenAI's embeddings API, such as vLLM's, as the encoder of texts and pictures.

Texts go to /embeddings in batches, pictures one by one as chat messages, which is vLLM's extension of that API.

N items · M texts · E width of the space
"""

import asyncio
import base64
import os
import sys
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from model.encoders.vector_models import DIMENSIONS, SentenceModel, frame_means
from model.texts import normalize_text
from pipeline.captioning.chat_client import KEY_VARIABLE, TRANSIENT, Retries
from pipeline.errors import EnvironmentTrouble
from pipeline.media.images import encode_jpeg

TEXTS = 64  # in one request
WINDOW = 32  # requests in flight
RETRIES = Retries(attempts=5, timeout_s=120)
AGREES = 0.99  # cosine of the same input's vectors: servers compute in half precision
SENTENCE = "a red cat on a sofa next to two dogs and a child with an old bicycle in front of the house by a lake"
PROBES = [SENTENCE[4 * start :] for start in range(20)]  # to compare with a local model


class EmbeddingServer:
    """Texts and pictures as vectors of unit length.

    Args:
        url: Address up to and with /v1, with `@DIMENSIONS` for shorter vectors, and `#NAME` for a model of Sentence
            Transformers to compare its vectors with. The model is the first that the server lists.

    Raises:
        EnvironmentTrouble: The server does not answer, does not embed texts, or has other vectors than NAME.
    """

    def __init__(self, url: str):
        address, _, local = url.partition("#")
        self.url, _, dimensions = address.rstrip("/").partition(DIMENSIONS)
        self.width: Any = int(dimensions) if dimensions.isdecimal() else None
        ((model, *_),) = (listed["data"] for listed in self._ask([("GET", "models", {})]))
        self.name = str(model["id"])
        self.parameters: dict[str, Any] = {"model": self.name, "encoding_format": "float"}
        if "max_model_len" in model:  # of vLLM, which refuses longer texts otherwise
            self.parameters["truncate_prompt_tokens"] = -1
        self.width = self.texts(["."]).shape[1]
        self.reads_pictures = True
        try:
            self.media([[Image.new("RGB", (64, 64))]])
        except EnvironmentTrouble:
            self.reads_pictures = False
            print(f"note: {self.name} at {self.url} embeds no pictures, only texts", file=sys.stderr)
        if local:
            self._compare(SentenceModel(local), local)

    def _compare(self, local: SentenceModel, name: str) -> None:
        """Print the smallest cosine of 20 vectors with a local model's; raises EnvironmentTrouble below AGREES."""
        count = 4 if self.reads_pictures and local.reads_pictures else 0
        pictures = [[Image.linear_gradient("L").rotate(90 * turn)] for turn in range(count)]
        inputs: list[Any] = [PROBES[:8], PROBES[8 + count :], pictures]
        ways = (self.texts, local.texts), (self.descriptions, local.descriptions), (self.media, local.media)
        cosine = min((own(part) * of(part)).sum(1).min() for (own, of), part in zip(ways, inputs, strict=True) if part)
        message = f"20 vectors of {self.url} and {name}: the smallest cosine is {cosine:.5f}"
        if cosine < AGREES:
            raise EnvironmentTrouble(f"{message}, so they are not the same model, or have other prompts or pooling")
        print(message, file=sys.stderr)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts [M,E]."""
        texts = [normalize_text(text) or " " for text in texts]
        batches = [texts[start : start + TEXTS] for start in range(0, len(texts), TEXTS)]
        return self._vectors([{"input": batch} for batch in batches])

    descriptions = texts

    def media(self, items: Sequence[Sequence[Any]]) -> np.ndarray:
        """Items [N,E]: of a video the mean direction of its frames; zeros where the model reads only texts."""
        if not self.reads_pictures:
            return np.zeros((len(items), self.width), np.float32)
        return frame_means(items, lambda frames: self._vectors([{"messages": _message(frame)} for frame in frames]))

    def _vectors(self, inputs: Sequence[dict[str, Any]]) -> np.ndarray:
        """The vectors of all requests, in order, of unit length."""
        asked = [("POST", "embeddings", {**self.parameters, **part}) for part in inputs]
        rows = [
            row["embedding"]
            for answer in self._ask(asked)
            for row in sorted(answer["data"], key=lambda row: int(row["index"]))
        ]
        vectors = np.array(rows, np.float32)[:, : self.width]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _ask(self, requests: Sequence[tuple[str, str, dict[str, Any]]]) -> list[Any]:
        """The answers to requests of method, path and body."""

        async def ask_all() -> list[Any]:
            key = os.environ.get(KEY_VARIABLE)
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            timeout, window = aiohttp.ClientTimeout(total=RETRIES.timeout_s), aiohttp.TCPConnector(limit=WINDOW)
            async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=window) as session:
                return await asyncio.gather(*(self._answer(session, *request) for request in requests))

        return asyncio.run(ask_all())

    async def _answer(self, session: aiohttp.ClientSession, method: str, path: str, body: dict[str, Any]) -> Any:
        address, reason = f"{self.url}/{path}", ""
        for attempt in range(1, RETRIES.attempts + 1):
            try:
                async with session.request(method, address, json=body or None) as response:
                    if response.status == 200:
                        return await response.json(content_type=None)
                    reason = f"status {response.status}: {(await response.text())[:200]}"
                    if response.status not in TRANSIENT:
                        break
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                reason = str(error) or type(error).__name__
            if not body:  # a server that does not even list its model
                break
            await asyncio.sleep(RETRIES.wait_s(attempt, 0))
        raise EnvironmentTrouble(
            f"{address} gave no vectors: {reason}. Check the address (up to and with /v1), that the server runs an "
            f"embedding model, and {KEY_VARIABLE}"
        )


def _message(frame: Any) -> list[dict[str, Any]]:
    url = f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(frame, 95)).decode()}"
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
