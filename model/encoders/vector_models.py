"""Models of Sentence Transformers and of open_clip, whole: what goes in is prepared as they were saved.

N items · M texts · E width of the space
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from model.texts import normalize_text

BATCH = 32  # texts or pictures that open_clip encodes at once

DIMENSIONS = "@"  # NAME@256: the first 256 values of a vector, for a model trained to be cut (Matryoshka)


class SentenceModel:
    """Texts and pictures as vectors of unit length. A model without pictures has only zeros for them.

    Args:
        name: Folder or name on the Hub, with `@DIMENSIONS` for shorter vectors.

    Raises:
        ValueError: The package is missing.
        OSError: There is no such model.
    """

    def __init__(self, name: str):
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ValueError(
                f"{name} is a model of Sentence Transformers. Install the package: pip install 'leccr[sentence]'"
            ) from error
        name, _, dimensions = name.partition(DIMENSIONS)
        cut = int(dimensions) if dimensions.isdecimal() else None
        self.model = SentenceTransformer(name, truncate_dim=cut, trust_remote_code=False)
        self.reads_pictures = "image" in self.model.modalities
        self.width = self.texts(["."]).shape[1]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E], with the prompt that the model has for queries."""
        return self._encode(self.model.encode_query, texts)

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Descriptions [M,E], with the prompt that the model has for documents."""
        return self._encode(self.model.encode_document, texts)

    def media(self, items: Sequence[Sequence[Any]]) -> np.ndarray:
        """Items [N,E]: of a video the mean direction of its frames, as pictures."""
        if not self.reads_pictures:
            return np.zeros((len(items), self.width), np.float32)
        return frame_means(items, lambda frames: self._encode(self.model.encode_document, frames))

    def _encode(self, encode: Any, inputs: Sequence[Any]) -> np.ndarray:
        vectors: np.ndarray = encode(list(inputs), normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype(np.float32)


class OpenClipModel:
    """Texts and pictures as vectors of unit length, by a model of the package `open_clip`.

    Args:
        name: As that package has it: `hf-hub:OWNER/NAME` or `local-dir:FOLDER`.

    Raises:
        ValueError: The package is missing, or cannot load the model.
    """

    def __init__(self, name: str):
        try:
            import open_clip

            self.model, self.prepare = open_clip.create_model_from_pretrained(name)
            self.tokenize = open_clip.get_tokenizer(name)
        except (ImportError, RuntimeError, LookupError) as error:
            raise ValueError(
                f"{name}: open_clip cannot load it ({error}). Install the package: pip install 'leccr[open-clip]'"
            ) from error
        self.device = torch.accelerator.current_accelerator() or torch.device("cpu")
        self.model.to(self.device).eval()

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts [M,E]."""
        return self._encode(self.model.encode_text, lambda part: self.tokenize(list(map(normalize_text, part))), texts)

    descriptions = texts

    def media(self, items: Sequence[Sequence[Any]]) -> np.ndarray:
        """Items [N,E]: of a video the mean direction of its frames."""

        def prepare(frames: Sequence[Any]) -> torch.Tensor:
            return torch.stack([self.prepare(frame) for frame in frames])

        return frame_means(items, lambda frames: self._encode(self.model.encode_image, prepare, frames))

    @torch.inference_mode()
    def _encode(self, encode: Any, prepare: Any, inputs: Sequence[Any]) -> np.ndarray:
        batches = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
        vectors = [normalize(encode(prepare(batch).to(self.device)).float(), dim=-1) for batch in batches]
        return torch.cat(vectors).cpu().numpy()


def frame_means(items: Sequence[Sequence[Any]], encode: Callable[[list[Any]], np.ndarray]) -> np.ndarray:
    """[N,E] of unit length, the mean of the vectors that `encode` makes of each item's frames."""
    vectors = encode([frame.convert("RGB") for frames in items for frame in frames])
    ends = np.cumsum([len(frames) for frames in items])[:-1]
    means_NE = np.stack([vectors_FE.mean(0) for vectors_FE in np.split(vectors, ends)])
    means_NE /= np.maximum(np.linalg.norm(means_NE, axis=1, keepdims=True), 1e-12)
    return means_NE
