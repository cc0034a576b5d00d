"""Models of Sentence Transformers, whole: their modules, prompts and pooling are used as they were saved.

N items · M texts · E width of the space
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

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
        frames = [frame.convert("RGB") for frames in items for frame in frames]
        ends = np.cumsum([len(frames) for frames in items])[:-1]
        return mean_directions(np.split(self._encode(self.model.encode_document, frames), ends))

    def _encode(self, encode: Any, inputs: Sequence[Any]) -> np.ndarray:
        vectors: np.ndarray = encode(list(inputs), normalize_embeddings=True, show_progress_bar=False)
        return vectors.astype(np.float32)


def mean_directions(items: Sequence[np.ndarray]) -> np.ndarray:
    """[N,E] of unit length, the mean of each item's vectors [F,E]."""
    means_NE = np.stack([vectors_FE.mean(0) for vectors_FE in items])
    lengths_N1: np.ndarray = np.linalg.norm(means_NE, axis=1, keepdims=True)
    means_NE /= np.maximum(lengths_N1, 1e-12)
    return means_NE
