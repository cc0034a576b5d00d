"""Spaces in which items, texts and pictures are compared: a trained model, or a sentence encoder without training.

In either space the score of an item is the largest inner product of the query with any of the item's rows, so an index
works the same for both.

N items · R rows per item · M texts · E width of the space · K slots
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np

from pipeline.hashing import canonical_json, file_hash, short_hash
from stages.data.media import Frames
from stages.scoring.checkpoint import EMBEDDED, find_checkpoint
from stages.scoring.zero_shot import DESCRIPTIONS, POWER, TOP_CLASSES, EmbeddedEncoder

if TYPE_CHECKING:  # imports torch
    from model.fusion import Fusion

# Files of a model's folder that no vector depends on; optimisers and other frameworks have large ones.
NO_WEIGHTS = (".md", ".png", ".jpg", ".h5", ".msgpack", ".onnx")


class Space(Protocol):
    """Maps items and queries to vectors.

    Attributes:
        identity: What an index records: `kind`, `name`, `late_fusion` if one was given, and a `fingerprint` of
            everything that decides a vector.
        width: E.
        languages: The languages of queries, in words.
        tags: The same as BCP 47 tags; empty if they are not known.
        slot_views: Views from which the items' rows are made; empty for all.
    """

    identity: dict[str, Any]
    width: int
    languages: str
    tags: frozenset[str]
    slot_views: tuple[str, ...]

    def to(self, device: Any) -> None:
        """Encode on this device from now on."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E]."""

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E] from pictures without descriptions."""

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 1) -> np.ndarray:
        """Rows [N,R,E] of items; R does not depend on the batch. `most`: the most descriptions of any item."""

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Rows [M,E] of single descriptions, to compare text with text."""


class LateFusion(TypedDict):
    """A late fusion in place of a model's own, as `score.py` reports it: see `Fusion`, with the views by name."""

    global_weight: float
    pooling: str
    view_weights: dict[str, float]
    views: list[str]


def open_space(checkpoint: str, late_fusion: LateFusion | None = None) -> Space:
    """Open a run, a model folder, a name on the Hub, or `embedded`. Raises UsageError for anything else."""
    return EmbeddedSpace(late_fusion) if checkpoint == EMBEDDED else ModelSpace(checkpoint, late_fusion)


class ModelSpace:
    """A LECCR checkpoint, or another two-tower model of Transformers.

    The score a·⟨q, ĥ⟩ + (1 − a)·max_k ⟨q, slot_k⟩ is max_k ⟨q, a·ĥ + (1 − a)·slot_k⟩: K rows per item.
    """

    languages, tags = "the languages it was trained on", frozenset[str]()

    def __init__(self, checkpoint: str, late_fusion: LateFusion | None = None):
        weights = find_checkpoint(checkpoint)
        self.model, self.processor, fusion = weights.load()
        self.device: Any = "cpu"
        self.slot_views = weights.slot_views
        if late_fusion:
            fusion, self.slot_views = _fusion(late_fusion), tuple(late_fusion["views"])
            self.model = _with_fusion(self.model, fusion, self.slot_views)
        self.global_weight = fusion.global_weight if fusion else 1.0
        self.model.train(False)
        name = str(Path(checkpoint).absolute()) if Path(checkpoint).exists() else checkpoint
        self.identity = _identity("model", name, self._fingerprint(weights.source, late_fusion), late_fusion)
        self.width = self.texts(["."]).shape[1]

    def _fingerprint(self, source: str, late_fusion: LateFusion | None) -> str:
        from huggingface_hub import try_to_load_from_cache

        folder = Path(source)
        if folder.is_dir():
            files = sorted(path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file())
            weights: Any = [
                (str(path.relative_to(folder)), file_hash(path))
                for path in files
                if path.suffix not in NO_WEIGHTS and not path.name.startswith(".")
            ]
        else:
            config = try_to_load_from_cache(source, "config.json")
            weights = [source, Path(config).parent.name if isinstance(config, str) else None]  # the commit
        return short_hash(canonical_json([weights, self.global_weight, *([late_fusion] if late_fusion else [])]))

    def to(self, device: Any) -> None:
        """Move the model."""
        self.model.to(device)
        self.device = device

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E], h(q)."""
        return self._numpy(lambda: self.model.encode_text(self._moved(self.processor.texts(list(texts)))))

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E]: the global vectors of items without descriptions."""
        return self._numpy(lambda: self._media(items, [[] for _ in items])[0])

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 1) -> np.ndarray:
        """Rows [N,K,E], or [N,1,E] if the score has no local part."""

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

    def _moved(self, inputs: Any) -> Any:
        from model.batch import to_device

        return to_device(inputs, self.device)

    def _numpy(self, encode: Callable[[], Any]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            vectors: np.ndarray = encode().float().cpu().numpy()
        return vectors


class EmbeddedSpace:
    """Descriptions and queries meet in a multilingual sentence encoder, with an image classifier's second opinion.

    ⟨q − m, c⟩ + ½·max_v ⟨q, d_v⟩, see `stages.scoring.zero_shot`: a description's row is (c + ½ d_v, −⟨m, c⟩).
    """

    def __init__(self, late_fusion: LateFusion | None = None) -> None:
        from pipeline.captioning.embedded.describer import embedded_revision

        self.encoder = EmbeddedEncoder()
        self.width, self.tags = self.encoder.width, self.encoder.tags
        self.languages = ", ".join(sorted(self.tags))
        self.fusion = _fusion(late_fusion) if late_fusion else None
        self.slot_views = tuple(late_fusion["views"]) if late_fusion else ()
        settings: list[Any] = [embedded_revision(), TOP_CLASSES, POWER, DESCRIPTIONS, self.width]
        settings += [late_fusion] if late_fusion else []
        self.identity = _identity(EMBEDDED, EMBEDDED, short_hash(canonical_json(settings)), late_fusion)

    def to(self, device: Any) -> None:
        """Do nothing: it does not use a GPU."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E]."""
        return self.encoder.texts(texts)

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E], like those of texts that name the likely classes."""
        return self.encoder.pictures(items)

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], most: int = 1) -> np.ndarray:
        """Rows [N,most,E]: the rows of an item with fewer descriptions are repeated."""
        if self.fusion:
            return self._fused(frames, descriptions, self.fusion)
        rows_NRE = np.empty((len(frames), max(1, most), self.width), np.float32)
        for rows_RE, media_E, texts in zip(rows_NRE, self.encoder.media(frames), descriptions, strict=True):
            own_RE = media_E + DESCRIPTIONS * self.encoder.descriptions(texts) if texts else media_E[None]
            rows_RE[:] = own_RE[np.arange(len(rows_RE)) % len(own_RE)]
        return rows_NRE

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Rows [M,E]."""
        return self.encoder.descriptions(texts)

    def _fused(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]], fusion: "Fusion") -> np.ndarray:
        """Rows [N,K,E] of a late fusion that was given."""
        import torch

        media_NE = torch.from_numpy(self.encoder.media(frames))
        views_NVE = torch.zeros(len(frames), max(1, len(self.slot_views)), self.width)
        for views_VE, texts in zip(views_NVE, descriptions, strict=True):
            for place, text in enumerate(texts):
                if text.strip():
                    views_VE[place] = torch.from_numpy(self.encoder.descriptions([text])[0])
        slots_NKE = fusion.slots(views_NVE, media_NE, self.slot_views)[0]
        rows_NKE: np.ndarray = torch.lerp(slots_NKE, media_NE[:, None], fusion.global_weight).numpy()
        return rows_NKE


def _identity(kind: str, name: str, fingerprint: str, late_fusion: LateFusion | None) -> dict[str, Any]:
    identity: dict[str, Any] = {"kind": kind, "name": name, "fingerprint": fingerprint}
    return {**identity, "late_fusion": late_fusion} if late_fusion else identity


def _fusion(late_fusion: LateFusion) -> "Fusion":
    """The fusion of an index, which pools the rows of an item by max where the score has logsumexp."""
    from model.fusion import Fusion

    pooling = "mean" if late_fusion["pooling"] == "mean" else "max"
    return Fusion(late_fusion["global_weight"], pooling, late_fusion["view_weights"])


def _with_fusion(model: Any, fusion: "Fusion", views: Sequence[str]) -> Any:
    """The model with this fusion in place of its own; its text tower reads the views if it has no slots of them."""
    if not model.slots_are_views:
        from stages.scoring.baselines import DescribedTowers

        return DescribedTowers(model, fusion, views)
    model.config.global_weight, model.config.local_pooling = fusion.global_weight, fusion.pooling
    model.config.view_weights = dict(fusion.view_weights)
    return model
