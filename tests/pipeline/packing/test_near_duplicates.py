"""Planted copies of photos, and photos that are different."""

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from pipeline.packing.near_duplicates import SIDE, NearDuplicates, thumbnail

MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


@pytest.fixture(scope="module")
def photos(data):
    return [Image.open(path).convert("RGB") for path in sorted((data / "coco_cc_by" / "images").iterdir())[:111]]


def stored(photo, quality=90):
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=quality)
    return thumbnail({"media": stream.getvalue(), "num_frames": 1})


def cropped(photo, left, top, right, bottom):
    width, height = photo.size
    return photo.crop((width * left, height * top, width * (1 - right), height * (1 - bottom)))


COPIES = {
    "same": lambda photo: stored(photo),
    "quarter": lambda photo: stored(photo.resize((photo.width // 4, photo.height // 4))),
    "recompressed": lambda photo: stored(photo, 30),
    "mirrored": lambda photo: stored(photo.transpose(MIRROR)),
    "cropped": lambda photo: stored(cropped(photo, 0.1, 0.02, 0.07, 0.04)),
    "cropped and mirrored": lambda photo: stored(cropped(photo, 0, 0.1, 0.1, 0.1).transpose(MIRROR)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(photos, kind):
    finder = NearDuplicates(np.array([of(photo) for of in (stored, COPIES[kind]) for photo in photos[::3]]))
    originals, copies = np.arange(37), np.arange(37, 74)
    pairs = finder.pairs(originals, copies) | finder.pairs(copies, originals)
    assert len(pairs) >= 36 and pairs <= {(number, number + 37) for number in range(37)}


def test_different_photos_and_what_shows_nothing_are_no_pairs(photos):
    grey, features = Image.new("RGB", (64, 48), (90, 90, 90)), {"media": b"\x93NUMPY", "num_frames": 1}
    nothing, video = {"media": None, "num_frames": 0}, {"media": b"", "num_frames": 3}
    black = [thumbnail(row) for row in (features, nothing, video)]
    thumbnails = np.array([*map(stored, photos), stored(grey), stored(grey), *black])
    assert thumbnails.shape == (116, SIDE, SIDE, 3)
    assert NearDuplicates(thumbnails).pairs(np.arange(116), np.arange(116)) == set()


def test_videos_and_features_are_not_compared():
    thumbnails = np.zeros((2000, SIDE, SIDE, 3), np.uint8)
    thumbnails[0, :9] = 255
    finder = NearDuplicates(thumbnails)
    tracemalloc.start()
    assert finder.pairs(np.arange(1, 500), np.arange(2000)) == finder.pairs(np.arange(1), np.arange(1, 9)) == set()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6  # a cosine of each window with each picture would be 650 MB
