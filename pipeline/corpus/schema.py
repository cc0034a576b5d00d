"""The record types of a corpus and their Arrow schemas: one page, one version.

A change of any column here raises SCHEMA_VERSION; `pipeline.corpus.table` refuses tables of another version.
"""

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

DESCRIPTIONS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),  # BCP 47
        pa.field("captioner", pa.string(), nullable=False),  # who wrote it: a model's name, or "embedded:…"
        pa.field("revision", pa.string(), nullable=False),  # "" where the server does not tell
        pa.field("prompt_id", pa.string(), nullable=False),  # hash of the prompt's text
        pa.field("decoding", pa.string(), nullable=False),  # JSON: token limit, temperature, frames, pixels
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int32()),  # null where no tokens were counted
        pa.field("completion_tokens", pa.int32()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),  # what cleaning saw, see captioning.clean
        pa.field("frame_times_s", pa.list_(pa.float64()), nullable=False),  # [] for images
        pa.field("sha256", pa.string(), nullable=False),  # of the item's bytes that were described
    ]
)

# What `pipeline.quality` measures of a pair, each in [0, 1] but the length ratio; null where it was not measured.
SCORES = (
    "quality",  # the one number, see pipeline.quality.scores
    "language",  # confidence that the text is in the target language
    "script",  # share of its letters in a script of that language
    "length_ratio",  # characters of the text to those of the source, over what is usual for the pair: 1 is usual
    "copied",  # share of the text that stands in the source
    "repetition",  # share of its words that only repeat a phrase before them
    "numbers",  # share of the numbers on either side that the other side has too
    "complete",  # 0 where the text breaks off
    "boilerplate",  # share of the text that is not translation but chatter
    "meaning",  # nearness of the two sentence vectors, see pipeline.quality.similarity
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

TRAINING = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        # JPEG, a video's frames one below the other; or .npy [frames or regions, values] of features computed before,
        # see pipeline.media.features: the first bytes tell. Null for a reference.
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

SCHEMAS = {
    "items": ITEMS,
    "captions": CAPTIONS,
    "descriptions": DESCRIPTIONS,
    "translations": TRANSLATIONS,
    "training": TRAINING,
}
