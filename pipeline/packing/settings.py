"""What the manifest of a training table records about how it was packed."""

from collections.abc import Sequence
from typing import Any

from pipeline.packing.filters import Filters

JOINED = ("items", "captions", "descriptions", "translations")
"""The tables that packing joins, by item."""


def recorded_settings(
    corpora: Sequence[str] = (".",),
    *,
    media: str = "pixels",
    image_size: int = 384,
    frames: int = 8,
    feature_type: str = "float16",
    filters: Filters = Filters(),  # noqa: B008  frozen
) -> dict[str, Any]:
    """Settings as the manifest has them; the defaults are those of `--stage pack` on a single corpus.

    Args:
        corpora: absolute paths; "." for the corpus that holds the training table.
        media: "pixels" or "reference".
        image_size: shorter side in pixels.
        frames: how many of a video.
        feature_type: what features computed before are stored as, "float16" or "float32".
        filters: thresholds for translated pairs.
    """
    return {
        "corpora": list(corpora),
        "media": media,
        "image_size": image_size,
        "frames": frames,
        # Left out where it is the default, so that tables from before there were features keep their fingerprints.
        **({"feature_type": feature_type} if feature_type != "float16" else {}),
        "filters": filters.settings(),
    }
