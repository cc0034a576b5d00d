"""A clip as a file: Motion JPEG in AVI, written by hand, so that no codec is needed."""

import struct
from collections.abc import Sequence

from PIL import Image

from pipeline.media.images import encode_jpeg

FRAMES_PER_S = 4
KEYFRAME, HAS_INDEX = 0x10, 0x10


def avi(frames: Sequence[Image.Image]) -> bytes:
    """The frames (RGB, of one size) as the bytes of an AVI file."""
    width, height = frames[0].size
    pictures = [encode_jpeg(frame) for frame in frames]
    largest = max(map(len, pictures))
    microseconds, rate = 1_000_000 // FRAMES_PER_S, largest * FRAMES_PER_S
    main = struct.pack("<14I", microseconds, rate, 0, HAS_INDEX, len(frames), 0, 1, largest, width, height, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sIHHIIIIIIII4H",
        *(b"vids", b"MJPG", 0, 0, 0, 0, 1, FRAMES_PER_S, 0, len(frames), largest, 0xFFFFFFFF, 0),
        *(0, 0, width, height),
    )
    form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    header = _list(b"hdrl", _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", form)))
    chunks = [_chunk(b"00dc", picture) for picture in pictures]
    index, at = [], 4
    for chunk, picture in zip(chunks, pictures, strict=True):
        index.append(struct.pack("<4sIII", b"00dc", KEYFRAME, at, len(picture)))
        at += len(chunk)
    body = header + _list(b"movi", b"".join(chunks)) + _chunk(b"idx1", b"".join(index))
    return _chunk(b"RIFF", b"AVI " + body)


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)
