"""The media of `training` rows: decoded pictures, or precomputed features. Needs no torch.

A run has pictures or features, all of one width; `check_media` finds that out before the work starts.

F frames or regions · I values of each
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.errors import MediaError, UsageError
from pipeline.media.features import MAGIC, is_features, read_features, read_header
from pipeline.media.images import frames as sampled_frames
from pipeline.media.images import open_media
from pipeline.media.uri import rows_shape, typed_failures
from stages.data.samples import Shards

REFERENCE_FRAMES = 8  # of a video that the table only refers to
REFERENCE_PIXELS = 512 * 512  # of a picture that the table only refers to
DRAFT = 8  # the largest factor by which a JPEG decoder shrinks a picture
MARGIN = 2  # the draft keeps at least this many times the requested size, so that resizing hides the difference
HEAD = 192  # bytes that hold the header of an array as `--stage pack` writes it
SEPARATE = "pack pictures and features into separate corpora"

Frames = Any  # of an item: list of pictures, or the array [F,I] of its features


def item_frames(
    shards: Shards, number: int, row: dict[str, Any], size: int | None = None, input_dim: int | None = None
) -> Frames:
    """Decode the pictures of an item, or read its features [F,I].

    Args:
        shards: The shards that the row is from.
        number: Shard of the row.
        row: The row, as `Shards.row` returns it.
        size: Pixels per side that the caller needs; much larger pictures are decoded at 1/2, 1/4 or 1/8.
        input_dim: See `feature_dim`.

    Raises:
        EnvironmentTrouble: The media cannot be read. The message names the shard.
        UsageError: The media are not of the kind that the model reads.
    """
    try:
        if row["media"] is None:
            with open_media(row["uri"]) as stream:
                if is_features(stream):
                    return _read_features(stream, row, input_dim)
                frames = sampled_frames(stream, row["media_type"], max_pixels=REFERENCE_PIXELS, count=REFERENCE_FRAMES)
            pictures = [frame.image for frame in frames]
        elif row["media"].startswith(MAGIC):
            return _read_features(io.BytesIO(row["media"]), row, input_dim)
        else:
            with typed_failures("its picture"):
                pictures = _decode_column(row["media"], row["num_frames"], size)
    except MediaError as error:
        raise shards.damaged(number, row["item_id"], error) from error
    if input_dim:
        raise UsageError(f"{row['item_id']} has a picture, but the model reads features: {SEPARATE}")
    return pictures


def _decode_column(jpeg: bytes, count: int, size: int | None) -> list[Image.Image]:
    """The frames of an item, stored as one picture with the frames below each other."""
    picture = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    if size and (count == 1 or picture.height % (count * DRAFT) == 0):  # frames end on whole rows of the smaller column
        picture.draft("RGB", (size * MARGIN, size * MARGIN * count))
    picture.load()
    if count == 1:
        return [picture]
    width, height = picture.width, picture.height // count
    return [picture.crop((0, top, width, top + height)) for top in range(0, count * height, height)]


def _read_features(stream: Any, row: dict[str, Any], input_dim: int | None) -> np.ndarray:
    features_FI = read_features(stream)
    if input_dim == 0:
        raise UsageError(f"{row['item_id']} has features, but the model reads pictures: {SEPARATE}")
    if input_dim and features_FI.shape[1] != input_dim:
        raise UsageError(_width_message(row["item_id"], features_FI.shape[1], input_dim, "the model"))
    return features_FI


def feature_dim(processor: Any) -> int | None:
    """Values per frame of the features that a processor reads; 0: it reads pictures; None: it does not say."""
    policy = getattr(processor, "policy", None)
    dim: int = getattr(policy, "input_dim", 0)
    return None if policy and policy.image_size is None and not dim else dim


class FeatureSizes(NamedTuple):
    """Sizes of the features of a data set.

    Attributes:
        width: I.
        longest: F of the longest item.
    """

    width: int
    longest: int


def feature_sizes(shards: Shards, splits: Sequence[str]) -> FeatureSizes | None:
    """Sizes of the features in these splits, from their headers; None for pictures.

    Of pictures only the first in each shard is checked.

    Raises:
        UsageError: The features have several widths, or there are both pictures and features.
    """
    sizes: FeatureSizes | None = None
    first = ""  # item
    for number in range(len(shards)):
        for item_id, shape in _shapes(shards, number, splits):
            if first and (shape is None) != (sizes is None):
                picture, features = (item_id, first) if shape is None else (first, item_id)
                raise UsageError(f"{shards.names} has pictures ({picture}) and features ({features}): {SEPARATE}")
            first = first or item_id
            if shape is None:
                break  # the other items of the shard are checked when they are read
            if sizes and shape[1] != sizes.width:
                raise UsageError(_width_message(item_id, shape[1], sizes.width, first))
            sizes = FeatureSizes(shape[1], max(shape[0], sizes.longest if sizes else 0))
    return sizes


def check_media(shards: Shards, splits: Sequence[str], model: str, input_dim: int) -> None:
    """Check that a model can read the media of these splits.

    Args:
        shards: The corpora.
        splits: The splits.
        model: What to call the model in a message.
        input_dim: See `feature_dim`.

    Raises:
        UsageError: The media are of another kind or width.
    """
    sizes = feature_sizes(shards, splits)
    if sizes and not input_dim:
        raise UsageError(
            f"{model} reads pictures, but {shards.names} has features of {sizes.width:,} values: train on them with "
            "media=features, or pack a corpus of the pictures themselves"
        )
    if input_dim and not sizes:
        raise UsageError(
            f"{model} reads features, but {shards.names} has pictures: set media=tiny, embedded or a model's name, or "
            "ingest .npy files of features and run --stage pack"
        )
    if sizes and sizes.width != input_dim:
        raise UsageError(
            f"{model} reads features of {input_dim:,} values, but {shards.names} has {sizes.width:,}: use a corpus "
            "with the features that the model was trained on"
        )


def _width_message(item_id: str, width: int, expected: int, other: str) -> str:
    return (
        f"{item_id} has features of {width:,} values per frame, but {other} has {expected:,}: pack features of "
        "different widths into separate corpora"
    )


def _shapes(shards: Shards, number: int, splits: Sequence[str]) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Item and shape [F,I] of its features, for the rows of a shard in these splits; None for a picture."""
    for batch in shards.shard(number).select(["item_id", "split", "uri", "media"]).to_batches():
        in_splits = pc.is_in(batch.column("split"), value_set=pa.array(splits, pa.string()))
        for place in np.flatnonzero(in_splits.to_numpy(zero_copy_only=False)).tolist():
            item_id = batch.column("item_id")[place].as_py()
            media = batch.column("media").slice(place, 1)
            try:
                if media.null_count:
                    yield item_id, _referenced_shape(batch.column("uri")[place].as_py())
                else:
                    head = pc.binary_slice(media, 0, HEAD)[0].as_py()
                    yield item_id, read_header(io.BytesIO(head)).shape if head.startswith(MAGIC) else None
            except MediaError as error:
                raise shards.damaged(number, item_id, error) from error


def _referenced_shape(uri: str) -> tuple[int, int] | None:
    if shape := rows_shape(uri):
        return shape
    with open_media(uri) as stream:
        return read_header(stream).shape if is_features(stream) else None
