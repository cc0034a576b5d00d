"""Videos through PyAV: their size, and frames at given times. Each call opens a container of its own."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from pipeline.errors import EnvironmentTrouble, MediaError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Without this list FFmpeg would also open playlists, which name other files and URLs.
_DEMUXERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,ogg,asf,wav,flac,mp3"
_NO_SEEK = ("mpeg", "mpegvideo")  # times after a seek are FFmpeg's guesses, wrong by some frames


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
        width, height = frame.width, frame.height
        if _turn(frame) in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270):
            width, height = height, width
        duration_s, count = _duration_s(container, video), video.frames
        if duration_s is None:
            times = _packet_times(container, video)
            duration_s, count = _span(times) * _unit(video), len(times)
        rate = float(video.average_rate or video.guessed_rate or 0)
        return width, height, count or max(1, round(duration_s * rate)), duration_s


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
        width, height = fit((frame.width, frame.height))
        image: Image.Image = frame.to_image(width=width, height=height, interpolation="AREA")  # type: ignore[no-untyped-call]
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
        if (video.width or 0) * (video.height or 0) > max_source_pixels:
            message = f"{video.width:,} x {video.height:,} pixels a frame are more than {max_source_pixels:,}"
            raise MediaError("too_large", message)
        video.codec_context.thread_count = 1  # the caller runs a pool of threads
        yield container, video


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
