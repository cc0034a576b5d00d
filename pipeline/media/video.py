"""Videos through PyAV: their size, and frames at given times. Each call opens a container of its own."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from pipeline.errors import EnvironmentTrouble, MediaError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Without this list FFmpeg would also open playlists, which name other files and URLs.
_DEMUXERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,ogg,asf,wav,flac,mp3"
_MOST_STRETCHED = 10  # a header with pixels further from a square is broken
_NO_SEEK = ("mpeg", "mpegvideo")  # times after a seek are FFmpeg's guesses, wrong by some frames

# Colours, as FFmpeg numbers them
_PQ, _HLG, _REC2020, _P3 = 16, 18, 9, 12
_TO_REC709 = {  # linear RGB, by the primaries they are given in
    _REC2020: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    _P3: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0196, -0.0786, 1.0979)),
}
_SDR_WHITE = 203  # cd/m² of white paper in an HDR video (ITU-R BT.2408)
_KNEE = 0.6  # of SDR white: what is brighter is compressed


class _SeekMissed(Exception):
    """The container cannot seek to a keyframe at or before the time."""


def measure(stream: BinaryIO, max_source_pixels: int) -> tuple[int, int, int, float | None]:
    """Measure a video and decode one frame of it.

    Returns:
        (width, height, number of frames, seconds), in upright pixels. The number is the container's, else duration ×
        rate.

    Raises:
        MediaError: `too_large`, `no_frames` or `truncated`.
    """
    with _opened(stream, max_source_pixels) as (container, video):
        _, frame = _first(container, video)
        width, height = _square_size(video, frame)
        if _turn(frame) in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270):
            width, height = height, width
        duration_s, count = _duration_s(container, video), video.frames
        if duration_s is None:
            times = _packet_times(container, video)
            duration_s, count = _span(times) * _unit(video), len(times)
        rate = float(video.average_rate or video.guessed_rate or 0)
        return width, height, count or max(1, round(duration_s * rate)), duration_s


def header(stream: BinaryIO) -> tuple[dict[str, str], float | None]:
    """What a video's container says of it, by name, and its duration in seconds. No frame is decoded."""
    with _opened(stream, sys.maxsize) as (container, video):
        return {**video.metadata, **container.metadata}, _duration_s(container, video)


def sample(
    stream: BinaryIO, count: int, fit: Callable[[tuple[int, int]], tuple[int, int]], max_source_pixels: int
) -> list[tuple[float, Image.Image]]:
    """Take the frames at the middles of `count` equal slices of the time, or every frame if there are no more.

    Args:
        stream: Seekable bytes.
        count: Most frames.
        fit: Size of the picture for a frame's size.
        max_source_pixels: Largest frame.

    Returns:
        (seconds from the first frame, upright RGB picture) of each.
    """

    def picture(frame: "VideoFrame") -> Image.Image:
        image = _as_srgb(video, frame, fit(_square_size(video, frame)))
        turn = _turn(frame)
        return image if turn is None else image.transpose(turn)

    with _opened(stream, max_source_pixels) as (container, video):
        start, _ = _first(container, video)
        unit = _unit(video)
        span = (_duration_s(container, video) or 0) / unit
        pictures = _at(container, video, _middles(start, span, count), picture) if span else {}
        if len(pictures) < count:  # few frames, or a header with a wrong duration
            times = _packet_times(container, video)
            targets = times if len(times) <= count else _middles(start, _span(times), count)
            pictures = max(pictures, _at(container, video, targets, picture), key=len)
    if not pictures:
        raise MediaError("no_frames", "no frame of the video can be decoded")
    return [((time - start) * unit, pictures[time]) for time in sorted(pictures)]


@contextlib.contextmanager
def _opened(stream: BinaryIO, max_source_pixels: int) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    try:
        import av
    except ImportError as error:
        raise EnvironmentTrouble("videos need PyAV: pip install 'leccr[video]'") from error
    stream.seek(0)
    options = {"format_whitelist": _DEMUXERS}
    try:
        container = av.open(stream, "r", container_options=options, metadata_errors="replace")
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise MediaError("truncated", "the video is cut or damaged: its header or index is missing") from error
    with container:
        cover = av.stream.Disposition.attached_pic
        video = next((video for video in container.streams.video if not video.disposition & cover), None)
        if video is None:
            raise MediaError("no_frames", "the file has no video stream")
        if video.codec_context is None:
            message = "FFmpeg has no decoder for the codec of the video: convert it, for example to H.264"
            raise MediaError("unreadable", message)
        if (video.width or 0) * (video.height or 0) > max_source_pixels:
            message = f"{video.width:,} x {video.height:,} pixels a frame are more than {max_source_pixels:,}"
            raise MediaError("too_large", message)
        video.codec_context.thread_count = 1  # the caller runs a pool of threads
        yield container, video


def _square_size(video: "VideoStream", frame: "VideoFrame") -> tuple[int, int]:
    """The frame's size once its pixels are square, before it is turned."""
    ratio = float(video.sample_aspect_ratio or 1)
    if not 1 / _MOST_STRETCHED <= ratio <= _MOST_STRETCHED:
        ratio = 1
    return max(1, round(frame.width * ratio)), frame.height


def _as_srgb(video: "VideoStream", frame: "VideoFrame", size: tuple[int, int]) -> Image.Image:
    """The frame in the size given. HDR and wide colours are converted as players do."""
    width, height = size
    colours = video.codec_context
    transfer, primaries = colours.color_trc, colours.color_primaries
    is_hdr = transfer in (_PQ, _HLG)
    if not is_hdr and primaries not in _TO_REC709:
        return frame.to_image(width=width, height=height, interpolation="AREA")  # type: ignore[no-untyped-call]
    rgb = frame.reformat(width, height, "rgb48le", interpolation="AREA").to_ndarray().astype(np.float32) / 65535
    light = _linear(rgb, transfer) @ np.array(_TO_REC709.get(primaries, _TO_REC709[_REC2020]), np.float32).T
    light = np.maximum(light, 0)
    if is_hdr:  # the brightest channel decides, so that hues stay
        peak = np.maximum(light.max(-1, keepdims=True), 1e-6)
        over = np.maximum(peak - _KNEE, 0) / (1 - _KNEE)
        light *= (np.minimum(peak, _KNEE) + (1 - _KNEE) * over / (1 + over)) / peak
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return Image.fromarray(np.rint(srgb.clip(0, 1) * 255).astype(np.uint8))


def _linear(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """Light of which 1 is SDR white, from a signal of 0 to 1: PQ and HLG as in ITU-R BT.2100, or else sRGB."""
    if transfer == _PQ:
        root = rgb ** (1 / 78.84375)
        return (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125) * (
            10_000 / _SDR_WHITE
        )
    if transfer == _HLG:
        scene = np.where(rgb <= 0.5, rgb**2 / 3, (np.exp((rgb - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        luminance = scene @ np.array((0.2627, 0.6780, 0.0593), np.float32)
        return scene * luminance[..., None] ** 0.2 * (1000 / _SDR_WHITE)  # a display of 1,000 cd/m²
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _turn(frame: "VideoFrame") -> Image.Transpose | None:
    """The rotation that the container's matrix asks for."""
    turns = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270
    return (None, *turns)[round(frame.rotation / 90) % 4]


def _unit(video: "VideoStream") -> float:
    """Seconds per tick of the stream's clock."""
    return float(video.time_base or 1)


def _duration_s(container: "InputContainer", video: "VideoStream") -> float | None:
    if video.duration:
        return video.duration * _unit(video)
    if container.duration:  # Matroska's counts from 0, not from the first frame
        return max(0.0, container.duration / 1e6 - (video.start_time or 0) * _unit(video)) or None
    return None


def _middles(start: int, span: float, count: int) -> list[int]:
    return [start + int(span * (i + 0.5) / count + 1e-6) for i in range(count)]  # 1e-6 against rounding


def _span(times: list[int]) -> float:
    """Duration of frames at sorted `times`; the last one counts as long as the mean of the others."""
    return (times[-1] - times[0]) * len(times) / (len(times) - 1) if len(times) > 1 else 1


def _rewind(container: "InputContainer", video: "VideoStream") -> None:
    container.seek(min(0, video.start_time or 0), stream=video, backward=True)


def _first(container: "InputContainer", video: "VideoStream") -> tuple[int, "VideoFrame"]:
    first = next(_decoded(container, video), None)
    if first is None:
        raise MediaError("no_frames", "no frame of the video can be decoded")
    return first


def _packets(container: "InputContainer", video: "VideoStream") -> Iterator[Any]:
    import av

    try:
        yield from container.demux(video)  # ends with an empty packet, which flushes the decoder
    except av.FFmpegError:  # the tail is broken
        yield None


def _packet_times(container: "InputContainer", video: "VideoStream") -> list[int]:
    """Presentation times of all frames, sorted, without decoding; reads the whole file."""
    _rewind(container, video)
    packets = (packet for packet in _packets(container, video) if packet is not None and packet.size)
    return sorted({packet.pts if packet.pts is not None else packet.dts or 0 for packet in packets})


def _decoded(container: "InputContainer", video: "VideoStream") -> Iterator[tuple[int, "VideoFrame"]]:
    """(time, frame) from the next keyframe on, in order; broken frames are skipped."""
    import av

    for packet in itertools.dropwhile(lambda packet: packet and not packet.is_keyframe, _packets(container, video)):
        try:
            decoded = video.codec_context.decode(packet)
        except av.FFmpegError:
            continue
        for frame in decoded:
            time = frame.pts if frame.pts is not None else frame.dts
            if time is not None and not frame.is_corrupt:
                yield time, frame


def _keyframe(container: "InputContainer", video: "VideoStream", target: int) -> int:
    """Time of the last keyframe at or before `target`, as far as the container can find it."""
    container.seek(target, stream=video, backward=True)
    for packet in _packets(container, video):
        time = packet and (packet.pts if packet.pts is not None else packet.dts)
        if time is None or time > target:
            break
        if packet.is_keyframe:
            return int(time)
    raise _SeekMissed


def _at(
    container: "InputContainer",
    video: "VideoStream",
    targets: list[int],
    picture: Callable[["VideoFrame"], Image.Image],
) -> dict[int, Image.Image]:
    """The pictures shown at the targets (sorted times), by their own times.

    Each is decoded from the keyframe before it, and the stretch after each keyframe only once. Containers that cannot
    seek are decoded from the start.
    """
    import av

    try:
        if container.format.name in _NO_SEEK:
            raise _SeekMissed
        stretches: dict[int, list[int]] = {}
        for target in targets:
            stretches.setdefault(_keyframe(container, video, target), []).append(target)
        pictures: dict[int, Image.Image] = {}
        for stretch in stretches.values():
            container.seek(stretch[0], stream=video, backward=True)
            pictures |= _pick(_decoded(container, video), stretch, picture, seeked=True)
        return pictures
    except (_SeekMissed, av.FFmpegError):
        _rewind(container, video)
        return _pick(_decoded(container, video), targets, picture, seeked=False)


def _pick(
    decoded: Iterator[tuple[int, "VideoFrame"]],
    targets: list[int],
    picture: Callable[["VideoFrame"], Image.Image],
    seeked: bool,
) -> dict[int, Image.Image]:
    """Of the decoded frames, the last one at or before each target."""
    pictures: dict[int, Image.Image] = {}
    left, last = list(targets), None
    for time, frame in itertools.chain(decoded, [(sys.maxsize, None)]):  # the end, broken or not, may come first
        if seeked and last is None and frame and time > left[0]:
            raise _SeekMissed
        while left and time > left[0]:
            left.pop(0)
            if last and last[0] not in pictures:
                pictures[last[0]] = picture(last[1])
        if not left or frame is None:
            break
        last = time, frame
    return pictures
