"""The record types of a corpus and their Arrow schemas: one page, one version.

A change of any column here raises SCHEMA_VERSION; `pipeline.corpus.table` refuses tables of another version.
"""

from typing import TypedDict

import pyarrow as pa

SCHEMA_VERSION = 1

ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),  # "image" or "video"
        pa.field("uri", pa.string(), nullable=False),  # opened by pipeline.media.images.open_media
        pa.field("sha256", pa.string(), nullable=False),  # hex, of the media's bytes
        pa.field("width", pa.int32(), nullable=False),  # pixels, after EXIF orientation; 0 for features
        pa.field("height", pa.int32(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),  # 1 for a still image
        pa.field("duration_s", pa.float64()),  # null for images
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),  # "" where the source names none
    ]
)


class ItemRow(TypedDict):
    """A row of `items`."""

    item_id: str
    media_type: str
    uri: str
    sha256: str
    width: int
    height: int
    num_frames: int
    duration_s: float | None
    split: str
    source: str
    license: str


CAPTIONS = pa.schema(
    [
        pa.field("caption_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),  # BCP 47
        pa.field("text", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),  # "human", "mt" or "mllm"
        pa.field("split", pa.string(), nullable=False),
    ]
)


class CaptionRow(TypedDict):
    """A row of `captions`."""

    caption_id: str
    item_id: str
    language: str
    text: str
    origin: str
    split: str


DESCRIPTIONS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),  # BCP 47
        pa.field("captioner", pa.string(), nullable=False),  # who wrote it: a model's name, or "embedded:…"
        pa.field("revision", pa.string(), nullable=False),  # "" if the server does not say
        pa.field("prompt_id", pa.string(), nullable=False),  # hash of the prompt's text
        pa.field("decoding", pa.string(), nullable=False),  # JSON: token limit, temperature, frames, pixels
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int32()),  # null where no tokens were counted
        pa.field("completion_tokens", pa.int32()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),  # see pipeline.captioning.cleaning
        pa.field("frame_times_s", pa.list_(pa.float64()), nullable=False),  # [] for images
        pa.field("sha256", pa.string(), nullable=False),  # of the item's bytes that were described
    ]
)


class DescriptionRow(TypedDict):
    """A row of `descriptions`."""

    item_id: str
    view: str
    text: str
    language: str
    captioner: str
    revision: str
    prompt_id: str
    decoding: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    flags: list[str]
    frame_times_s: list[float]
    sha256: str


# What `pipeline.quality` measures of a pair, each in [0, 1] except the length ratio; null if it was not measured.
SCORES = (
    "quality",  # the one number, see pipeline.quality.scores
    "language",  # confidence that the text is in the target language
    "script",  # share of its letters in a script of that language
    "length_ratio",  # characters of the text to those of the source, over what is usual for the pair: 1 is usual
    "copied",  # share of the text that is copied from the source
    "repetition",  # share of its words that only repeat the phrase before them
    "numbers",  # share of the numbers on either side that the other side has too
    "complete",  # 0 where the text breaks off
    "boilerplate",  # share of the text that is not translation but chatter
    "meaning",  # similarity of the two sentence vectors, see pipeline.quality.similarity
    "round_trip",  # chrF of the source and the text translated back
)

TRANSLATIONS = pa.schema(
    [
        pa.field("caption_id", pa.string(), nullable=False),  # of a description: item_id#view
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("source_table", pa.string(), nullable=False),  # "captions" or "descriptions"
        pa.field("source_language", pa.string(), nullable=False),  # BCP 47
        pa.field("source_text", pa.string(), nullable=False),
        pa.field("target_language", pa.string(), nullable=False),  # BCP 47
        pa.field("text", pa.string(), nullable=False),
        pa.field("translator", pa.string(), nullable=False),  # a model's name, or "embedded:…"
        pa.field("revision", pa.string(), nullable=False),
        pa.field("decoding", pa.string(), nullable=False),  # JSON: beam size, length limit …
        pa.field("scores", pa.struct([pa.field(name, pa.float32()) for name in SCORES]), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),  # rules that fired, see pipeline.quality.rules
    ]
)


class TranslationRow(TypedDict):
    """A row of `translations`. `scores` has the names in SCORES."""

    caption_id: str
    item_id: str
    source_table: str
    source_language: str
    source_text: str
    target_language: str
    text: str
    translator: str
    revision: str
    decoding: str
    scores: dict[str, float | None]
    flags: list[str]


TRAINING = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        # JPEG, with a video's frames stacked vertically; or .npy [frames or regions, values] of features computed
        # before, see pipeline.media.features. The first bytes show which. Null for a reference.
        pa.field("media", pa.large_binary()),
        pa.field("num_frames", pa.int32(), nullable=False),  # in `media`, of features rows; 0 for a reference
        pa.field("uri", pa.string(), nullable=False),  # of the original
        pa.field("sha256", pa.string(), nullable=False),  # of the original's bytes
        pa.field("source", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),  # "" where the source names none
        pa.field(
            "captions",
            pa.list_(
                pa.struct(
                    [
                        pa.field("caption_id", pa.string(), nullable=False),
                        pa.field("language", pa.string(), nullable=False),
                        pa.field("text", pa.string(), nullable=False),
                        pa.field("origin", pa.string(), nullable=False),
                        pa.field("quality", pa.float32(), nullable=False),  # 1: human, 0: not measured
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field(
            "descriptions",
            pa.list_(
                pa.struct(
                    [pa.field("view", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)]
                )
            ),
            nullable=False,
        ),
    ]
)


class TrainingCaption(TypedDict):
    """A caption of a row of `training`."""

    caption_id: str
    language: str
    text: str
    origin: str
    quality: float


class TrainingDescription(TypedDict):
    """A description of a row of `training`."""

    view: str
    text: str


class TrainingRow(TypedDict):
    """A row of `training`."""

    item_id: str
    split: str
    media_type: str
    media: bytes | None
    num_frames: int
    uri: str
    sha256: str
    source: str
    license: str
    captions: list[TrainingCaption]
    descriptions: list[TrainingDescription]


SCHEMAS = {
    "items": ITEMS,
    "captions": CAPTIONS,
    "descriptions": DESCRIPTIONS,
    "translations": TRANSLATIONS,
    "training": TRAINING,
}
