"""Bytes of a video + wanted windows -> the uint8 RGB frames of each clip. The only module that imports av.

Two ways to the same frames. Planned: packet timestamps tell which frames the recipe would pick, only the packets that
they need are decoded, only they become RGB, and what comes out is checked against the plan. Thorough: when timestamps
are missing, doubled or wrong, or the check fails, every frame is decoded, once to see its timestamp and once to keep
those picked. Neither holds more than one RGB frame at a time.

Known, deliberate differences to the recipe: the decoder's output order is kept where timestamps contradict it (AVI with
B-frames); streams that do not start at 0 are read from their start where there is no index to seek in; a decode error
ends the video there instead of emptying it; undecodable metadata is replaced; an attached picture is not the video.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from handlers.clips import Sampling, VideoReport, Window
from handlers.containers import Container, identify
from handlers.errors import (
    DecodeTimeout,
    EmptyClip,
    FrameTooLarge,
    InvalidOption,
    RequestError,
    UndecodableVideo,
    UnsupportedVideo,
    VideoTooLong,
)
from handlers.frame_plan import PacketTable, PlannedClip, plan_clips, window_bounds
from handlers.limits import Limits
from handlers.nal_units import NonReferenceTest, non_reference_test
from handlers.specs import ModelSpec
from handlers.transforms import UPRIGHT, Orientation
from handlers.views import count_windows, needs_duration, plan_windows

DECODERS = (
    *("h264", "hevc", "vp8", "vp9", "libdav1d", "av1"),
    *("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4", "h263", "flv", "mjpeg"),
    *("wmv1", "wmv2", "wmv3", "vc1", "gif", "ffv1", "rawvideo"),
)
"""FFmpeg's names of every allowed decoder."""

_INTRA_ONLY = frozenset({"mjpeg", "ffv1", "rawvideo", "gif"})
_SEEK_MARGIN = 1024  # timestamps; EncodedVideo seeks this far before the window
_MOST_KEPT_BYTES = 16 * 2**20  # of packets held between planning and decoding
_FALLBACK_RATE = 25  # frames per second of a raw stream that does not tell; FFmpeg assumes the same


@dataclass(frozen=True, slots=True)
class Picture:
    """One RGB frame: `pixels` are its bytes, rows `row_bytes` apart, shown with `orientation`."""

    pixels: NDArray[np.uint8]
    height: int
    width: int
    row_bytes: int
    orientation: Orientation

    def array(self) -> NDArray[np.uint8]:
        """The frame as stored, (H, W, 3) uint8."""
        rows = self.pixels.reshape(self.height, self.row_bytes)[:, : self.width * 3]
        return rows.reshape(self.height, self.width, 3)


@dataclass(frozen=True, slots=True)
class PickedFrame:
    """A frame that clips take: `places` are (index into the plan's clips, position in the clip)."""

    picture: Picture
    pts: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ClipsPlanned:
    """The clips that will follow, before any of their frames. A second one replaces what is still unfinished."""

    clips: tuple[PlannedClip, ...]


@dataclass(frozen=True, slots=True)
class ClipDone:
    """Every frame of that clip has come, and the check of the plan held."""

    position: int


Event = ClipsPlanned | PickedFrame | ClipDone


class _PlanMismatch(Exception):
    """What came out of the decoder is not what the packets promised."""


class VideoDecoder:
    """One video, opened safely. `events` decodes; `report` tells what was learnt.

    Raises RequestErrors only.
    """

    def __init__(
        self, payload: bytes | memoryview, spec: ModelSpec, limits: Limits, *, autorotate: bool = True
    ) -> None:
        self._payload, self._spec, self._limits, self._autorotate = payload, spec, limits, autorotate
        self._deadline = time.monotonic() + limits.decode_timeout_sec
        self._kind: Container = identify(payload)
        self._reformatter = VideoReformatter()
        self._frames_decoded = 0
        self._size: tuple[int, int] | None = None
        self._warnings: list[str] = []
        self._is_fresh = False
        self._open()

    def close(self) -> None:
        self._container.close()

    def extend_deadline(self, seconds: float) -> None:
        """Time that was spent waiting for others does not count as decoding."""
        self._deadline += seconds

    # Opening ----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        limits = self._limits
        options = {
            "protocol_whitelist": "none",
            "format_whitelist": self._kind.demuxer,
            "codec_whitelist": ",".join(DECODERS),
            "max_streams": str(limits.max_streams),
            "max_pixels": str(limits.max_frame_pixels),
            "probesize": str(limits.probe_bytes),
        }
        with _av_errors():
            self._container: Any = av.open(
                _ReadOnlyFile(self._payload), format=self._kind.demuxer, options=options, metadata_errors="replace"
            )
        self._is_fresh = True
        try:
            self._stream: Any = self._pick_stream()
        except BaseException:
            self._container.close()
            raise

    def _pick_stream(self) -> Any:
        streams = self._container.streams.video
        if not streams:
            raise UnsupportedVideo("this file has no video stream")
        stream = next((s for s in streams if not s.disposition & Disposition.attached_pic), None)
        if stream is None:
            raise UnsupportedVideo("the only video stream of this file is an attached picture")
        context = stream.codec_context
        if context is None or context.name not in DECODERS:
            name = "unknown" if context is None else context.name
            raise UnsupportedVideo(f"video codec {name} is not allowed; allowed: {', '.join(DECODERS)}")
        self._check_size(context.width, context.height)
        with _av_errors():
            context.options = {**context.options, "max_pixels": str(self._limits.max_frame_pixels)}
            # Cores serve requests, not one decode; and concealed pixels of damaged frames depend on the thread count.
            context.thread_type, context.thread_count = "NONE", 1
        for other in self._container.streams:
            if other is not stream:
                other.discard = Discard.all
        return stream

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_frame_pixels:
            raise FrameTooLarge(
                f"frames of {width}x{height} are too large; at most {self._limits.max_frame_pixels} pixels are allowed"
            )

    def _check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise DecodeTimeout(f"decoding took longer than the {self._limits.decode_timeout_sec:g} s that are allowed")

    # Time -------------------------------------------------------------------------------------------------------------

    @property
    def _time_base(self) -> Fraction:
        return Fraction(self._stream.time_base)

    @property
    def _origin(self) -> int:
        return 0 if self._kind.elementary else int(self._stream.start_time or 0)

    def _header_duration(self) -> Fraction | None:
        """Seconds that the stream's header states, as EncodedVideo computes them.

        EncodedVideo subtracts the start time from a duration that does not hold it; that is kept where it can be, but
        not where it makes the answer negative, nor for MPEG-TS, which the recipe cannot read from its start anyway.
        """
        ticks: int | None = self._stream.duration
        if ticks is None or ticks <= 0:
            return None
        from_start = (ticks - self._origin) * self._time_base
        return from_start if from_start > 0 and self._kind.demuxer != "mpegts" else ticks * self._time_base

    def _sampling_duration(self) -> Fraction:
        """Seconds over which several windows are spread: the header's, else the last frame's timestamp."""
        header = self._header_duration()
        if header is not None:
            return header
        shown = self._scan(None)[0].shown()
        if not shown:
            raise EmptyClip("this video holds no frame")
        return (shown[-1] - self._origin) * self._time_base

    def _check_length(self) -> Fraction | None:
        """Refuse a video that is too long, as far as headers tell; returns seconds for the report."""
        duration = self._header_duration()
        if duration is None and self._container.duration is not None and self._container.duration > 0:
            duration = Fraction(self._container.duration, av.time_base)
        if duration is not None and duration > self._limits.max_video_sec:
            raise VideoTooLong(
                f"the video lasts {float(duration):.1f} s; at most {self._limits.max_video_sec:g} s are allowed"
            )
        return duration

    # Decoding ---------------------------------------------------------------------------------------------------------

    def events(self, sampling: Sampling) -> Iterator[Event]:
        """The wanted frames as they come out of the decoder, between the plan and a mark at each finished clip."""
        self._reported_duration = self._check_length()
        duration = self._sampling_duration() if needs_duration(sampling) else None
        if duration is not None and duration > self._limits.max_video_sec:
            raise VideoTooLong(
                f"the video lasts {float(duration):.1f} s; at most {self._limits.max_video_sec:g} s are allowed"
            )
        self._reported_duration = self._reported_duration or duration
        wanted = count_windows(sampling, self._spec, duration)
        if wanted > self._limits.max_windows:
            raise InvalidOption(
                f"this request asks for {wanted} windows; at most {self._limits.max_windows} are allowed"
            )
        windows = list(enumerate(plan_windows(sampling, self._spec, duration)))
        done: set[int] = set()
        try:
            yield from self._planned(windows, done)
        except _PlanMismatch:
            rest = [(index, window) for index, window in windows if index not in done]
            yield from self._thorough(rest, any_before=bool(done))

    def _planned(self, windows: list[tuple[int, Window]], done: set[int]) -> Iterator[Event]:
        end = max(window_bounds(window, self._time_base, self._origin)[1] for _, window in windows)
        table, kept = self._scan(end, seek_to=self._seek_target(windows))
        if not table.is_plannable or self._kind.elementary or self._may_reorder_wrongly():
            raise _PlanMismatch
        if self._kind.demuxer == "gif" and len(table.pts) < 2:
            raise UnsupportedVideo("a still image is not a video; an animated GIF is")
        clips = self._plan(windows, table.shown())
        if not clips:
            raise _PlanMismatch  # let the decoder itself say that there is nothing
        yield ClipsPlanned(tuple(clips))
        places = _places(clips)
        ranges = table.intervals(set(places), trust_keys=self._trusts_keys(table))
        order = sorted(range(len(clips)), key=lambda position: clips[position].end)
        packets = iter(kept) if kept is not None else self._packets(self._seek_target(windows))
        checker = _PlanCheck(table, set(places), clips)
        position = -1
        for wanted_range in ranges:
            for frame in self._decode_range(packets, position, wanted_range, table, checker):
                pts = checker.came_out(frame)
                while order and clips[order[0]].end <= pts:
                    yield checker.done(order.pop(0), done)
                if pts in places:
                    yield PickedFrame(self._picture(frame), pts, tuple(places[pts]))
            position = wanted_range.stop - 1
            reached = max(table.pts[wanted_range.start : wanted_range.stop])
            while order and clips[order[0]].picks[-1] <= reached:
                yield checker.done(order.pop(0), done)
        if order:
            raise _PlanMismatch

    def _decode_range(
        self, packets: Iterator[Any], position: int, wanted: range, table: PacketTable, checker: _PlanCheck
    ) -> Iterator[VideoFrame]:
        """Frames of the packets in that index range, drained; `position` is the last packet already read."""
        context = self._stream.codec_context
        is_non_reference = self._skip_test(table)
        for index in range(position + 1, wanted.stop):
            packet = next(packets, None)
            if packet is None or packet.pts != table.pts[index]:
                raise _PlanMismatch
            if index < wanted.start:
                continue
            skip = packet.pts not in checker.wanted and is_non_reference is not None and is_non_reference(packet)
            # After a jump, pictures shown before the key frame lack what they refer to: they are not to be expected.
            is_leading = wanted.start > 0 and packet.pts < table.pts[wanted.start]
            if not skip and not is_leading and not table.is_discarded[index]:
                checker.went_in(packet.pts)
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            yield from self._decode(packet)
        context.skip_frame = "DEFAULT"
        yield from self._decode(None)
        context.flush_buffers()

    def _decode(self, packet: Any) -> Iterator[VideoFrame]:
        self._check_deadline()
        try:
            with _av_errors():
                frames = self._stream.codec_context.decode(packet)
        except UndecodableVideo as error:
            raise _PlanMismatch from error
        self._frames_decoded += len(frames)
        yield from frames

    def _thorough(self, windows: list[tuple[int, Window]], *, any_before: bool) -> Iterator[Event]:
        """Decode everything twice: first for the timestamps in output order, then for the frames that are picked."""
        bounds = [window_bounds(window, self._time_base, self._origin)[1] for _, window in windows]
        stamps = self._output_stamps(max(bounds), windows)
        clips = self._plan(windows, sorted({stamp for stamp in stamps if stamp is not None}))
        if not clips:
            if any_before:
                return
            if not stamps:
                raise UndecodableVideo("no frame could be decoded from this video")
            start, end = float(windows[0][1].start_sec), float(windows[-1][1].end_sec)
            raise EmptyClip(f"the video has no frame between {start:.3f} s and {end:.3f} s")
        yield ClipsPlanned(tuple(clips))
        places = _places(clips)
        last_output = {stamp: number for number, stamp in enumerate(stamps)}  # equal stamps: the last one wins
        pending = sorted(range(len(clips)), key=lambda position: last_output[clips[position].picks[-1]])
        for number, frame in enumerate(self._decode_all(self._seek_target(windows))):
            stamp = stamps[number] if number < len(stamps) else None
            if stamp in places and last_output[stamp] == number:
                yield PickedFrame(self._picture(frame), stamp, tuple(places[stamp]))
            while pending and last_output[clips[pending[0]].picks[-1]] <= number:
                yield ClipDone(pending.pop(0))
            if not pending:
                return
        raise UndecodableVideo("the video decodes differently each time; it is damaged")

    def _output_stamps(self, end: int, windows: list[tuple[int, Window]]) -> list[int | None]:
        """Each output frame's timestamp, in output order, until one reaches `end`; made up from the rate if missing."""
        stamps: list[int | None] = []
        synthetic = self._kind.elementary
        step = Fraction(1) / (self._frame_rate() * self._time_base)
        for number, frame in enumerate(self._decode_all(self._seek_target(windows))):
            stamp = self._origin + math.floor(number * step) if synthetic else frame.pts
            if number >= self._limits.max_packets:
                raise VideoTooLong(
                    f"more than {self._limits.max_packets} frames lie before the part that was asked for"
                )
            if stamp is not None and stamp >= end and not self._may_reorder_wrongly():
                break
            stamps.append(stamp)
        known = [stamp for stamp in stamps if stamp is not None]
        if self._may_reorder_wrongly() and known != sorted(known):
            dealt: list[int | None] = [*sorted(known)]
            return dealt  # the decoder's order holds, the packets' stamps are merely dealt out in it
        return stamps

    def _decode_all(self, seek_to: int | None) -> Iterator[VideoFrame]:
        """Every frame from the seek point on; a decode error ends the video there and leaves a warning."""
        packets = self._packets(seek_to)
        self._stream.codec_context.flush_buffers()
        self._stream.codec_context.skip_frame = "DEFAULT"
        try:
            for packet in packets:
                yield from self._decode(packet)
            yield from self._decode(None)
        except _PlanMismatch:
            self._warn("the video is damaged; what was decoded before the damage was used")

    # Packets ----------------------------------------------------------------------------------------------------------

    def _seek_target(self, windows: list[tuple[int, Window]]) -> int | None:
        """Where EncodedVideo would seek to; None: from the start, for lack of an index or because it is the start."""
        first = min(window_bounds(window, self._time_base, self._origin)[0] for _, window in windows)
        target = max(first - _SEEK_MARGIN, 0)
        return target if self._kind.seekable and target > self._origin else None

    def _packets(self, seek_to: int | None) -> Iterator[Any]:
        """The stream's packets from the key frame before `seek_to`, or from the start; each call begins anew."""
        with _av_errors():
            if seek_to is None and not self._is_fresh:
                self._container.close()
                self._open()
            elif seek_to is not None:
                self._container.seek(seek_to, any_frame=False, backward=True, stream=self._stream)
            self._is_fresh = False
            source = self._container.demux(self._stream)
        return self._read(source)

    def _read(self, source: Iterator[Any]) -> Iterator[Any]:
        for _ in range(self._limits.max_packets):
            with _av_errors():
                packet = next(source, None)
            if packet is None or packet.size == 0:
                return
            yield packet
        raise VideoTooLong(f"the video has more than {self._limits.max_packets} packets")

    def _scan(self, end: int | None, *, seek_to: int | None = None) -> tuple[PacketTable, list[Any] | None]:
        """Timestamps of the packets up to `end`, and the packets themselves while they are few enough to keep.

        Decoding times only grow, and no frame is shown before it is decoded, so the first past `end` is the last.
        """
        table = PacketTable()
        kept: list[Any] | None = []
        kept_bytes = 0
        for number, packet in enumerate(self._packets(seek_to)):
            if number % 256 == 0:
                self._check_deadline()
            if end is not None and packet.dts is not None and packet.dts >= end:
                break
            table.add(packet.pts, is_key=packet.is_keyframe, is_discarded=packet.is_discard)
            if kept is not None:
                kept.append(packet)
                kept_bytes += packet.size
                if kept_bytes > _MOST_KEPT_BYTES:
                    kept = None  # they are read a second time instead
        return table, kept

    def _plan(self, windows: list[tuple[int, Window]], shown: list[int]) -> list[PlannedClip]:
        return plan_clips(
            windows, shown, time_base=self._time_base, origin=self._origin, num_frames=self._spec.num_frames
        )

    def _may_reorder_wrongly(self) -> bool:
        """AVI stores no presentation times: with B-frames its packets' stamps are those of the decoding order."""
        return bool(self._kind.demuxer == "avi" and self._stream.codec_context.has_b_frames)

    def _trusts_keys(self, table: PacketTable) -> bool:
        """Whether key frame marks tell where decoding can begin; a codec that predicts is never all key frames."""
        if self._stream.codec_context.name in _INTRA_ONLY:
            return self._kind.seekable
        return self._kind.seekable and not all(table.is_key)

    def _skip_test(self, table: PacketTable) -> NonReferenceTest | None:
        """A test for packets whose frame no other refers to, or None where that cannot be known for sure."""
        context = self._stream.codec_context
        if not self._kind.seekable or context.name != "h264" or len(table.pts) < 2:
            return None
        return non_reference_test(context.extradata)

    def _frame_rate(self) -> Fraction:
        rate = self._stream.average_rate or self._stream.guessed_rate
        return Fraction(rate) if rate else Fraction(_FALLBACK_RATE)

    # Frames -----------------------------------------------------------------------------------------------------------

    def _picture(self, frame: VideoFrame) -> Picture:
        self._check_size(frame.width, frame.height)
        with _av_errors():
            orientation = _orientation(frame) if self._autorotate else UPRIGHT
            rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
            plane: Any = rgb.planes[0]
            pixels = np.frombuffer(plane, dtype=np.uint8)[: plane.line_size * rgb.height]
        if self._size is None:
            shown = (frame.height, frame.width) if orientation.transpose else (frame.width, frame.height)
            self._size = shown
        return Picture(pixels, rgb.height, rgb.width, plane.line_size, orientation)

    def report(self, *, decode_ms: float, transform_ms: float) -> VideoReport:
        """What was learnt; call it when `events` has ended."""
        context = self._stream.codec_context
        width, height = self._size or (context.width, context.height)
        rate = self._stream.average_rate
        duration = self._reported_duration
        return VideoReport(
            duration_sec=None if duration is None else float(duration),
            width=width,
            height=height,
            fps=float(rate) if rate else None,
            codec="av1" if context.name == "libdav1d" else context.name,
            frames_decoded=self._frames_decoded,
            decode_ms=decode_ms,
            transform_ms=transform_ms,
            warnings=tuple(self._warnings),
        )

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warnings:
            self._warnings.append(sentence)


class _PlanCheck:
    """Holds what went into the decoder against what came out, so that a wrong plan never becomes an answer."""

    def __init__(self, table: PacketTable, wanted: set[int], clips: list[PlannedClip]) -> None:
        self.wanted = wanted
        self._known = set(table.pts)
        self._clips = clips
        self._expected: set[int] = set()
        self._last = -math.inf

    def went_in(self, pts: int) -> None:
        self._expected.add(pts)

    def came_out(self, frame: VideoFrame) -> int:
        pts = frame.pts
        if pts is None or pts not in self._known or pts <= self._last:
            raise _PlanMismatch
        self._last = pts
        self._expected.discard(pts)
        return int(pts)

    def done(self, position: int, done: set[int]) -> ClipDone:
        """The clip's mark; every packet in its window that was decoded must have become a frame by now."""
        clip = self._clips[position]
        if any(clip.first <= pts < clip.end for pts in self._expected):
            raise _PlanMismatch
        done.add(clip.index)
        return ClipDone(position)


def _places(clips: list[PlannedClip]) -> dict[int, list[tuple[int, int]]]:
    places: dict[int, list[tuple[int, int]]] = {}
    for position, clip in enumerate(clips):
        for step, pts in enumerate(clip.picks):
            places.setdefault(pts, []).append((position, step))
    return places


def _orientation(frame: VideoFrame) -> Orientation:
    """From the display matrix (ISO 14496-12, 6.2.2), when it is a turn by quarters or a mirror; else as stored."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), dtype="<i4")
    if b == 0 and c == 0 and a != 0 and d != 0:
        return Orientation(flip_x=bool(a < 0), flip_y=bool(d < 0))
    if a == 0 and d == 0 and b != 0 and c != 0:
        return Orientation(transpose=True, flip_x=bool(b < 0), flip_y=bool(c < 0))
    return UPRIGHT


class _ReadOnlyFile:
    """A nameless file over a buffer, without copying it; FFmpeg sees no name, so it cannot guess from one."""

    def __init__(self, payload: bytes | memoryview) -> None:
        self._view, self._at = memoryview(payload), 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size < 0 else min(self._at + size, len(self._view))
        data = bytes(self._view[self._at : end])
        self._at = max(self._at, end)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, len(self._view))[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


@contextmanager
def _av_errors() -> Iterator[None]:
    """The one border where av's errors, and what else it raises, become RequestErrors."""
    try:
        yield
    except RequestError:
        raise
    except MemoryError as error:
        raise UndecodableVideo("decoding this video needs more memory than is allowed") from error
    except (av.error.FFmpegError, OSError, ValueError, UnicodeError, EOFError) as error:
        raise UndecodableVideo(f"this video cannot be decoded: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None)
    return str(text) if text else "its data is invalid"


def cap_allocations(limits: Limits) -> bool:
    """Bound each allocation inside FFmpeg (`av_max_alloc`); False where its libavutil cannot be found.

    A lying index then fails while it is read instead of taking gigabytes: nothing else can stop it, because the table
    is allocated inside `av.open`. Pictures still fit: 4 bytes per pixel cover every allowed format and RGB.
    """
    ceiling = max(limits.max_alloc_mb * 2**20, 4 * limits.max_frame_pixels)
    for library in _libavutil():
        try:
            ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(ceiling))
        except (OSError, AttributeError):
            continue
        return True
    return False


def _libavutil() -> list[Path]:
    root = Path(av.__file__).parent
    patterns = ("../av.libs/libavutil*", ".dylibs/libavutil*")
    return [path for pattern in patterns for path in root.glob(pattern)]
