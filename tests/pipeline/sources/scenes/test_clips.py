import io
import struct

import numpy as np
from PIL import Image

from pipeline.media.images import frames, probe
from pipeline.sources.scenes.clips import FRAMES_PER_S, avi


def test_a_clip_is_a_video_to_the_pipeline():
    shown = [Image.new("RGB", (48, 32), (40 * at, 90, 200 - 30 * at)) for at in range(5)]
    stream = io.BytesIO(avi(shown))
    seen = probe(stream)
    assert (seen.media_type, seen.width, seen.height, seen.num_frames) == ("video", 48, 32, 5)
    assert seen.duration_s == 5 / FRAMES_PER_S
    decoded = frames(stream, "video", max_pixels=10_000, count=9)
    assert [frame.timestamp_s for frame in decoded] == [at / FRAMES_PER_S for at in range(5)]
    for frame, wanted in zip(decoded, shown, strict=True):
        assert np.abs(np.asarray(frame.image).astype(int) - np.asarray(wanted)).max() < 12


def test_the_index_points_at_the_frames():
    data = avi([Image.new("RGB", (16, 16), (at, 0, 0)) for at in range(4)])
    start, index = data.index(b"movi"), data.index(b"idx1")
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    entries = [struct.unpack("<4sIII", data[at : at + 16]) for at in range(index + 8, len(data), 16)]
    assert len(entries) == 4
    for name, _flags, offset, size in entries:
        chunk = data[start + offset : start + offset + 8]
        assert chunk == name + struct.pack("<I", size)
        assert data[start + offset + 8 : start + offset + 10] == b"\xff\xd8"
