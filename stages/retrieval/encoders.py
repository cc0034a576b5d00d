"""Spaces in which items, texts and pictures are compared: a trained model, or a sentence encoder without training.

A space encodes the parts of items, which `--stage embed` stores, and makes rows of them. In either space the score of
an item is the largest inner product of the query with any of the item's rows, so an index works the same for both.

N items · R rows · M texts · E width of the space · K slots · V views
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np
import yaml

from pipeline.hashing import canonical_json, file_hash, short_hash
from stages.data.media import Frames
from stages.scoring.checkpoint import EMBEDDED, OPEN_CLIP_FOLDER, OPEN_CLIP_HUB, find_checkpoint
from stages.scoring.zero_shot import DESCRIPTIONS, POWER, TOP_CLASSES, EmbeddedEncoder

if TYPE_CHECKING:  # imports torch
    from model.fusion import Fusion

CAPTIONED = 0.25  # weight of the classifier where there is a human caption; chosen on the split val of Flickr8k
# Files of a model's folder that no vector depends on; optimisers and other frameworks have large ones.
NO_WEIGHTS = (".md", ".png", ".jpg", ".h5", ".msgpack", ".onnx")


class PartRows(NamedTuple):
    """The vectors of a part of some items, as the table `vectors` has them.

    Attributes:
        vectors_RE: The vectors, those of an item one after the other.
        items_R: The number of the item of each.
        views: The view of each.
    """

    vectors_RE: np.ndarray
    items_R: np.ndarray
    views: Sequence[str]

    def padded(self, items: int, names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Vectors [N,V,E], zeros where there is none, and where there are some [N,V].

        Args:
            items: N.
            names: The views to take, in order; without them every vector of an item is taken, in its order.
        """
        if names:
            places = {name: place for place, name in enumerate(names) if name}
            places_R = np.array([places.get(view, -1) for view in self.views], np.int64)
        else:
            places_R = np.arange(len(self.items_R)) - np.searchsorted(self.items_R, self.items_R)
        count = len(names) or int(places_R.max(initial=0)) + 1
        taken_R = places_R >= 0
        where = self.items_R[taken_R], places_R[taken_R]
        vectors_NVE = np.zeros((items, count, self.vectors_RE.shape[1]), np.float32)
        present_NV = np.zeros((items, count), bool)
        vectors_NVE[where], present_NV[where] = self.vectors_RE[taken_R], True
        return vectors_NVE, present_NV


class LateFusion(TypedDict):
    """A late fusion in place of a model's own, as `score.py` reports it: see `Fusion`, with the views by name."""

    global_weight: float
    pooling: str
    view_weights: dict[str, float]
    views: list[str]


def open_space(checkpoint: str, late_fusion: LateFusion | None = None) -> "Space":
    """Open a run, a model folder, a name on the Hub, or `embedded`. Raises UsageError for anything else."""
    return EmbeddedSpace(late_fusion) if checkpoint == EMBEDDED else Space(checkpoint, late_fusion)


def unrelated_texts() -> list[str]:
    """Texts that hardly any picture of a collection fits, short ones and sentences."""
    parts: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("unrelated.yaml").read_text("utf-8"))
    return [text for part in parts.values() for text in part]


class Space:
    """Maps items and queries to vectors, by a LECCR checkpoint or another model.

    The score a·⟨q, ĥ⟩ + (1 − a)·max_k ⟨q, slot_k⟩ is max_k ⟨q, a·ĥ + (1 − a)·slot_k⟩: K rows per item.

    Attributes:
        identity: What an index records: `kind`, `name`, `late_fusion` if one was given, and a `fingerprint` of
            everything that decides a row.
        model: Fingerprint of what decides the parts of items and texts, in the table `vectors`.
        width: E.
        languages: The languages of queries, in words.
        tags: The same as BCP 47 tags; empty if they are not known.
        slot_views: Views from which the items' rows are made; empty for all.
        reads_views: Whether the vectors of an item's own parts depend on its descriptions.
        slots_are_views: Whether its slots are its views, and not learned ones.
    """

    languages, tags = "the languages it was trained on", frozenset[str]()
    reads_views = slots_are_views = False
    device: Any = "cpu"

    def __init__(self, checkpoint: str, late_fusion: LateFusion | None = None):
        from model.fusion import Fusion

        weights = find_checkpoint(checkpoint)
        self.towers, self.processor, own_fusion = weights.load()
        self.towers.train(False)
        self.reads_views = getattr(getattr(self.towers, "config", None), "slots", "none") != "none"
        self.slots_are_views = self.reads_views and self.towers.slots_are_views
        self.fuses_views = self.towers.slots_are_views or late_fusion is not None
        self.fusion = _fusion(late_fusion) if late_fusion else _max_pooled(own_fusion or Fusion())
        self.slot_views = tuple(late_fusion["views"]) if late_fusion else weights.slot_views
        of_server = getattr(getattr(self.processor, "encoder", None), "name", None)
        name = str(Path(checkpoint).absolute()) if Path(checkpoint).exists() else checkpoint
        files = [weights.source, of_server] if of_server else _files(weights.source)
        self.model = short_hash(canonical_json([files, own_fusion.global_weight if own_fusion else 1.0]))
        self.identity = _identity("model", name, [files, self.fusion.global_weight], late_fusion)
        self.width = self.texts(["."]).shape[1]

    def to(self, device: Any) -> None:
        """Encode on this device from now on."""
        self.towers.to(device)
        self.device = device

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E]."""
        return self._encode(lambda: [self.towers.encode_text(self._moved(self.processor.texts(list(texts))))])[0]

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E] from pictures: the vectors of items without descriptions."""
        return self.items(items, [[] for _ in items])[0]

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Items [N,E] and their slots [N,K,E], not yet weighed or pooled; K = 0 without any.

        `descriptions` are those of `slot_views`.
        """

        def encode() -> Any:
            texts = self._moved(self.processor.descriptions(descriptions))
            return self.towers.encode_media(self._moved(self.processor.media(frames)), texts, fused=False)

        items_NE, slots_NKE = self._encode(encode)
        return items_NE, slots_NKE

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """Single descriptions [M,E] by the text tower, as `DescribedTowers` has them."""
        inputs = self.processor.descriptions([[text] for text in texts])
        inputs = type(inputs)(*(tensor.flatten(0, 1) for tensor in inputs))
        return self._encode(lambda: [self.towers.encode_text(self._moved(inputs))])[0]

    def rows(
        self, items_NE: np.ndarray, slots: PartRows, views: PartRows, captions: PartRows | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows [R,E] that a query is compared with, and how many each item has [N], from the parts of items.

        Those of the items themselves if the score has no local part. Captions have no part in it.
        """
        if self.fusion.global_weight == 1 or not (self.fuses_views or len(slots.items_R)):
            return items_NE, np.ones(len(items_NE), np.int32)
        if self.fuses_views:
            return fused_rows(self.fusion, items_NE, slots if self.slots_are_views else views, self.slot_views)
        share = np.float32(self.fusion.global_weight)
        slots_NKE, _ = slots.padded(len(items_NE))
        return _flat(share * items_NE[:, None] + (1 - share) * slots_NKE)

    def _moved(self, inputs: Any) -> Any:
        from model.batch import to_device

        return to_device(inputs, self.device)

    def _encode(self, encode: Callable[[], Any]) -> list[np.ndarray]:
        import torch

        with torch.inference_mode():
            return [vectors.float().cpu().numpy() for vectors in encode()]


class EmbeddedSpace(Space):
    """Descriptions and queries meet in a multilingual sentence encoder, with an image classifier's second opinion.

    ⟨q − m, c⟩ + ½·max_v ⟨q, d_v⟩, see `stages.scoring.zero_shot`: a description's row is (c + ½ d_v, −⟨m, c⟩). People
    are trusted more: the row of a caption t is (¼ c + t, −¼ ⟨m, c⟩).
    """

    def __init__(self, late_fusion: LateFusion | None = None) -> None:
        from pipeline.captioning.embedded.describer import embedded_revision

        self.encoder = EmbeddedEncoder()
        self.width, self.tags = self.encoder.width, self.encoder.tags
        self.languages = ", ".join(sorted(self.tags))
        self.late_fusion = _fusion(late_fusion) if late_fusion else None
        self.slot_views = tuple(late_fusion["views"]) if late_fusion else ()
        settings = [embedded_revision(), TOP_CLASSES, POWER, DESCRIPTIONS, self.width]
        self.model = short_hash(canonical_json(settings))
        self.identity = _identity(EMBEDDED, EMBEDDED, settings, late_fusion)

    def to(self, device: Any) -> None:
        """Do nothing: it does not use a GPU."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Queries [M,E]."""
        return self.encoder.texts(texts)

    def pictures(self, items: Sequence[Frames]) -> np.ndarray:
        """Queries [M,E], like those of texts that name the likely classes."""
        return self.encoder.pictures(items)

    def items(self, frames: Sequence[Frames], descriptions: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """(c, −⟨m, c⟩) [N,E], and no slots."""
        items_NE = self.encoder.media(frames)
        return items_NE, np.empty((len(items_NE), 0, self.width), np.float32)

    def descriptions(self, texts: Sequence[str]) -> np.ndarray:
        """(d, 0) [M,E]."""
        return self.encoder.descriptions(texts)

    def rows(
        self, items_NE: np.ndarray, slots: PartRows, views: PartRows, captions: PartRows | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A row for each description and caption; the item's own vector where there is no description."""
        if self.late_fusion:
            return fused_rows(self.late_fusion, items_NE, views, self.slot_views)
        views_NVE, present_NV = views.padded(len(items_NE))
        present_NV[:, 0] |= ~present_NV.any(1)
        rows_NVE = items_NE[:, None] + DESCRIPTIONS * views_NVE
        if captions is None or not len(captions.items_R):
            return rows_NVE[present_NV], present_NV.sum(1)
        captions_NVE, written_NV = captions.padded(len(items_NE))
        rows_NVE = np.concatenate([rows_NVE, CAPTIONED * items_NE[:, None] + captions_NVE], 1)
        present_NV = np.concatenate([present_NV, written_NV], 1)
        return rows_NVE[present_NV], present_NV.sum(1)


def fused_rows(
    fusion: "Fusion", items_NE: np.ndarray, views: PartRows, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N·K,E] of the late fusion of items with their views, K for each item."""
    import torch

    views_NVE, media_NE = torch.from_numpy(views.padded(len(items_NE), names)[0]), torch.tensor(items_NE)
    slots_NKE = fusion.slots(views_NVE, media_NE, names)[0]
    return _flat(torch.lerp(slots_NKE, media_NE[:, None], fusion.global_weight).numpy())


def _flat(rows_NKE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    items, count, width = rows_NKE.shape
    return rows_NKE.reshape(-1, width), np.full(items, count, np.int32)


def _files(source: str) -> Any:
    """What weights and tokenizer are: a hash of each file, or the commit of a model on the Hub."""
    from huggingface_hub import try_to_load_from_cache

    name = source.removeprefix(OPEN_CLIP_HUB).removeprefix(OPEN_CLIP_FOLDER)
    base, _, dimensions = (name, "", "") if Path(name).is_dir() else name.partition("@")
    folder = Path(base)
    if not folder.is_dir():
        config = try_to_load_from_cache(base, "config.json")
        return [source, Path(config).parent.name if isinstance(config, str) else None]
    files = sorted(path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file())
    hashes: list[Any] = [
        (str(path.relative_to(folder)), file_hash(path))
        for path in files
        if path.suffix not in NO_WEIGHTS and not path.name.startswith(".")
    ]
    return [*hashes, dimensions] if dimensions else hashes


def _identity(kind: str, name: str, settings: list[Any], late_fusion: LateFusion | None) -> dict[str, Any]:
    given = [late_fusion] if late_fusion else []
    fingerprint = short_hash(canonical_json([*settings, *given]))
    identity: dict[str, Any] = {"kind": kind, "name": name, "fingerprint": fingerprint}
    return {**identity, "late_fusion": late_fusion} if late_fusion else identity


def _fusion(late_fusion: LateFusion) -> "Fusion":
    from model.fusion import Fusion

    return _max_pooled(Fusion(late_fusion["global_weight"], late_fusion["pooling"], late_fusion["view_weights"]))


def _max_pooled(fusion: "Fusion") -> "Fusion":
    """The fusion of an index, which pools the rows of an item by max where the score has logsumexp."""
    return dataclasses.replace(fusion, pooling="max") if fusion.pooling == "logsumexp" else fusion
