"""What media a split has: pictures, or features that were computed before, all of one width. Found before the work.

F frames or regions · I values of each
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import MediaError, UsageError
from pipeline.media.features import MAGIC, is_features, read_features, read_header
from pipeline.media.images import open_media
from pipeline.media.uri import rows_shape
from stages.data.samples import Shards, named

HEAD = 192  # bytes that have the header of an array as `--stage pack` writes it
PACK = "pack pictures and features into corpora of their own"


class FeatureSizes(NamedTuple):
    width: int  # I
    longest: int  # F of the longest item


def feature_sizes(shards: Shards, splits: Sequence[str]) -> FeatureSizes | None:
    """Of the features that these splits have; None where they have pictures, of which the first of each shard is looked
    at. Raises UsageError for features of several widths, and for both kinds in one corpus or in two.

    Of arrays in the shards the headers are read, of references likewise, where they lie.
    """
    found: FeatureSizes | None = None
    first = ""  # item
    for number in range(len(shards)):
        for item_id, shape in _shapes(shards, number, splits):
            if first and (shape is None) != (found is None):
                pictures, features = (item_id, first) if shape is None else (first, item_id)
                raise UsageError(f"{named(shards)}: got pictures ({pictures}) and features ({features}): {PACK}")
            first = first or item_id
            if shape is None:
                break  # the others of the shard are pictures too, or are told of when they are read
            if found and shape[1] != found.width:
                raise other_width(item_id, shape[1], found.width, f"as {first} has")
            found = FeatureSizes(shape[1], max(shape[0], found.longest if found else 0))
    return found


def check_media(shards: Shards, splits: Sequence[str], model: str, input_dim: int) -> None:
    """Raises UsageError where these splits have no media that `model` reads. `input_dim`: as `wanted_dim` gives it."""
    sizes = feature_sizes(shards, splits)
    if sizes and not input_dim:
        raise UsageError(
            f"{model}: got features of {sizes.width:,} values in {named(shards)}, wanted pictures: train on them with "
            "media=features, or pack a corpus of the pictures themselves"
        )
    if input_dim and not sizes:
        raise UsageError(
            f"{model}: got pictures in {named(shards)}, wanted features computed before: give media=tiny, embedded or "
            "a name, or ingest .npy files of features and run --stage pack"
        )
    if sizes and sizes.width != input_dim:
        raise UsageError(
            f"{model}: got features of {sizes.width:,} values in {named(shards)}, wanted {input_dim:,}, as it was "
            "trained with: give a corpus of the same features"
        )


def wanted_dim(processor: Any) -> int | None:
    """Values a frame of the features that a processor takes; 0: pictures; None: it does not say."""
    policy = getattr(processor, "policy", None)
    dim = getattr(policy, "input_dim", 0)
    return None if policy and policy.image_size is None and not dim else dim


def opened_features(stream: Any, row: dict[str, Any], input_dim: int | None) -> np.ndarray:
    """[F,I] of an item. Raises UsageError for another width than was trained, and where pictures are wanted."""
    features_FI = read_features(stream)
    if input_dim == 0:
        raise UsageError(f"{row['item_id']}: got features computed before, wanted a picture: {PACK}")
    if input_dim and features_FI.shape[1] != input_dim:
        raise other_width(row["item_id"], features_FI.shape[1], input_dim, "as the model reads")
    return features_FI


def other_width(item_id: str, got: int, wanted: int, who: str) -> UsageError:
    return UsageError(
        f"{item_id}: got features of {got:,} values a frame, wanted {wanted:,}, {who}: all items need features of one "
        "kind: pack them into corpora of their own"
    )


def _shapes(shards: Shards, number: int, splits: Sequence[str]) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """(item, [F,I] of its features) of a shard's rows in these splits; None: it has a picture."""
    for batch in shards.shard(number).select(["item_id", "split", "uri", "media"]).to_batches():
        wanted = pc.is_in(batch.column("split"), value_set=pa.array(splits, pa.string()))
        for place in np.flatnonzero(wanted.to_numpy(zero_copy_only=False)).tolist():
            item_id = batch.column("item_id")[place].as_py()
            media = batch.column("media").slice(place, 1)
            try:
                if media.null_count:
                    yield item_id, _shape_behind(batch.column("uri")[place].as_py())
                else:
                    head = pc.binary_slice(media, 0, HEAD)[0].as_py()
                    yield item_id, read_header(io.BytesIO(head)).shape if head.startswith(MAGIC) else None
            except MediaError as error:
                raise shards.damaged(number, item_id, error) from error


def _shape_behind(uri: str) -> tuple[int, int] | None:
    if shape := rows_shape(uri):
        return shape
    with open_media(uri) as stream:
        return read_header(stream).shape if is_features(stream) else None
