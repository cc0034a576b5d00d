"""Media as training reads them, decoded again and looked at."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import MediaError
from pipeline.hashing import file_hash
from pipeline.media.images import Limits, probe
from pipeline.media.video import fitting
from pipeline.packing import pixels
from pipeline.packing.pixels import max_pixels, read_pixels
from tests.pipeline.packing.corpora import item


def opened(data):
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


def photo(path, size, quality=92, exif=None, kind="JPEG"):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    image.save(path, kind, **({"quality": quality} if kind == "JPEG" else {}), **({"exif": exif} if exif else {}))
    return path


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(1, 1000))
@example(400, 500, 224)  # where the square root of the exact area falls short of 224
def test_the_shorter_side_is_the_size_and_the_shape_is_kept(width, height, size):
    made = fitting((width, height), max_pixels(width, height, size))
    short, long = sorted((width, height))
    assert min(made) == min(short, size)
    if short <= size:
        assert made == (width, height)
    else:
        assert (made[0] < made[1]) == (width < height) or made[0] == made[1] or width == height
        assert abs(max(made) - size * long / short) <= 1 + 0.03 * long / short


def test_a_large_photo_is_shrunk(tmp_path):
    path = photo(tmp_path / "a.jpg", (600, 400))
    data, count = read_pixels(item(path, size=(600, 400)), str(path), 64, 8)
    assert (opened(data).size, count) == ((96, 64), 1)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = photo(tmp_path / "a.jpg", (600, 400), exif=exif)
    data, _ = read_pixels(item(path, size=(400, 600)), str(path), 64, 8)
    assert opened(data).size == (64, 96)
    expected = Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_270).resize((64, 96))
    difference = np.abs(np.asarray(opened(data), float) - np.asarray(expected, float))
    assert difference.mean() < 5


def test_a_jpeg_within_the_size_is_kept_less_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a place nobody is to know"
    path = photo(tmp_path / "a.jpg", (90, 60), exif=exif)
    data, _ = read_pixels(item(path, size=(90, 60)), str(path), 60, 8)
    scan = path.read_bytes()[path.read_bytes().index(b"\xff\xda") :]
    assert data.endswith(scan) and b"nobody" not in data and b"nobody" in path.read_bytes()
    assert np.array_equal(np.asarray(opened(data)), np.asarray(Image.open(path)))


def test_nothing_is_enlarged(tmp_path):
    path = photo(tmp_path / "a.png", (30, 20), kind="PNG")
    data, _ = read_pixels(item(path, size=(30, 20)), str(path), 384, 8)
    assert opened(data).size == (30, 20)


def test_frames_of_a_video_stand_one_below_the_other(data):
    path = data / "clips" / "walk.mkv"
    with path.open("rb") as stream:
        seen = probe(stream)
    row = item(path, size=(seen.width, seen.height), media_type="video")
    made, count = read_pixels(row, str(path), 96, 4)
    column = opened(made)
    short, long = sorted((seen.width, seen.height))
    width, height = (96, 96 * long / short) if seen.width < seen.height else (96 * long / short, 96)
    assert count == 4
    assert column.width == pytest.approx(width, abs=1) and column.height == pytest.approx(4 * height, abs=4)
    parts = np.split(np.asarray(column, float), 4)
    one, _ = read_pixels(row, str(path), 96, 1)  # the middle of the whole is between the second and the third
    to_the_middle = [np.abs(part - np.asarray(opened(one), float)).mean() for part in parts]
    assert max(to_the_middle[1:3]) < min(to_the_middle[0], to_the_middle[3])
    assert all(np.abs(a - b).mean() > 0.5 for a, b in itertools.pairwise(parts))


def test_frames_of_other_sizes_are_fitted_and_too_many_are_refused():
    larger = Image.new("RGB", (40, 30), "blue")
    larger.paste("lime", (20, 0, 40, 30))
    column = pixels._column([Image.new("RGB", (20, 10), "red"), larger])
    assert column.size == (20, 20)
    assert [column.getpixel(place) for place in ((18, 5), (2, 15), (18, 15))] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
    with pytest.raises(MediaError, match="--image-size or fewer --frames") as raised:
        pixels._column([Image.new("RGB", (1, 1000))] * 66)
    assert raised.value.kind == "too_large"
    assert len(pixels.encode_jpeg(pixels._column([Image.new("RGB", (1, 1000))] * 65))) > 0


def test_bytes_that_changed_since_ingest(tmp_path):
    path = photo(tmp_path / "a.jpg", (90, 60))
    row = item(path, size=(90, 60))
    photo(path, (90, 60), quality=50)
    with pytest.raises(MediaError, match="--stage ingest --overwrite") as raised:
        read_pixels(row, str(path), 60, 8)
    assert raised.value.kind == "changed"


def test_what_is_missing_or_broken(tmp_path):
    with pytest.raises(MediaError) as raised:
        read_pixels(item(tmp_path / "none.jpg"), str(tmp_path / "none.jpg"), 60, 8)
    assert raised.value.kind == "missing"
    path = tmp_path / "broken.jpg"
    path.write_bytes(photo(tmp_path / "a.jpg", (900, 600)).read_bytes()[:2000])
    with pytest.raises(MediaError) as raised:
        read_pixels(item(path, size=(900, 600)), str(path), 60, 8)
    assert raised.value.kind in ("truncated", "unreadable")
    assert file_hash(path) == item(path)["sha256"]


def test_what_ingest_let_in_is_not_too_large(tmp_path, monkeypatch):
    path = photo(tmp_path / "a.jpg", (900, 600))
    monkeypatch.setattr(pixels, "Limits", lambda max_source_pixels=1000: Limits(max_source_pixels))
    data, _ = read_pixels(item(path, size=(900, 600)), str(path), 60, 8)
    assert opened(data).size == (90, 60)


@pytest.mark.parametrize("feature_type", ["float16", "float32"])
def test_features_stay_features_and_whole(tmp_path, feature_type):
    array = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    row = item(tmp_path / "a.npy", size=(0, 0), media_type="video")
    data, count = read_pixels(row, row["uri"], 64, 8, feature_type)
    stored = np.load(io.BytesIO(data), allow_pickle=False)
    assert count == 20 and stored.dtype == feature_type and np.array_equal(stored, array.astype(feature_type))
    np.save(tmp_path / "a.npy", array + 1)
    with pytest.raises(MediaError) as raised:
        read_pixels(row, row["uri"], 64, 8, feature_type)
    assert raised.value.kind == "changed"


def test_features_too_large_for_half_the_bits(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[7e4]]))
    row = item(tmp_path / "a.npy", size=(0, 0))
    with pytest.raises(MediaError, match="--feature-type float32") as raised:
        read_pixels(row, row["uri"], 64, 8)
    assert raised.value.kind == "too_large"
    assert read_pixels(row, row["uri"], 64, 8, "float32")[1] == 1
