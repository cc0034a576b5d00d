"""Images and videos: checked by `probe`, turned into small upright RGB pictures by `frames`, encoded by `jpegs`.

Precomputed features (`pipeline.media.features`) are checked too, and have no pictures. The bytes of a file decide what
it is, never its name. Functions are called from thread pools: they share no state, and neither read nor change any of
Pillow's global settings.
"""

import contextlib
import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageStat
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.errors import MediaError
from pipeline.media import video
from pipeline.media.features import MAGIC, MAX_BYTES, read_features
from pipeline.media.uri import open_media as open_media
from pipeline.media.uri import typed_failures

_STILLS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".j2k")
_RAWS = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")
IMAGE_SUFFIXES = frozenset(
    (*_STILLS, ".apng", ".gif", ".webp", ".avif", ".heic", ".heif", *(_RAWS if find_spec("rawpy") else ()))
)
_MPEG = (".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mpg", ".mpeg", ".mts", ".m2ts")
VIDEO_SUFFIXES = frozenset((*_MPEG, ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".ogv"))


def _heif(stream: BinaryIO) -> ImageFile.ImageFile:
    from pi_heif import HeifImageFile

    return HeifImageFile(stream)


def _raw(stream: BinaryIO) -> Image.Image:
    """The raw data of a camera at half their size, developed as the camera's settings say, and upright."""
    try:
        import rawpy
    except ImportError as error:
        message = "the file is a camera's raw data: pip install 'leccr[raw]', or convert it to JPEG"
        raise MediaError("unreadable", message) from error
    with rawpy.imread(stream) as raw:
        if raw.sizes.raw_width * raw.sizes.raw_height > Limits().max_source_pixels:
            raise MediaError("too_large", f"{raw.sizes.raw_width:,} x {raw.sizes.raw_height:,} pixels are too many")
        image = Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
    image.info["full_size"] = (2 * image.width, 2 * image.height)
    return image


# Not Pillow's own `Image.open`: its check for decompression bombs is a global setting and a warning, and it tries
# formats that start programs (EPS) or accept anything.
_FORMATS: dict[str, tuple[bytes, Callable[[BinaryIO], Any]]] = {
    "JPEG": (rb"\xff\xd8\xff", JpegImageFile),
    "PNG": (rb"\x89PNG\r\n\x1a\n", PngImageFile),
    "GIF": (rb"GIF8[79]a", GifImageFile),
    "WEBP": (rb"RIFF....WEBP", WebPImageFile),
    "RAW": (rb"FUJIFILM|II(?:RO|RS|U\0)|MMOR|....ftypcrx |II\*\0....CR", _raw),
    "TIFF": (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", TiffImageFile),
    "AVIF": (rb"....ftypavi[fs]", AvifImageFile),
    "JPEG2000": (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", Jpeg2KImageFile),
    "BMP": (rb"BM....\0\0\0\0", BmpImageFile),
    "PPM": (rb"P[1-6]\s", PpmImageFile),
    "HEIF": (rb"....ftyp(?:hei|hev|mif1|msf1)", _heif),  # FFmpeg would take its tiles for a video
}
_ANIMATED = {"GIF", "PNG", "WEBP", "AVIF"}  # the pages of a TIFF are not an animation
_VIDEO = (
    rb"....(?:ftyp|moov|mdat|wide|free|skip)|\x1a\x45\xdf\xa3|RIFF....(?:AVI |WAVE)|\0\0\x01[\xba\xb3]|FLV\x01|OggS"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|fLaC|ID3|G.{187}G|.{4}G.{191}G"
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # transposition by EXIF orientation
_QUARTER_TURNS = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}

_PROFILES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's mode by a colour profile's space
_SAME_COLOUR = 3  # of 255: a profile that changes no colour by more is sRGB
_BLANK = 8.0  # of 255: a picture whose channels deviate less shows nothing
_MAX_BLANK = 100  # frames of an animation that are decoded in search of one that shows something
_GROUNDS = (255, 128, 0)  # what a transparent picture is laid on: white, or else grey or black
_HIDDEN = 0.25  # share of a drawing that white may hide

_NO_PIXELS = "the file holds precomputed features (.npy), which have no pixels"
_START_OF_SCAN = 0xDA
_METADATA = {0xFE, *range(0xE0, 0xF0)} - {0xE0, 0xEE}  # all but JFIF, and Adobe's note on how colours are coded

# Broken EXIF data are not a failure, and Pillow would warn about each kind of them.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is refused before a pixel is decoded: pixels of a picture or frame, bytes of a picture or of features."""

    max_source_pixels: int = 100_000_000
    max_source_bytes: int = MAX_BYTES


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a medium is.

    Width and height are pixels after EXIF orientation or a video's rotation; 0 for features, which are an image if they
    have one row.
    """

    media_type: str  # "image" or "video"
    width: int
    height: int
    num_frames: int  # 1 for stills; duration × rate of a video whose container has no count; rows of features
    duration_s: float | None  # None for images and features


@dataclasses.dataclass(frozen=True)
class Frame:
    """An RGB picture; `timestamp_s` counts from the video's first frame, None for images."""

    image: Image.Image
    timestamp_s: float | None


def probe(stream: BinaryIO, limits: Limits = Limits()) -> Probe:
    """Identify a medium by its bytes and prove it readable: a picture is decoded whole, a video by one frame.

    Of an animation only the first frame is decoded.

    Args:
        stream: Seekable bytes.
        limits: What is too large.

    Returns:
        Kind and size.

    Raises:
        MediaError: `unreadable`, `truncated`, `too_large` or `no_frames`.
        EnvironmentTrouble: The stream is a video and PyAV is not installed.
    """
    with typed_failures("the file"):
        name = _format(stream)
        if name == "features":
            rows = len(read_features(stream, limits.max_source_bytes))
            return Probe("image" if rows == 1 else "video", 0, 0, rows, None)
        if name == "video":
            return Probe("video", *video.measure(stream, limits.max_source_pixels))
        image = _open_image(stream, limits)
        size = image.size
        image.draft("L", (1, 1))  # decodes a JPEG at an eighth of its size, but still reads every byte
        image.load()
        # Pillow turns a TIFF as it loads; a draft has another size.
        width, height = size if image.format == "JPEG" else image.info.get("full_size", image.size)
        if _turn(image) in _QUARTER_TURNS:
            width, height = height, width
        return Probe("image", width, height, _num_frames(image), None)


def frames(stream: BinaryIO, media_type: str, *, max_pixels: int, count: int, limits: Limits = Limits()) -> list[Frame]:
    """Decode upright sRGB pictures, shrunk if width × height exceeds `max_pixels`, never enlarged.

    They look as a viewer shows them: colour profiles, pixels that are not square and HDR are converted.

    Args:
        stream: Seekable bytes.
        media_type: "image" or "video".
        max_pixels: Largest width × height of a picture.
        count: Frames of a video, taken at the middles of equal slices of its time.
        limits: What is too large.

    Returns:
        One picture of an image, of an animation its first frame that is not blank; `count` of a video in order, or
        every frame once if it has fewer. Of a video with a broken tail, the frames that can be decoded.

    Raises:
        MediaError: As `probe`.
        EnvironmentTrouble: As `probe`.
    """
    with typed_failures("the file"):
        if media_type == "image":
            return [Frame(_visible_frame(_open_image(stream, limits), max_pixels, limits), None)]
        if _format(stream) == "features":
            raise MediaError("unreadable", _NO_PIXELS)
        fit = functools.partial(fitting, max_pixels=max_pixels)
        return [Frame(image, seconds) for seconds, image in video.sample(stream, count, fit, limits.max_source_pixels)]


def jpegs(
    stream: BinaryIO, media_type: str, *, max_pixels: int, count: int, limits: Limits = Limits()
) -> list[tuple[bytes, float | None]]:
    """The pictures of `frames`, encoded without metadata, each with its time as in `Frame`.

    A JPEG that is upright and small enough is not encoded again, which would cost more than the rest of a request and
    some of its quality: it only loses its metadata.
    """
    if media_type == "image":
        with typed_failures("the file"):
            image = _open_image(stream, limits)
            usable = image.format == "JPEG" and image.mode in ("RGB", "L") and "mp" not in image.info
            usable = usable and _to_srgb(image.info.get("icc_profile")) is None
            if usable and image.size == fitting(image.size, max_pixels) and _turn(image) is None:
                stream.seek(0)
                if bare := without_metadata(stream.read()):
                    return [(bare, None)]
    pictures = frames(stream, media_type, max_pixels=max_pixels, count=count, limits=limits)
    return [(encode_jpeg(picture.image), picture.timestamp_s) for picture in pictures]


def fitting(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """The size, or the largest of its shape with width × height <= max_pixels and no side under 1."""
    width, height = size
    if width * height <= max_pixels:
        return size
    scale = (max_pixels / (width * height)) ** 0.5
    short, long = sorted((width, height))
    short = max(1, int(short * scale))
    long = max(1, min(int(long * scale), max_pixels // short))
    return (long, short) if width > height else (short, long)


def encode_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """The picture (RGB) as JPEG; `quality` is Pillow's, 1 to 95."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def without_metadata(data: bytes) -> bytes | None:
    """The JPEG without EXIF (places and thumbnails), profiles, XMP and comments; the coded pixels are the same.

    None if the segments before the first scan do not follow the standard: such a file has to be decoded.
    """
    parts, at = [data[:2]], 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == _START_OF_SCAN:
            return b"".join((*parts, data[at:]))
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end < at + 4:
            return None
        if marker not in _METADATA:
            parts.append(data[at:end])
        at = end
    return None


def _format(stream: BinaryIO) -> str:
    """What the first bytes say: "features", "video", or the name of a picture's format."""
    stream.seek(0)
    head = stream.read(512)
    if head.startswith(MAGIC):
        return "features"
    for name, (magic, _) in _FORMATS.items():
        if re.match(magic, head, re.DOTALL):
            return "RAW" if name == "TIFF" and _is_raw(stream) else name
    if re.match(_VIDEO, head, re.DOTALL):
        return "video"
    # Its bytes are not quoted: a list may name any file, and messages are read by others.
    problem = "is not a picture or video of a known format" if head else "is empty (0 bytes)"
    raise MediaError("unreadable", f"the file {problem}")


def _open_image(stream: BinaryIO, limits: Limits) -> ImageFile.ImageFile:
    """The image by its header, not yet decoded, within the limits."""
    name = _format(stream)
    if name not in _FORMATS:
        raise MediaError("unreadable", _NO_PIXELS if name == "features" else "the file is a video, not a picture")
    size = stream.seek(0, io.SEEK_END)
    if size > limits.max_source_bytes:
        raise MediaError("too_large", f"{size:,} bytes are more than {limits.max_source_bytes:,}")
    stream.seek(0)
    declared = 8 + int.from_bytes(stream.read(8)[4:], "little") if name == "WEBP" else 0  # Pillow: only "broken"
    if declared > size:
        raise MediaError("truncated", f"the picture is truncated: it has {size:,} of {declared:,} bytes")
    stream.seek(0)
    image = _FORMATS[name][1](stream)
    width, height = image.size
    if width * height > limits.max_source_pixels:
        raise MediaError("too_large", f"{width:,} x {height:,} pixels are more than {limits.max_source_pixels:,}")
    return image


def _is_raw(stream: BinaryIO) -> bool:
    """Whether a TIFF is a camera's raw data: a DNG, or one with a camera's name and its picture in an IFD below."""
    tags = _tiff_tags(stream)
    return 0xC612 in tags or {ExifTags.Base.Make, ExifTags.Base.SubIFDs} <= set(tags)


def _tiff_tags(stream: BinaryIO) -> Image.Exif:
    tags = Image.Exif()
    stream.seek(0)
    with contextlib.suppress(Exception):  # Pillow's parser raises several types
        tags.load_from_fp(stream)
    return tags


def exif(stream: BinaryIO, limits: Limits = Limits()) -> tuple[dict[str, Any], dict[str, Any]]:
    """The EXIF data of a picture, which is not decoded, and its GPS data, by name. What is broken is left out.

    Raises:
        MediaError: It is not a picture.
    """
    with typed_failures("the file"):
        is_raw = _format(stream) == "RAW"
        tags = _tiff_tags(stream) if is_raw else _open_image(stream, limits).getexif()
    of_picture, gps = dict[int, Any](), dict[int, Any]()
    with contextlib.suppress(Exception):  # Pillow's parser raises several types, and the other parts are whole
        of_picture.update(tags)
    for part, ifd in ((of_picture, ExifTags.IFD.Exif), (gps, ExifTags.IFD.GPSInfo)):
        with contextlib.suppress(Exception):
            part.update(tags.get_ifd(ifd))
    names = (ExifTags.TAGS, of_picture), (ExifTags.GPSTAGS, gps)
    by_name = [{known[tag]: value for tag, value in of.items() if tag in known} for known, of in names]
    return by_name[0], by_name[1]


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright; nothing if its EXIF data are broken."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser raises several types, and the picture itself is whole
        return None


def _num_frames(image: ImageFile.ImageFile) -> int:
    return getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1


def _visible_frame(image: ImageFile.ImageFile, max_pixels: int, limits: Limits) -> Image.Image:
    """The picture. Of an animation that begins blank, a frame with at least half the contrast of any other."""
    picture = _picture(image, max_pixels)
    count = _num_frames(image)
    if count == 1 or (contrast := _contrast(picture)) >= _BLANK:
        return picture
    count = min(count, _MAX_BLANK, limits.max_source_pixels // (image.width * image.height))
    with contextlib.suppress(Exception):  # a broken frame ends the search: the first one is whole
        for number in range(1, count):
            image.seek(number)
            frame = _picture(image, max_pixels)
            if _contrast(frame) > 2 * contrast:
                picture, contrast = frame, _contrast(frame)
    return picture


def _contrast(picture: Image.Image) -> float:
    return max(ImageStat.Stat(picture).stddev)


def _picture(image: ImageFile.ImageFile, max_pixels: int) -> Image.Image:
    """Decode, flatten and shrink."""
    size = fitting(image.size, max_pixels)
    image.draft("RGB", size)  # a JPEG of many times the size is decoded at 1/2, 1/4 or 1/8
    image.load()
    if image.format != "JPEG":  # a TIFF is turned as it is loaded
        size = fitting(image.size, max_pixels)
    flat = _as_srgb(_eight_bits(image), image.info.get("icc_profile"))
    mode = "RGBA" if flat.has_transparency_data else "RGB"
    if flat.mode != mode:  # converting to the same mode would copy
        flat = flat.convert(mode)
    if flat.size != size:
        flat = flat.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    if flat.mode == "RGBA":
        flat = _on_ground(flat)
    turn = _turn(image)
    upright = flat if turn is None else flat.transpose(turn)
    if upright is image:  # the next frame of an animation is decoded into it
        upright = image.copy()
    upright.info = {}  # no comment or profile may get into a JPEG
    return upright


def _as_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB, if it has the colour profile of another space."""
    transform, mode = _to_srgb(profile) or (None, "")
    fits = {"RGB": image.mode != "CMYK", "L": image.mode in ("L", "LA"), "CMYK": image.mode == "CMYK"}
    if transform is None or not fits[mode]:
        return image
    colours = transform.apply(image if image.mode == mode else image.convert(mode))
    if image.has_transparency_data:
        colours.putalpha(image.convert("RGBA").getchannel("A"))
    return colours


@functools.lru_cache(32)
def _to_srgb(profile: bytes | None) -> tuple[ImageCms.ImageCmsTransform, str] | None:
    """What converts the colours of a profile, and the mode that it converts; None for sRGB and broken profiles."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        mode = _PROFILES[source.profile.xcolor_space]
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, KeyError, ImageCms.PyCMSError):
        return None
    if mode != "CMYK":
        colours = np.indices((18, 18, 18), np.uint8).reshape(3, -1, 18).T.copy() * 15
        samples = Image.fromarray(colours).convert(mode)
        changes = np.asarray(transform.apply(samples)).astype(int) - np.asarray(samples.convert("RGB"))
        if np.abs(changes).max() <= _SAME_COLOUR:
            return None
    return transform, mode


def _on_ground(picture: Image.Image) -> Image.Image:
    """The RGBA picture on white, or where white would hide much of a drawing, on the ground that hides least of it."""
    alpha = picture.getchannel("A")
    counts = np.array(picture.convert("L").histogram(alpha.point(lambda value: 255 * (value > 16))))
    hidden = {ground: counts[max(0, ground - 24) : ground + 25].sum() / max(1, counts.sum()) for ground in _GROUNDS}
    ground = 255 if hidden[255] <= _HIDDEN else min(_GROUNDS, key=lambda ground: hidden[ground])
    flat = Image.new("RGB", picture.size, (ground, ground, ground))
    flat.paste(picture, mask=alpha)
    return flat


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey as 8-bit grey, scaled where Pillow would clip.

    Cameras, scanners and microscopes store 10 and 12 bits in 16: the scale is the least of these that holds all values.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    grey = np.nan_to_num(np.asarray(image).astype(np.float32))
    low, high = float(grey.min()), float(grey.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 65535:
        low, high = 0.0, float(next(top for top in (255, 1023, 4095, 65535) if high <= top))
    grey = (grey - low) * (255 / max(high - low, 1e-30))
    return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
