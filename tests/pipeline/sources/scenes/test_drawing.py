import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from pipeline.media import images
from pipeline.sources.scenes.content import FACTS, Group, Sampler, Scene
from pipeline.sources.scenes.drawing import FRAMES_PER_S, avi, frames

SIZE = 64
FILLS = {name: ImageColor.getrgb(fill) for name, fill in FACTS["colours"].items()}


def drawn(scene, seed=0):
    return [np.asarray(frame).astype(int) for frame in frames(scene, SIZE, np.random.default_rng(seed))]


def of_colour(pixels, colour):
    return np.nonzero(np.abs(pixels - FILLS[colour]).max(2) < 50)


def where(pixels, colour):
    """Mean place (x, y) of the pixels of a colour, as shares."""
    rows, columns = of_colour(pixels, colour)
    return columns.mean() / SIZE, rows.mean() / SIZE


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_relations_can_be_seen(size, count):
    pair = Group("ball", "red", size, count), Group("cup", "purple", size, 4 - count)
    for seed in range(5):
        for axis, relation in enumerate(("left", "above")):
            (pixels,) = drawn(Scene("meadow", pair, relation), seed=seed)
            assert where(pixels, "red")[axis] < 0.5 < where(pixels, "purple")[axis]


def test_a_clip_is_a_video_to_the_pipeline():
    pictures = [Image.new("RGB", (48, 32), (40 * at, 90, 200 - 30 * at)) for at in range(5)]
    stream = io.BytesIO(avi(pictures))
    info = images.probe(stream)
    assert (info.media_type, info.width, info.height, info.num_frames) == ("video", 48, 32, 5)
    assert info.duration_s == 5 / FRAMES_PER_S
    decoded = images.frames(stream, "video", max_pixels=10_000, count=9)
    assert [frame.timestamp_s for frame in decoded] == [at / FRAMES_PER_S for at in range(5)]
    for frame, picture in zip(decoded, pictures, strict=True):
        assert np.abs(np.asarray(frame.image).astype(int) - np.asarray(picture)).max() < 12


def test_pictures_of_a_seed_stay():
    """Corpora are compared across versions: a change here needs another `corpus.VERSION`."""
    digest = hashlib.sha256()
    for at, scene in enumerate(Sampler(np.random.default_rng(0), 0.3).scenes(100)):
        for frame in frames(scene, (64, 96)[at % 2], np.random.default_rng(at)):
            digest.update(frame.tobytes())
    assert digest.hexdigest()[:16] == "5280a93f8ef17f4f"
