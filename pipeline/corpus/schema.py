"""The record types of a corpus and their Arrow schemas: one page, one version.

A row type states each column once: `str` is an Arrow string, `int` an int32, `float` a float64, `bytes` a large binary,
and `| None` makes a column nullable. Where another Arrow type is stored, `Annotated` names it.

A change of any column here raises SCHEMA_VERSION; `pipeline.corpus.table` refuses tables of another version.
"""

import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import pyarrow as pa

SCHEMA_VERSION = 1

# What `pipeline.quality` measures of a pair, each in [0, 1] except the length ratio; null if it was not measured.
SCORES = (
    "quality",  # the one number, see pipeline.quality.scores
    "language",  # confidence that the text is in the target language
    "script",  # share of its letters in a script of that language
    "length_ratio",  # characters of the text to those of the source, over what is usual for the pair: 1 is usual
    "copied",  # share of the text that is copied from the source
    "repetition",  # share of its words that only repeat the phrase before them
    "numbers",  # how far the numbers of both sides agree, see pipeline.quality.numbers
    "complete",  # 0 where the text breaks off
    "boilerplate",  # share of the text that is not translation but chatter
    "meaning",  # similarity of the two sentence vectors, see pipeline.quality.similarity
    "round_trip",  # chrF of the source and the text translated back
)


class ItemRow(TypedDict):
    """A row of `items`."""

    item_id: str
    media_type: str  # "image" or "video"
    uri: str  # opened by pipeline.media.uri.open_media
    sha256: str  # hex, of the media's bytes
    width: int  # pixels, after EXIF orientation; 0 for features
    height: int
    num_frames: int  # 1 for a still image
    duration_s: float | None  # null for images
    split: str
    source: str
    license: str  # "" where the source names none


class CaptionRow(TypedDict):
    """A row of `captions`."""

    caption_id: str
    item_id: str
    language: str  # BCP 47
    text: str
    origin: str  # "human", "mt" or "mllm"
    split: str


class DescriptionRow(TypedDict):
    """A row of `descriptions`."""

    item_id: str
    view: str
    text: str
    language: str  # BCP 47
    captioner: str  # who wrote it: a model's name, or "embedded:…"
    revision: str  # "" if the server does not say
    prompt_id: str  # hash of the prompt's text
    decoding: str  # JSON: token limit, temperature, frames, pixels
    finish_reason: str
    prompt_tokens: int | None  # null where no tokens were counted
    completion_tokens: int | None
    flags: list[str]  # see pipeline/captioning/answers.yaml
    frame_times_s: list[float]  # [] for images
    sha256: str  # hash of the item's bytes that were described


class TranslationRow(TypedDict):
    """A row of `translations`."""

    caption_id: str  # item_id#view if the source text is a description
    item_id: str
    source_table: str  # "captions" or "descriptions"
    source_language: str  # BCP 47
    source_text: str
    target_language: str  # BCP 47
    text: str
    translator: str  # a model's name, or "embedded:…"
    revision: str
    decoding: str  # JSON: beam size, length limit …
    scores: Annotated[dict[str, float | None], pa.struct([(name, pa.float32()) for name in SCORES])]
    flags: list[str]  # rules that fired, see pipeline.quality.rules, and notes, see pipeline.translation.llm


class TrainingCaption(TypedDict):
    """A caption of a row of `training`."""

    caption_id: str
    language: str
    text: str
    origin: str
    quality: Annotated[float, pa.float32()]  # 1: human, 0: not measured


class TrainingDescription(TypedDict):
    """A description of a row of `training`."""

    view: str
    text: str


class TrainingRow(TypedDict):
    """A row of `training`."""

    item_id: str
    split: str
    media_type: str
    # JPEG, with a video's frames stacked vertically; or .npy [frames or regions, values] of precomputed features, see
    # pipeline.media.features. The first bytes show which. Null for a reference.
    media: bytes | None
    num_frames: int  # frames, or rows of features, in `media`; 0 for a reference
    uri: str  # location of the original
    sha256: str  # hash of the original's bytes
    source: str
    license: str  # "" where the source names none
    captions: list[TrainingCaption]
    descriptions: list[TrainingDescription]


class VectorRow(TypedDict):
    """A row of `vectors`: a part of an item of `training`, encoded."""

    item_id: str
    # "item": the item's own vector; "slot": one of its slots, if the model has any; "view": a description, "caption": a
    # human caption, both encoded as queries are; "frame": a frame of a video, encoded as an item without texts
    part: str
    # of a description, or of the slot that read it; the number of a learned slot or of a frame; a caption's language
    view: str
    vector: Annotated[list[float], pa.list_(pa.float32())]  # of fixed size, see `schema_of`
    model: str  # fingerprint of what encoded it
    content: str  # hash of what it was encoded from: pixels and the descriptions that were read, or the text


_ARROW_TYPES = {str: pa.string(), int: pa.int32(), float: pa.float64(), bytes: pa.large_binary()}


def fields_of(row: type) -> list[pa.Field]:
    """The columns of a row type."""
    hints = typing.get_type_hints(row, include_extras=True)
    return [pa.field(name, _arrow_type(hint), isinstance(hint, types.UnionType)) for name, hint in hints.items()]


def _arrow_type(hint: Any) -> pa.DataType:
    if isinstance(hint, types.UnionType):  # T | None
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is Annotated:
        return hint.__metadata__[0]
    if typing.get_origin(hint) is list:
        return pa.list_(_arrow_type(typing.get_args(hint)[0]))
    return pa.struct(fields_of(hint)) if typing.is_typeddict(hint) else _ARROW_TYPES[hint]


SCHEMAS = {
    "items": pa.schema(fields_of(ItemRow)),
    "captions": pa.schema(fields_of(CaptionRow)),
    "descriptions": pa.schema(fields_of(DescriptionRow)),
    "translations": pa.schema(fields_of(TranslationRow)),
    "training": pa.schema(fields_of(TrainingRow)),
}


def schema_of(table: str, settings: Mapping[str, Any]) -> pa.Schema:
    """The schema of any table, also of `vectors`, whose width is a setting."""
    if table in SCHEMAS:
        return SCHEMAS[table]
    fields = fields_of(VectorRow)
    width = pa.list_(pa.float32(), settings["width"])
    return pa.schema([field.with_type(width) if field.name == "vector" else field for field in fields])
