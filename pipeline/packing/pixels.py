"""Media as training reads them: one JPEG an item, upright, its shorter side bounded; of a video, frames in a column.

Features that were computed before stay features, whole: `.npy` in the type that is asked for.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pipeline.errors import MediaError
from pipeline.hashing import stream_hash
from pipeline.media.features import is_features, read_features, to_bytes
from pipeline.media.images import Limits, encode_jpeg, frames, jpegs, open_media

LONGEST_SIDE = 65_500  # pixels, of a JPEG


def read_pixels(
    item: Mapping[str, Any], uri: str, image_size: int, count: int, feature_type: str = "float16"
) -> tuple[bytes, int]:
    """(JPEG, frames in it) of a row of `items` that lies under `uri`; of features (`.npy`, rows in it), all of them.

    `image_size` bounds the shorter side in pixels, the shape is kept, nothing is enlarged. Of a video, `count` frames
    uniform in time, or all where it has fewer, one below the other, each of the same size. Raises MediaError `changed`
    where the bytes are not those that were ingested, `too_large` for a value that `feature_type` cannot hold, and as
    `media.frames` and `read_features` do.
    """
    sizes = item["width"], item["height"]
    wanted = max_pixels(*sizes, image_size)
    # What ingest let in by the limit it was given is let in here.
    limits = Limits(max_source_pixels=max(Limits().max_source_pixels, math.prod(sizes)))
    with open_media(uri) as stream:
        if stream_hash(stream) != item["sha256"]:
            raise MediaError(
                "changed",
                f"{uri} has other bytes than when it was ingested: "
                "--stage ingest --overwrite takes the input as it is now",
            )
        if is_features(stream):
            features_TI = read_features(stream)
            return to_bytes(features_TI, feature_type), len(features_TI)
        if item["media_type"] == "image":
            return jpegs(stream, "image", max_pixels=wanted, count=1, limits=limits)[0].data, 1
        shown = frames(stream, item["media_type"], max_pixels=wanted, count=count, limits=limits)
    return encode_jpeg(_column([frame.image for frame in shown])), len(shown)


def max_pixels(width: int, height: int, image_size: int) -> int:
    """The area within which `media.frames` makes the shorter side `image_size`, or leaves it where it is not longer."""
    short, long = sorted((width, height))
    if short <= image_size:
        return width * height
    # A hair more than the size wanted: whole pixels are cut off below.
    return math.ceil((image_size + 0.02) ** 2 * long / short)


def _column(pictures: Sequence[Image.Image]) -> Image.Image:
    width, height = pictures[0].size
    if height * len(pictures) > LONGEST_SIDE:
        raise MediaError(
            "too_large",
            f"{len(pictures)} frames of {height:,} pixels are higher than a JPEG can be ({LONGEST_SIDE:,}): "
            "give a smaller --image-size or fewer --frames",
        )
    column = Image.new("RGB", (width, height * len(pictures)))
    for number, picture in enumerate(pictures):  # a video may change its size on the way
        fitted = picture if picture.size == (width, height) else picture.resize((width, height))
        column.paste(fitted, (0, number * height))
    return column
