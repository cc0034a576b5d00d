"""What makes items, texts and pictures comparable: a trained model, or the sentence encoder that needs no training.

In either space the score of an item is the largest inner product of the query with any of the item's rows, so that an
index need not know which of the two it holds.

N items · R rows an item · M texts · E width of the space · K slots, or classes
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import UsageError
from pipeline.hashing import canonical_json, file_hash, short_hash

EMBEDDED = "embedded"
# of the classifier's second opinion, chosen on the nine sample photos: the likeliest classes, each weighed by a power
# of its probability, as one vector of length 1; descriptions count half as much
TOP_CLASSES, POWER, DESCRIPTIONS = 10, 0.5, 0.5
LANES = 16  # FAISS compares small values ten times as fast where they are a multiple of so many

Frames = Any  # of an item: list of pictures, or an array of features


class Space(Protocol):
    """`told` is what an index keeps of its space: kind, name and a fingerprint of all that decides a vector."""

    told: dict[str, Any]
    width: int
    languages: str  # that queries may be in, for the user
    tags: frozenset[str]  # the same as BCP 47; none where they are not told one by one
    takes_pictures: bool
    slot_views: tuple[str, ...]  # that items' rows are made of; none: every view

    def to(self, device: Any) -> None:
        """Encodes on this device from here on."""
        ...

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E]."""
        ...

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E] of pictures that nobody described."""
        ...

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int) -> np.ndarray:
        """Rows [N,R,E]; R does not depend on the batch. `most`: descriptions of an item at most, in any batch."""
        ...

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Rows [M,E] of descriptions by themselves, to compare text with text."""
        ...


def open_space(checkpoint: str) -> Space:
    """A run, a model's folder, a name on the Hub, or "embedded". Raises UsageError for what is none of these."""
    return EmbeddedSpace() if checkpoint == EMBEDDED else ModelSpace(checkpoint)


class ModelSpace:
    """A LECCR checkpoint, or another two-tower model of Transformers.

    The score a·⟨q, ĥ⟩ + (1 − a)·max_k ⟨q, slot_k⟩ is max_k ⟨q, a·ĥ + (1 − a)·slot_k⟩: K rows an item.
    """

    def __init__(self, checkpoint: str):
        import torch  # late: telling what is wrong with a command needs none of it

        from stages.scoring.checkpoint import find_checkpoint

        self._torch = torch
        found = find_checkpoint(checkpoint)
        self.model, self.processor, self.global_weight = found.load()
        self.model.train(False)
        self.slot_views = found.slot_views
        where = str(Path(checkpoint).absolute()) if Path(checkpoint).exists() else checkpoint
        self.told = {"kind": "model", "name": where, "fingerprint": self._fingerprint(found.source)}
        self.languages, self.tags = "those of its training", frozenset[str]()
        self.takes_pictures = self.processor_takes_pictures()
        self.width = self.texts(["."]).shape[1]

    def _fingerprint(self, source: str) -> str:
        folder = Path(source)
        if folder.is_dir():
            files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".model"))
            what: Any = [(path.name, file_hash(path)) for path in files]
        else:
            what = [source, getattr(self.model.config, "_commit_hash", None)]
        return short_hash(canonical_json([what, self.global_weight]))

    def processor_takes_pictures(self) -> bool:
        from stages.data.features import wanted_dim

        return wanted_dim(self.processor) is None

    def to(self, device: Any) -> None:
        self.model.to(device)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._numpy(lambda: self.model.encode_text(self._moved(self.processor.texts(list(texts)))))

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        def encode() -> Any:
            nothing = self.processor.descriptions([[] for _ in items])
            return self.model.encode_media(self._moved(self.processor.media(items)), self._moved(nothing))[0]

        return self._numpy(encode)

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 0) -> np.ndarray:
        def encode() -> Any:
            told = self.processor.descriptions(descriptions)
            media_NE, slots_NKE = self.model.encode_media(self._moved(self.processor.media(frames)), self._moved(told))
            share = self.global_weight
            if not slots_NKE.shape[1] or share == 1:
                return media_NE[:, None]
            return share * media_NE[:, None] + (1 - share) * slots_NKE

        return self._numpy(encode)

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        return self.texts(texts)

    def _moved(self, parts: Any) -> Any:
        return type(parts)(*(part.to(self.model.device) for part in parts))

    def _numpy(self, encode: Any) -> np.ndarray:
        with self._torch.inference_mode():
            return encode().float().cpu().numpy()


class EmbeddedSpace:
    """Descriptions and queries meet in a multilingual sentence encoder, with an image classifier's second opinion.

    ⟨q − m, c⟩ + ½·max_v ⟨q, d_v⟩, where d_v are an item's descriptions, c its likely classes' names less m, the mean of
    all names. As one inner product: the query is (q, 1), a description's row (c + ½ d_v, −⟨m, c⟩), both with zeros up
    to a multiple of LANES.
    """

    takes_pictures = True

    def __init__(self) -> None:
        from pipeline.captioning.embedded.describer import EmbeddedDescriber, embedded_revision
        from pipeline.quality.similarity import USEM3_LANGUAGES, load_encoder

        self.describer, self.encoder = EmbeddedDescriber(), load_encoder("usem3")
        names_KE = self.encoder.encode(self.describer.names)
        self.mean_E = names_KE.mean(axis=0)
        self.names_KE = names_KE - self.mean_E
        self.width = -(-(names_KE.shape[1] + 1) // LANES) * LANES
        self.slot_views: tuple[str, ...] = ()
        self.languages, self.tags = ", ".join(sorted(USEM3_LANGUAGES)), USEM3_LANGUAGES
        settings = [embedded_revision(), TOP_CLASSES, POWER, DESCRIPTIONS, self.width]
        self.told = {"kind": EMBEDDED, "name": EMBEDDED, "fingerprint": short_hash(canonical_json(settings))}

    def to(self, device: Any) -> None:
        """It has no use for a GPU."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._widened(self.encoder.encode(texts), 1.0)

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """As texts that name the likely classes would be."""
        queries_ME = np.stack([self._classes(frames) for frames in items]) + self.mean_E
        queries_ME /= np.linalg.norm(queries_ME, axis=1, keepdims=True)
        return self._widened(queries_ME, 1.0)

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 1) -> np.ndarray:
        """An item with fewer descriptions than `most` has its rows several times."""
        most = max(1, most)
        rows_NRE = np.empty((len(frames), most, self.width), np.float32)
        for rows_RE, shown, told in zip(rows_NRE, frames, descriptions, strict=True):
            classes_E = self._classes(shown)
            told_VE = self.encoder.encode(told) if told else np.zeros((1, len(classes_E)), np.float32)
            own_RE = self._widened(classes_E + DESCRIPTIONS * told_VE, -self.mean_E @ classes_E)
            rows_RE[:] = own_RE[np.arange(most) % len(own_RE)]
        return rows_NRE

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
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
                "--checkpoint embedded: got features computed before, wanted pictures: name a model that was "
                "trained on these features"
            )
        chances_K = self.describer.chances(frames)
        top = np.argsort(-chances_K, kind="stable")[:TOP_CLASSES]
        weights = chances_K[top] ** POWER
        found_E = weights @ self.names_KE[top]
        return found_E / np.linalg.norm(found_E)
