"""An item's media out of a `training` row: pictures, decoded, or the array of features computed before. Needs no torch."""

import io
from typing import Any

from PIL import Image

from pipeline.errors import MediaError, UsageError
from pipeline.media.features import MAGIC, is_features
from pipeline.media.images import frames as sampled_frames
from pipeline.media.images import open_media
from pipeline.media.uri import typed_failures
from stages.data.features import PACK, opened_features
from stages.data.samples import Shards

REFERENCE_FRAMES = 8  # of a video that the table only refers to
REFERENCE_PIXELS = 512 * 512  # of a picture likewise
DRAFT = 8  # the most that a decoder of JPEG divides a picture's sides by
MARGIN = 2  # times the size wanted that a picture has after that at least: what is left to resize hides the difference

Frames = Any  # of an item: list of pictures, or the array [F,I] of its features


def item_frames(
    shards: Shards, number: int, row: dict[str, Any], size: int | None = None, input_dim: int | None = None
) -> Frames:
    """The pictures of an item, decoded, or its features [F,I]. `size`: pixels a side that are wanted of them; much
    larger ones are decoded at a half, a quarter or an eighth. `input_dim`: see `wanted_dim`.

    Raises EnvironmentTrouble naming the shard where they cannot be read, and UsageError where they are not what is
    wanted.
    """
    try:
        if row["media"] is None:
            with open_media(row["uri"]) as stream:
                if is_features(stream):
                    return opened_features(stream, row, input_dim)
                shown = sampled_frames(stream, row["media_type"], max_pixels=REFERENCE_PIXELS, count=REFERENCE_FRAMES)
            pictures = [frame.image for frame in shown]
        elif row["media"].startswith(MAGIC):
            return opened_features(io.BytesIO(row["media"]), row, input_dim)
        else:
            with typed_failures("its picture"):
                pictures = _column(row["media"], row["num_frames"], size)
    except MediaError as error:
        raise shards.damaged(number, row["item_id"], error) from error
    if input_dim:
        raise UsageError(f"{row['item_id']}: got a picture, wanted features computed before: {PACK}")
    return pictures


def _column(jpeg: bytes, count: int, size: int | None) -> list[Image.Image]:
    picture = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    if size and (count == 1 or picture.height % (count * DRAFT) == 0):  # frames end on whole rows of the smaller column
        picture.draft("RGB", (size * MARGIN, size * MARGIN * count))
    picture.load()
    if count == 1:
        return [picture]
    width, height = picture.width, picture.height // count
    return [picture.crop((0, top, width, top + height)) for top in range(0, count * height, height)]
