"""The media of `training` rows: decoded pictures, or precomputed features. Needs no torch.

A run has pictures or features, all of one width; `check_media` finds that out before the work starts.

F frames or regions · I values of each
"""

import collections
import concurrent.futures
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from pipeline.errors import MediaError, UsageError
from pipeline.media.features import MAGIC, is_features, read_features, read_header
from pipeline.media.images import frames as sampled_frames
from pipeline.media.images import open_media
from pipeline.media.uri import rows_shape
from stages.data.samples import Shards

REFERENCE_FRAMES = 8  # of a video that the table only refers to
REFERENCE_PIXELS = 512 * 512  # of a picture that the table only refers to
DRAFT = 8  # the largest factor by which a JPEG decoder shrinks a picture
MARGIN = 2  # the draft keeps at least this many times the requested size, so that resizing hides the difference
HEAD = 192  # bytes that hold the header of an array as `--stage pack` writes it
SEPARATE = "pack pictures and features into separate corpora"

T = TypeVar("T")
L = TypeVar("L")
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
        input_dim: Values per frame of the features that the caller reads; 0: it reads pictures; None: it reads any.

    Raises:
        EnvironmentTrouble: The media cannot be read. The message names the shard.
        UsageError: The media are not of the kind that the model reads.
    """
    try:
        frames = read_frames(row, size)
    except (MediaError, OSError, ValueError) as error:
        raise shards.damaged(number, row["item_id"], error) from error
    dim = frames.shape[1] if isinstance(frames, np.ndarray) else 0
    if input_dim is not None and dim != input_dim:
        raise UsageError(
            f"{row['item_id']} has {_describe(dim)}, but the model reads {_describe(input_dim)}: {SEPARATE}"
        )
    return frames


def read_frames(row: dict[str, Any], size: int | None = None) -> Frames:
    """The media of a row; raises MediaError, OSError or ValueError if they cannot be read."""
    media = row["media"]
    if media is not None:
        return read_features(io.BytesIO(media)) if media.startswith(MAGIC) else _decode(media, row["num_frames"], size)
    with open_media(row["uri"]) as stream:
        if is_features(stream):
            return read_features(stream)
        frames = sampled_frames(stream, row["media_type"], max_pixels=REFERENCE_PIXELS, count=REFERENCE_FRAMES)
    return [frame.image for frame in frames]


def _describe(dim: int) -> str:
    return f"features of {dim:,} values" if dim else "pictures"


def _decode(jpeg: bytes, count: int, size: int | None) -> list[Image.Image]:
    """The frames of an item, stored as one picture with the frames below each other."""
    picture = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    if size and (count == 1 or picture.height % (count * DRAFT) == 0):  # frames end on whole rows of the smaller column
        picture.draft("RGB", (size * MARGIN, size * MARGIN * count))
    picture.load()
    if count == 1:
        return [picture]
    width, height = picture.width, picture.height // count
    return [picture.crop((0, top, width, top + height)) for top in range(0, count * height, height)]


def load_ahead(load: Callable[[T], L], batches: Iterable[T], threads: int = 1) -> Iterator[L]:
    """Loaded batches in order; as many as there are threads are loaded while one is encoded."""
    with concurrent.futures.ThreadPoolExecutor(threads, "loading") as pool:
        pending = collections.deque[concurrent.futures.Future[L]]()
        for batch in batches:
            pending.append(pool.submit(load, batch))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training pictures change at random; features never do.

    Attributes:
        flip: Probability that a picture is mirrored.
        smallest_crop: Smallest share of a picture's area that a random crop keeps; 1: no crop. A crop is squashed to a
            square, whatever its shape.
    """

    flip: float = 0.0
    smallest_crop: float = 1.0

    @property
    def is_random(self) -> bool:
        """Whether pictures change at all."""
        return self.flip > 0 or self.smallest_crop < 1

    def pixels(self, size: int | None) -> int | None:
        """Pixels per side to ask of `item_frames`, so that the smallest crop still has `size`."""
        return math.ceil(size / math.sqrt(self.smallest_crop)) if size else size

    def apply(self, frames: Frames, size: int | None, random: np.random.Generator) -> Frames:
        """Change the frames of an item, all in the same way, by draws from `random`."""
        mirrored = random.random() < self.flip
        if isinstance(frames, np.ndarray) or size is None:
            return frames
        if self.smallest_crop < 1:
            width, height = frames[0].size
            box = random_box(width, height, self.smallest_crop, random)
            bicubic = Image.Resampling.BICUBIC
            frames = [frame.convert("RGB").resize((size, size), bicubic, box, reducing_gap=3.0) for frame in frames]
        return [ImageOps.mirror(frame) for frame in frames] if mirrored else frames


UNCHANGED = Augmentation()


def random_box(width: int, height: int, smallest: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, upper, right, lower of a random part of a picture, as torchvision's RandomResizedCrop draws it.

    Its share of the area is uniform from `smallest` to 1, the logarithm of its ratio of width to height uniform from
    3:4 to 4:3. If no such part fits in ten tries, it is the largest centred one.
    """
    low, high = math.log(3 / 4), math.log(4 / 3)
    for _ in range(10):
        area, ratio = width * height * random.uniform(smallest, 1), math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return left, upper, left + w, upper + h
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, upper = (width - w) // 2, (height - h) // 2
    return left, upper, left + w, upper + h


def feature_sizes(shards: Shards, splits: Sequence[str]) -> tuple[int, int] | None:
    """I, and F of the longest item, of the features in these splits, from their headers; None for pictures.

    Of pictures only the first in each shard is checked.

    Raises:
        UsageError: The features have several widths, or there are both pictures and features.
    """
    width = longest = 0
    first = ""  # item
    for number in range(len(shards)):
        for item_id, (frames, dim) in _shapes(shards, number, splits):
            if first and dim != width:
                raise UsageError(
                    f"{shards.names}: {item_id} has {_describe(dim)}, but {first} has {_describe(width)}: {SEPARATE}"
                )
            first, width, longest = first or item_id, dim, max(longest, frames)
            if not dim:
                break  # the other items of the shard are checked when they are read
    return (width, longest) if width else None


def check_media(shards: Shards, splits: Sequence[str], model: str, input_dim: int) -> None:
    """Check that a model can read the media of these splits.

    Args:
        shards: The corpora.
        splits: The splits.
        model: What to call the model in a message.
        input_dim: Values per frame of the features that it reads; 0: it reads pictures.

    Raises:
        UsageError: The media are of another kind or width.
    """
    width, _ = feature_sizes(shards, splits) or (0, 0)
    if width != input_dim:
        raise UsageError(
            f"{model} reads {_describe(input_dim)}, but {shards.names} has {_describe(width)}: use a corpus of what "
            "the model was trained on. To train on features set media=features, on pictures any other media"
        )


def _shapes(shards: Shards, number: int, splits: Sequence[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Item and shape [F,I] of its features, for the rows of a shard in these splits; (0, 0) for a picture."""
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
                    yield item_id, read_header(io.BytesIO(head))[0] if head.startswith(MAGIC) else (0, 0)
            except MediaError as error:
                raise shards.damaged(number, item_id, error) from error


def _referenced_shape(uri: str) -> tuple[int, int]:
    if shape := rows_shape(uri):
        return shape
    with open_media(uri) as stream:
        return read_header(stream)[0] if is_features(stream) else (0, 0)
