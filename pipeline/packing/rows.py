"""Rows of `training`: the texts and the media of one item, of one corpus or of several that have its content."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from pipeline.engine.stage import Rows
from pipeline.errors import MediaError
from pipeline.hashing import stream_hash
from pipeline.media.features import is_features, read_features, to_bytes
from pipeline.media.images import Limits, encode_jpeg, frames, jpegs, open_media
from pipeline.packing.filters import Filters
from pipeline.translation.translator import GIVEN_ORIGIN, translated_id

MLLM = "mllm"  # the origin of a caption that is a description
MAX_JPEG_SIDE = 65_500  # pixels


@dataclasses.dataclass(frozen=True)
class Source:
    """An item in one corpus."""

    prefix: str  # goes before its ids: "" where there is one corpus, else "NAME/"
    item: Mapping[str, Any]
    rows: Mapping[str, Rows]  # its rows of other tables, by table

    @property
    def item_id(self) -> str:
        """The id of the packed item."""
        return f"{self.prefix}{self.item['item_id']}"


def join_captions(sources: Sequence[Source], filters: Filters) -> Rows:
    """Join an item's captions, the descriptions that are not English, and the translations that no filter drops.

    Each are in the order of their table. A text that an earlier corpus has in the same language is not repeated.
    English captions of origin `mllm` are only descriptions, others are texts of that origin as well. A caption of
    origin `mt` gives way to the row of `translations` with its number and language, which has scores and may be
    dropped.
    """
    written = [(number, row) for number, source in enumerate(sources) for row in _captions(source, filters)]
    translated = [(number, row) for number, source in enumerate(sources) for row in _translations(source, filters)]
    return _without_repeats([*written, *translated], "language")


def join_descriptions(sources: Sequence[Source], filters: Filters) -> Rows:
    """Join an item's descriptions that no filter drops, then captions of origin `mllm` as views `given-0` and so on.

    A text that an earlier corpus has in the same view is not repeated.
    """
    rows = [(number, row) for number, source in enumerate(sources) for row in _descriptions(source, filters)]
    return _without_repeats(rows, "view")


def flags_by_id(descriptions: Iterable[Mapping[str, Any]], filters: Filters) -> dict[str, list[str]]:
    """The flags that drop descriptions, by the ids that `translations` has of them."""
    return {f"{row['item_id']}#{row['view']}": filters.flags_against(row) for row in descriptions}


def reasons_to_drop(pair: Mapping[str, Any], flags: Mapping[str, list[str]], filters: Filters) -> list[str]:
    """The rules that drop a row of `translations`, and the flags that drop the description it translates."""
    source_flags = flags.get(pair["caption_id"], []) if pair["source_table"] == "descriptions" else []
    return sorted({*filters.rules_against(pair), *source_flags})


def _captions(source: Source, filters: Filters) -> Iterator[dict[str, Any]]:
    measured = {
        translated_id(row["caption_id"], row["item_id"], row["target_language"])
        for row in source.rows.get("translations", ())
        if row["source_table"] == "captions"
    }
    for row in source.rows.get("captions", ()):
        in_english = row["origin"] == MLLM and _is_english(row)
        if in_english or (row["origin"] == GIVEN_ORIGIN and row["caption_id"] in measured):
            continue
        yield {
            "caption_id": f"{source.prefix}{row['caption_id']}",
            "language": row["language"],
            "text": row["text"],
            "origin": row["origin"],
            "quality": 1.0 if row["origin"] == "human" else 0.0,  # 0: not measured
        }
    for row in source.rows.get("descriptions", ()):
        if not _is_english(row) and not filters.flags_against(row):
            own = {"caption_id": f"{source.item_id}#{row['view']}", "origin": MLLM, "quality": 0.0}
            yield own | {name: row[name] for name in ("language", "text")}


def _is_english(row: Mapping[str, Any]) -> bool:
    language: str = row["language"]
    return language.split("-")[0] == "en"


def _translations(source: Source, filters: Filters) -> Iterator[dict[str, Any]]:
    flags = flags_by_id(source.rows.get("descriptions", ()), filters)
    for row in source.rows.get("translations", ()):
        if reasons_to_drop(row, flags, filters):
            continue
        yield {
            "caption_id": f"{source.prefix}{row['caption_id']}>{row['target_language']}",
            "language": row["target_language"],
            "text": row["text"],
            "origin": "mt",
            "quality": row["scores"]["quality"] or 0.0,
        }


def _descriptions(source: Source, filters: Filters) -> Iterator[dict[str, Any]]:
    for row in source.rows.get("descriptions", ()):
        if not filters.flags_against(row):
            yield {"view": row["view"], "text": row["text"]}
    for row in source.rows.get("captions", ()):
        if row["origin"] == MLLM:
            number = row["caption_id"].rpartition("#")[2]
            # Each language has views of its own, so that numbers do not clash.
            view = f"given-{number}" if _is_english(row) else f"given-{row['language']}-{number}"
            yield {"view": view, "text": row["text"]}


def _without_repeats(rows: Sequence[tuple[int, dict[str, Any]]], key: str) -> Rows:
    """The rows, less those that a row of another source says before them. Within a source nothing is removed."""
    first_source: dict[tuple[str, str], int] = {}
    return [row for number, row in rows if first_source.setdefault((row[key], row["text"]), number) == number]


def read_media(
    item: Mapping[str, Any], uri: str, image_size: int, frame_count: int, feature_type: str = "float16"
) -> tuple[bytes, int]:
    """Read an item as training stores it: one upright JPEG, or features as they are.

    Args:
        item: Row of `items`.
        uri: Where its media lie.
        image_size: Bound of the shorter side in pixels; the shape is kept, nothing is enlarged.
        frame_count: Frames of a video, uniform in time, or all where it has fewer; they stand one below the other.
        feature_type: NumPy type in which precomputed features are stored.

    Returns:
        (JPEG, frames in it), or (`.npy`, its rows).

    Raises:
        MediaError: `changed` where the bytes are not those that were ingested; `too_large` for a value that
            `feature_type` or a size that JPEG cannot hold; and whatever reading the media raises.
    """
    width, height = item["width"], item["height"]
    max_pixels = pixel_budget(width, height, image_size)
    # Ingest has checked the size against its own limit, which may be higher than the default.
    limits = Limits(max_source_pixels=max(Limits().max_source_pixels, width * height))
    with open_media(uri) as stream:
        if stream_hash(stream) != item["sha256"]:
            message = f"{uri} has other bytes than when it was ingested: --stage update takes it as it is now"
            raise MediaError("changed", message)
        if is_features(stream):
            features_TI = read_features(stream)
            return to_bytes(features_TI, feature_type), len(features_TI)
        if item["media_type"] == "image":
            return jpegs(stream, "image", max_pixels=max_pixels, count=1, limits=limits)[0][0], 1
        pictures = frames(stream, item["media_type"], max_pixels=max_pixels, count=frame_count, limits=limits)
    return encode_jpeg(stack_frames([frame.image for frame in pictures])), len(pictures)


def pixel_budget(width: int, height: int, image_size: int) -> int:
    """The area that makes the shorter side `image_size` pixels, or the whole area where it is not longer."""
    short, long = sorted((width, height))
    if short <= image_size:
        return width * height
    # A little more than the size, as fractions of a pixel are cut off when the picture is fitted into the area.
    return math.ceil((image_size + 0.02) ** 2 * long / short)


def stack_frames(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put frames one below the other, each in the size of the first.

    Raises:
        MediaError: `too_large` for a column that is higher than a JPEG can be.
    """
    width, height = pictures[0].size
    if height * len(pictures) > MAX_JPEG_SIDE:
        size = f"{len(pictures)} frames of {height:,} pixels are higher than a JPEG can be"
        raise MediaError("too_large", f"{size}: give a smaller --image-size or fewer --frames")
    column = Image.new("RGB", (width, height * len(pictures)))
    for number, picture in enumerate(pictures):  # the size may change within a video
        fitted = picture if picture.size == (width, height) else picture.resize((width, height))
        column.paste(fitted, (0, number * height))
    return column
