"""A server of OpenAI's embeddings API, such as vLLM's, as the encoder of texts and pictures.

Texts go to /embeddings in batches, pictures one by one as chat messages, which is vLLM's extension of that API.

N items · M texts · E width of the space
"""

import asyncio
import base64
import os
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np

from model.encoders.sentence_models import mean_directions
from model.texts import normalize_text
from pipeline.captioning.chat_client import KEY_VARIABLE, TRANSIENT, Retries
from pipeline.errors import EnvironmentTrouble
from pipeline.media.images import encode_jpeg

TEXTS = 64  # in one request
WINDOW = 32  # requests in flight
RETRIES = Retries(attempts=5, timeout_s=120)


class EmbeddingServer:
    """Texts and pictures as vectors of unit length.

    Args:
        url: Address up to and with /v1. The model is the first that the server lists.

    Raises:
        EnvironmentTrouble: The server does not answer, or does not embed texts.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        (listed,) = self._ask([("GET", "models", {})])
        self.name = str(listed["data"][0]["id"])
        self.width = self.texts(["."]).shape[1]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts [M,E]."""
        texts = [normalize_text(text) or " " for text in texts]
        batches = [texts[start : start + TEXTS] for start in range(0, len(texts), TEXTS)]
        return self._vectors([{"input": batch} for batch in batches])

    descriptions = texts

    def media(self, items: Sequence[Sequence[Any]]) -> np.ndarray:
        """Items [N,E]: of a video the mean direction of its frames."""
        urls = [
            f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(frame.convert('RGB'), 95)).decode()}"
            for frames in items
            for frame in frames
        ]
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        vectors = self._vectors([{"messages": [{"role": "user", "content": [part]}]} for part in parts])
        return mean_directions(np.split(vectors, np.cumsum([len(frames) for frames in items])[:-1]))

    def _vectors(self, inputs: Sequence[dict[str, Any]]) -> np.ndarray:
        """The vectors of all requests, in order, of unit length."""
        asked = [("POST", "embeddings", {"model": self.name, "encoding_format": "float", **part}) for part in inputs]
        rows = [
            row["embedding"]
            for answer in self._ask(asked)
            for row in sorted(answer["data"], key=lambda row: int(row["index"]))
        ]
        vectors = np.array(rows, np.float32)
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
