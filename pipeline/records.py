"""The record types of a corpus and their Arrow schemas: one page, one version.

A change of any column here raises SCHEMA_VERSION; `pipeline.corpus` refuses tables of another version.
"""

import pyarrow as pa

SCHEMA_VERSION = 1

ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),  # "image" or "video"
        pa.field("uri", pa.string(), nullable=False),  # opened by pipeline.media.open_media
        pa.field("sha256", pa.string(), nullable=False),  # hex, of the media's bytes
        pa.field("width", pa.int32(), nullable=False),  # pixels, after EXIF orientation
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

SCHEMAS = {"items": ITEMS, "captions": CAPTIONS, "descriptions": DESCRIPTIONS}
