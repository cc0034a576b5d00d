"""Named colours, light and motion of small RGB arrays: plain measurements, no model.

Pixels are uint8 arrays (..., 3) in sRGB; lightness L is CIELAB's, 0 (black) to 100 (white).
"""

import numpy as np

# Several shades share a name, so that the nearest shade in Lab gives the name people use.
PALETTE = {
    "black": ("#0a0a0a", "#1c1c1c"),
    "dark grey": ("#404040",),
    "grey": ("#808080", "#6a6a6a", "#979797"),
    "light grey": ("#b8b8b8", "#cccccc"),
    "white": ("#f2f2f2", "#ffffff", "#fafaf2"),
    "red": ("#d01c1c", "#e8403a", "#a81818"),
    "dark red": ("#641414",),
    "pink": ("#f5a8bc", "#e87aa4", "#f0c8cc"),
    "orange": ("#f08020", "#e86418", "#f0a040"),
    "brown": ("#6a4424", "#845830", "#4a3020", "#9a6c44", "#7c5c4c"),
    "beige": ("#d2b48c", "#e0cca8", "#bca07c"),
    "yellow": ("#f0dc30", "#e8c82c", "#f5ec80"),
    "olive green": ("#6c6c28", "#8c8c48"),
    "green": ("#2c8c30", "#50a840", "#78b860"),
    "dark green": ("#1c4420", "#304c2c"),
    "light green": ("#b0dc98",),
    "turquoise": ("#30b8b0", "#208888", "#80d4d0"),
    "light blue": ("#a0c8ec", "#84b4e0", "#b8d4ec"),
    "blue": ("#2858c8", "#3c78c8", "#5c88b8"),
    "dark blue": ("#182858", "#203c70"),
    "purple": ("#7038a0", "#9868c0", "#542c6c"),
}
COLOURS = tuple(PALETTE)
VIVID = ("red", "pink", "orange", "yellow", "green", "light green", "turquoise", "blue", "purple")
COLOUR_OF_SHADE = np.array([index for index, shades in enumerate(PALETTE.values()) for _ in shades])


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB pixels: (..., 3) uint8 to (..., 3) float64 of L, a, b."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


SHADES_LAB = to_lab(
    np.array([[int(s[i : i + 2], 16) for i in (1, 3, 5)] for p in PALETTE.values() for s in p], np.uint8)
)


def colour_ids(lab: np.ndarray) -> np.ndarray:
    """Index into COLOURS of each pixel's nearest shade: (..., 3) Lab to (...) int."""
    # Lightness counts half: shadow and light change it within one thing far more than they change its hue.
    weight = np.array([0.5, 1.0, 1.0])
    pixels, shades = lab * weight, SHADES_LAB * weight
    # |p - s|² without |p|², which is the same for every shade.
    return COLOUR_OF_SHADE[np.argmin((shades**2).sum(axis=1) - 2 * pixels @ shades.T, axis=-1)]


def dominant_colours(ids: np.ndarray, least: float = 0.14, most: int = 3) -> list[str]:
    """Names of the colours that cover at least the share `least` of the pixels, widest first, at most `most`."""
    counts = np.bincount(ids.ravel(), minlength=len(COLOURS))
    widest = [int(index) for index in np.argsort(-counts, kind="stable")]
    kept = [index for index in widest if counts[index] >= least * ids.size] or widest[:1]
    return [COLOURS[index] for index in kept[:most]]


def accent_colours(ids: np.ndarray, least: float = 0.03, most: int = 2) -> list[str]:
    """Vivid colours beside the dominant ones, covering at least the share `least`, widest first, at most `most`."""
    widest = dominant_colours(ids)
    return [name for name in dominant_colours(ids, least, len(COLOURS)) if name in VIVID and name not in widest][:most]


def is_colourless(lab: np.ndarray) -> bool:
    """True for a black-and-white picture: hardly a pixel has a colour of its own."""
    return float(np.percentile(np.hypot(lab[..., 1], lab[..., 2]), 99)) < 6.0


def is_plain(lab: np.ndarray) -> bool:
    """True for one flat colour, in which there is nothing to recognise."""
    return float(lab.reshape(-1, 3).std(axis=0).max()) < 1.5


def light_word(lab: np.ndarray) -> str:
    """Return "dark", "bright" or "" by mean lightness."""
    mean = float(lab[..., 0].mean())
    return "dark" if mean < 28 else "bright" if mean > 74 else ""


def motion(lab_frames: np.ndarray) -> tuple[float, float, float]:
    """Change between neighbouring frames: (T, H, W, 3) Lab to (share of the pixels that change, its centre x, y).

    A pixel changes where its lightness moves by more than 6 of 100. The centre is in 0..1, 0.5 where nothing changes.
    """
    changed = np.abs(np.diff(lab_frames[..., 0], axis=0)) > 6.0  # (T-1, H, W)
    total = changed.sum()
    if not total:
        return 0.0, 0.5, 0.5
    _, height, width = changed.shape
    _, rows, columns = np.nonzero(changed)
    return float(changed.mean()), float((columns.mean() + 0.5) / width), float((rows.mean() + 0.5) / height)
