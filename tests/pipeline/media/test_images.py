import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, ImageFile

from pipeline.errors import MediaError
from pipeline.media.images import Limits, Probe, frames, jpegs, probe
from tests.worked_examples import each_example

DEFAULTS = Limits()


def scene(width: int = 160, height: int = 96) -> Image.Image:
    """Red at the top left, green at the top right, blue at the bottom left, noise at the bottom right."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    return Image.fromarray(pixels)


def saved(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif(orientation: int = 1) -> bytes:
    data = Image.Exif()
    data[0x0112], data[0x010F] = orientation, "maker of the camera"
    return data.tobytes()


def picture(data: bytes, max_pixels: int = 10**6) -> Image.Image:
    (frame,) = frames(io.BytesIO(data), "image", max_pixels=max_pixels, count=8)
    assert frame.timestamp_s is None and frame.image.mode == "RGB"
    return frame.image


def failure(data: bytes, limits: Limits = DEFAULTS, media_type: str = "image") -> MediaError:
    with pytest.raises(MediaError) as caught:
        probe(io.BytesIO(data), limits)
    with pytest.raises(MediaError) as again:
        frames(io.BytesIO(data), media_type, max_pixels=100, count=2, limits=limits)
    assert again.value.kind == caught.value.kind
    return caught.value


def near(pixel: tuple, expected: tuple, by: int = 6) -> bool:
    return all(abs(a - b) <= by for a, b in zip(pixel, expected, strict=True))


def png_header(width: int, height: int) -> bytes:
    """A valid PNG's beginning: header, and image data that end early."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


WRITERS = {
    **{name: {} for name in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")},
    "WEBP": {"lossless": True},
}


@pytest.mark.parametrize(("name", "options"), WRITERS.items())
def test_formats(name, options):
    data = saved(scene(), name, **options)
    assert probe(io.BytesIO(data)) == Probe("image", 160, 96, 1, None)
    image = picture(data)
    assert image.size == (160, 96)
    assert near(image.getpixel((10, 10)), (255, 0, 0), 12)
    assert near(image.getpixel((10, 80)), (0, 0, 255), 12)
    if name not in ("PPM", "AVIF", "JPEG2000"):
        for part in (0.5, 0.99):
            assert failure(data[: int(len(data) * part)]).kind == "truncated"


def test_other_files_are_refused():
    for data in (b"", b"x", b"plain text\n" * 100, b"<svg xmlns=''></svg>", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(5000)):
        assert failure(data).kind == "unreadable"
    with pytest.raises(MediaError, match="meta box"):
        probe(io.BytesIO(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)))


@pytest.mark.parametrize("data", [b"root:x:0:0", b"KEY=geheim", b"\x7fELF\x02\x01"])
def test_bytes_of_files_that_are_no_pictures_are_not_quoted(data):
    message = str(failure(data))
    assert "not a picture" in message and not any(part in message for part in ("root", "KEY", "ELF", "x7f"))


def test_a_bomb_is_refused_from_its_header_with_no_warning(monkeypatch):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("pixels were decoded"))
        for size in ((12_000, 10_000), (50_000, 50_000)):  # between Pillow's own limits, and beyond both
            assert failure(png_header(*size)).kind == "too_large"
        data = saved(Image.new("L", (160, 96)), "PNG")
        assert failure(data, Limits(max_source_pixels=160 * 96 - 1)).kind == "too_large"
        assert failure(data, Limits(max_source_bytes=len(data) - 1)).kind == "too_large"
    assert caught == []


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(name, orientation):
    away = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}  # from upright
    away |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored = scene() if orientation == 1 else scene().transpose(Image.Transpose[away[orientation]])
    data = saved(stored, name, exif=exif(orientation))
    assert probe(io.BytesIO(data)) == Probe("image", 160, 96, 1, None)
    for max_pixels, size in ((10**6, (160, 96)), (40 * 24, (40, 24))):
        image = picture(data, max_pixels)
        assert image.size == size
        x, y = size[0] // 4, size[1] // 4
        assert near(image.getpixel((x, y)), (255, 0, 0), 30)
        assert near(image.getpixel((3 * x, y)), (0, 255, 0), 30)
        assert near(image.getpixel((x, 3 * y)), (0, 0, 255), 30)


def test_cmyk_as_adobe_stores_it():
    data = saved(scene().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert near(picture(data).getpixel((10, 10)), (255, 0, 0), 12)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LIGHT = SRGB.replace(struct.pack(">i", round(2.4 * 65536)), struct.pack(">i", round(1.6 * 65536)))  # the gamma
PROFILES = {
    "SRGB": SRGB,
    "RED_IS_GREEN": SRGB.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ"),
    "LIGHT": LIGHT,
    "LIGHT_GREY": LIGHT.replace(b"RGB ", b"GRAY").replace(b"rTRC", b"kTRC"),
    "CUT": SRGB[:200],
}


@each_example("colours_are_converted_from_the_profile_to_srgb", "mode, name, profile, expected")
def test_colours_are_converted_from_the_profile_to_srgb(mode, name, profile, expected):
    image = Image.new("RGB", (40, 30), (200, 80, 60))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(128)
    data = saved(image, name, icc_profile=PROFILES[profile])
    assert near(picture(data).getpixel((20, 15)), expected, 5)
    encoded = Image.open(io.BytesIO(sent(data)))
    assert near(encoded.convert("RGB").getpixel((20, 15)), expected, 6) and "icc_profile" not in encoded.info


@each_example("numbers_beyond_8_bits_are_scaled_and_not_clipped", "name, dtype, low, high")
def test_numbers_beyond_8_bits_are_scaled_and_not_clipped(name, dtype, low, high):
    ramp = np.linspace(low, high, 256).astype(dtype)
    data = saved(Image.fromarray(np.tile(ramp, (16, 1))), name)
    assert probe(io.BytesIO(data)).width == 256
    grey = np.asarray(picture(data))[8, :, 0].astype(int)
    assert np.abs(grey - np.arange(256)).max() <= 1


@pytest.mark.parametrize(("mode", "name"), [("RGBA", "PNG"), ("P", "PNG"), ("RGBA", "GIF")])
def test_transparency_lies_on_white(mode, name):
    image = Image.new("RGBA", (40, 20), (200, 100, 50, 255))
    image.paste((0, 0, 0, 0), (0, 0, 20, 20))
    shrunk = picture(saved(image if mode == "RGBA" else image.quantize(2), name), 200)
    assert shrunk.getpixel((2, 8)) == (255, 255, 255)
    assert near(shrunk.getpixel((17, 8)), (200, 100, 50), 4)


def drawing(mode: str, ground: tuple, ink: tuple, accent: tuple) -> Image.Image:
    image = Image.new("RGBA", (80, 40), ground)
    ImageDraw.Draw(image).rectangle((10, 10, 60, 30), fill=ink)
    ImageDraw.Draw(image).rectangle((62, 10, 70, 30), fill=accent)
    return image.convert(mode) if mode != "P" else image.quantize(4)


@each_example("white_drawings_on_a_transparent_ground_are_seen", "mode, name, ink, accent")
def test_white_drawings_on_a_transparent_ground_are_seen(mode, name, ink, accent):
    data = saved(
        drawing(mode, (255, 255, 255, 0), tuple(ink), tuple(accent)),
        name,
        **({"lossless": True} if name == "WEBP" else {}),
    )
    grey = picture(data).convert("L")
    ground = grey.getpixel((2, 2))
    assert abs(grey.getpixel((30, 20)) - ground) > 40
    assert accent[3] == 0 or abs(grey.getpixel((66, 20)) - ground) > 40


def faded(strength: float) -> Image.Image:
    return Image.blend(Image.new("RGB", (80, 60), "black"), scene(80, 60), strength)


@pytest.mark.parametrize(
    ("name", "blank"),
    [
        ("GIF", [Image.new("RGB", (80, 60), "white")]),
        ("PNG", [Image.new("RGBA", (80, 60), (0, 0, 0, 0)), Image.new("RGBA", (80, 60), (0, 0, 0, 0))]),
        ("WEBP", [faded(strength) for strength in (0, 0.01, 0.04, 0.2)]),
        ("AVIF", [faded(0), faded(0.02)]),
    ],
)
def test_an_animation_that_begins_blank_gives_a_frame_that_shows_something(name, blank):
    first, *others = (frame.convert(blank[0].mode) for frame in (*blank, scene(80, 60), faded(0.9)))
    animation = saved(first, name, save_all=True, append_images=others, duration=100)
    assert probe(io.BytesIO(animation)).num_frames >= 3
    assert near(picture(animation).getpixel((60, 10)), (0, 255, 0), 20)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_animations_give_their_first_frame(name):
    first, *others = (Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue"))
    animation = saved(first, name, save_all=True, append_images=others, duration=100)
    assert probe(io.BytesIO(animation)) == Probe("image", 40, 30, 3, None)
    assert near(picture(animation).getpixel((20, 15)), (255, 0, 0))
    for pages in ("TIFF", "MPO"):  # pages, and several pictures in one file, are not an animation
        data = saved(first, pages, save_all=True, append_images=others)
        assert probe(io.BytesIO(data)) == Probe("image", 40, 30, 1, None)


SOURCES = [saved(scene(), "JPEG", progressive=True, exif=exif(6)), *(saved(scene(), name) for name in WRITERS)]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SOURCES), st.data())
def test_corrupted_pictures_give_a_result_or_a_media_error(source, data):
    broken = bytearray(source)
    for _ in range(data.draw(st.integers(0, 6))):
        reach = data.draw(st.sampled_from([64, 700, len(broken)]))  # headers are where the trouble is
        broken[data.draw(st.integers(2, min(reach, len(broken)) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(0, len(broken)))] if data.draw(st.booleans()) else broken
    try:
        media_type = probe(io.BytesIO(broken)).media_type
        pictures = frames(io.BytesIO(broken), media_type, max_pixels=1000, count=2)
        assert pictures and all(frame.image.width * frame.image.height <= 1000 for frame in pictures)
        assert jpegs(io.BytesIO(broken), media_type, max_pixels=1000, count=2)[0][0].startswith(b"\xff\xd8")
    except MediaError as error:
        assert error.kind in ("unreadable", "truncated", "too_large", "no_frames")


def photo(mode="RGB", name="JPEG", **options) -> bytes:
    return saved(scene(60, 40).convert(mode), name, **options)


def sent(data: bytes, max_pixels: int = 10_000) -> bytes:
    return jpegs(io.BytesIO(data), "image", max_pixels=max_pixels, count=1)[0][0]


@pytest.mark.parametrize(("mode", "options"), [("RGB", {}), ("L", {"progressive": True, "restart_marker_rows": 1})])
def test_an_upright_jpeg_is_sent_with_its_coded_pixels_and_no_metadata(mode, options):
    data = photo(mode, exif=exif(), comment=b"a secret", icc_profile=b"profile" * 99, **options)
    bare = sent(data)
    assert b"maker of the camera" in data
    for secret in (b"maker of the camera", b"a secret", b"profile"):
        assert secret not in bare
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare))), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (photo(exif=exif(6), comment=b"a secret"), (40, 60)),
        (photo(name="PNG"), (60, 40)),
        (photo("CMYK"), (60, 40)),
        (saved(scene(180, 120), "JPEG", comment=b"a secret"), (122, 81)),
    ],
)
def test_what_must_be_touched_is_decoded(data, size):
    again = Image.open(io.BytesIO(sent(data)))
    assert (again.format, again.mode, again.size) == ("JPEG", "RGB", size)
    assert not again.getexif() and "comment" not in again.info
