import io
import struct

import pillow_heif
import pyarrow as pa
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from pipeline.errors import UsageError
from pipeline.media.images import frames, probe
from stages.retrieval.facts import read_facts
from stages.retrieval.filters import Filters
from tests.pipeline.media.test_video import encoded

MUNICH = {1: "N", 2: (48.0, 8.0, 13.2), 3: "E", 4: (11.0, 34.0, 30.0)}
SYDNEY = {1: "S", 2: (33.0, 52.0, 0.0), 3: "E", 4: (151.0, 12.0, 0.0)}


def exif(make, model, taken, gps):
    data = Image.Exif()
    data[ExifTags.Base.Make], data[ExifTags.Base.Model] = make, model
    data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    data.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    return data.tobytes()


def dng(width=64, height=48):
    """Raw data of a camera that saw green."""
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 1), (262, 3, 32803), (271, 2, b"ACM\0"),
        (273, 4, 1024), (277, 3, 1), (278, 4, height), (279, 4, 2 * width * height), (33421, 3, 2 | 2 << 16),
        (33422, 1, 0 | 1 << 8 | 1 << 16 | 2 << 24), (50706, 1, 1 | 4 << 8),
    ]  # fmt: skip
    counts = {2: 4, 1: 4}
    ifd = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        packed = value if isinstance(value, bytes) else struct.pack("<I", value)
        ifd += struct.pack("<HHI", tag, kind, 2 if tag == 33421 else counts.get(kind, 1)) + packed
    pixels = b"".join(
        struct.pack("<H", 9000 if (row + column) % 2 else 900) for row in range(height) for column in range(width)
    )
    return (b"II*\0" + struct.pack("<I", 8) + ifd + b"\0" * 4).ljust(1024, b"\0") + pixels


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """A JPEG, a HEIC, a DNG and a video, with what their headers say, and one that is gone."""
    home, picture = tmp_path_factory.mktemp("facts"), Image.new("RGB", (64, 48), "red")
    picture.save(home / "a.jpg", exif=exif("NIKON CORPORATION", "NIKON D750", "2023:07:31 18:05:00", MUNICH))
    heif = pillow_heif.from_pillow(picture)
    heif.save(home / "b.heic", exif=exif("Apple", "iPhone 15", "2024:01:02 03:04:05", SYDNEY))
    (home / "c.dng").write_bytes(dng())
    encoded(home / "d.mp4", location="+52.5200+013.4050/")
    names = {"a.jpg": "image", "b.heic": "image", "c.dng": "image", "d.mp4": "video", "gone.jpg": "image"}
    rows = [
        {"item_id": name, "uri": str(home / name), "media_type": kind, "corpus": "photos", "split": "train"}
        for name, kind in names.items()
    ]
    facts = read_facts(rows)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pa.table({**columns, **{name: facts[name] for name in facts.column_names}})


def test_headers_of_pictures_and_videos_are_read(items):
    nikon, iphone, raw, video, gone = items.to_pylist()
    assert (nikon["taken"], nikon["camera"]) == ("2023-07-31T18:05:00", "NIKON D750")
    assert "Munich" in nikon["place"]
    assert iphone["camera"] == "Apple iPhone 15" and "Sydney" in iphone["place"]
    assert raw["camera"] == "ACM" and video["duration_s"] == pytest.approx(2.4, abs=1)
    assert "Berlin" in video["place"]
    assert {gone[name] for name in ("taken", "camera", "place", "duration_s")} == {None}


@pytest.mark.parametrize(
    ("filters", "passing"),
    [
        ({"camera": "iphone"}, ["b.heic"]),
        ({"place": "munich"}, ["a.jpg"]),
        ({"since": "2023-08"}, ["b.heic"]),
        ({"until": "2023-07"}, ["a.jpg"]),
        ({"since": "2023", "until": "2024", "media_type": "image"}, ["a.jpg", "b.heic"]),
        ({"media_type": "video"}, ["d.mp4"]),
    ],
)
def test_filters_by_what_the_camera_recorded(items, filters, passing):
    keep_N = Filters(**filters).passing(items)
    assert [name for name, keep in zip(items["item_id"].to_pylist(), keep_N, strict=True) if keep] == passing


@pytest.mark.parametrize("gps", [{2: (IFDRational(48, 0), 8.0, 13.2)}, {2: (480.0, 8.0, 13.2)}, {2: (48.0, 8.0)}, None])
def test_a_broken_place_leaves_date_and_camera_to_filter_by(tmp_path, gps):
    data = exif("Apple", "iPhone 15", "2024:01:02 03:04:05", {**MUNICH, **(gps or {})})
    if gps is None:  # it points behind the end of the file
        place = data.index(struct.pack(">H", ExifTags.IFD.GPSInfo)) + 8
        data = data[:place] + struct.pack(">I", 2**31) + data[place + 4 :]
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=data)
    item = {"uri": str(tmp_path / "a.jpg"), "media_type": "image"}
    items = read_facts([item])
    assert Filters(camera="iphone", since="2024").passing(items).tolist() == [True]
    with pytest.raises(UsageError, match="place: the index has none"):
        Filters(place="Munich").passing(items)


@pytest.mark.parametrize(
    ("filters", "message"),
    [({"camera": "Leica"}, "iPhone 15, NIKON"), ({"since": "today"}, "2024-07"), ({"folder": "x"}, "'x'")],
)
def test_a_filter_that_nothing_can_pass_names_what_there_is(items, filters, message):
    with pytest.raises(UsageError, match=message):
        Filters(**filters).passing(items)


def test_pictures_of_phones_and_raw_data_are_decoded(items):
    for uri, channel in zip(items["uri"].to_pylist()[1:3], (0, 1), strict=True):
        with open(uri, "rb") as file:
            data = io.BytesIO(file.read())
        assert (probe(data).width, probe(data).height) == (64, 48)
        (frame,) = frames(data, "image", max_pixels=10_000, count=1)
        pixel = frame.image.getpixel((10, 10))
        assert pixel[channel] == max(pixel) and frame.image.mode == "RGB"
