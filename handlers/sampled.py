"""Wanted windows -> the frames of each clip: `decoder: sampled`, the default.

Two ways to the same frames. Planned: packet timestamps tell which frames the recipe would pick, only the packets that
they need are decoded, only they become RGB, and what comes out is checked against the plan. Thorough: when timestamps
are missing, doubled or wrong, or the check fails, every frame is decoded, once to see its timestamp and once to keep
those picked. Neither holds more than one RGB frame at a time.

Known, deliberate differences to the recipe: the decoder's output order is kept where timestamps contradict it (AVI with
B-frames); streams that do not start at 0 are read from their start where there is no index to seek in; a decode error
ends the video there instead of emptying it; undecodable metadata is replaced; an attached picture is not the video;
`autorotate` shows a turned video upright.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

from handlers.clips import Sampling, VideoReport, Window
from handlers.decoding import Picture, VideoFile
from handlers.errors import EmptyClip, InvalidOption, UndecodableVideo, UnsupportedVideo, VideoTooLong
from handlers.frame_plan import PacketTable, PlannedClip, plan_clips, window_bounds
from handlers.limits import Limits
from handlers.nal_units import NonReferenceTest, non_reference_test
from handlers.plan_check import PlanCheck, PlanMismatch, places_of
from handlers.specs import ModelSpec
from handlers.views import count_windows, needs_duration, plan_windows

_INTRA_ONLY = frozenset({"mjpeg", "ffv1", "rawvideo", "gif"})
_SEEK_MARGIN = 1024  # timestamps; EncodedVideo seeks this far before the window
_MOST_KEPT_BYTES = 16 * 2**20  # of packets held between planning and decoding
_REORDER_FRAMES = 32  # more than any codec here may delay a frame: H.264 and HEVC allow 16

IndexedWindow = tuple[int, Window]


@dataclass(frozen=True, slots=True)
class PickedFrame:
    """A frame that clips take: `places` are (index into the plan's clips, position in the clip).

    `load` converts it to RGB when, and in the thread where, it is called.
    """

    load: Callable[[], Picture]
    pts: int
    places: tuple[tuple[int, int], ...]

    @property
    def picture(self) -> Picture:
        return self.load()


@dataclass(frozen=True, slots=True)
class ClipsPlanned:
    """The clips that will follow, before any of their frames. A second one replaces what is still unfinished."""

    clips: tuple[PlannedClip, ...]


@dataclass(frozen=True, slots=True)
class ClipDone:
    """Every frame of that clip has come, and the check of the plan held."""

    position: int


Event = ClipsPlanned | PickedFrame | ClipDone


class SampledVideo:
    """One video, decoded as far as the wanted windows need it."""

    def __init__(
        self,
        payload: bytes | memoryview,
        spec: ModelSpec,
        limits: Limits,
        *,
        autorotate: bool = True,
        threads: int = 1,
    ) -> None:
        self._spec, self._limits = spec, limits
        self.file = VideoFile(payload, limits, autorotate=autorotate, threads=threads)
        self._duration: Fraction | None = None
        self._counted: tuple[Sampling, int] | None = None
        self._spread_over: Fraction | None = None

    def close(self) -> None:
        self.file.close()

    def report(self, *, decode_ms: float, transform_ms: float) -> VideoReport:
        """What was learnt; call it when `events` has ended."""
        return self.file.report(duration_sec=self._duration, decode_ms=decode_ms, transform_ms=transform_ms)

    def events(self, sampling: Sampling) -> Iterator[Event]:
        """The wanted frames as they come out of the decoder, between the plan and a mark at each finished clip."""
        self.count_windows(sampling)
        windows = list(enumerate(plan_windows(sampling, self._spec, self._spread_over)))
        done: set[int] = set()
        while windows:
            try:
                yield from self._planned(windows, done)
                return
            except PlanMismatch:
                windows = [(index, window) for index, window in windows if index not in done]
                if not self.file.use_one_thread():
                    break
        if windows:
            yield from self._thorough(windows, any_before=bool(done))

    # Windows ----------------------------------------------------------------------------------------------------------

    def count_windows(self, sampling: Sampling) -> int:
        """How many windows this sampling has in this video. Raises InvalidOption or VideoTooLong over the limits."""
        if self._counted is not None and self._counted[0] == sampling:
            return self._counted[1]
        file = self.file
        self._duration = file.header_duration() or file.container_duration()
        self._check_length(self._duration)
        self._spread_over = self._sampling_duration() if needs_duration(sampling) else None
        self._check_length(self._spread_over)
        self._duration = self._duration or self._spread_over
        wanted = count_windows(sampling, self._spec, self._spread_over)
        if wanted > self._limits.max_windows:
            raise InvalidOption(
                f"this request asks for {wanted} windows; at most {self._limits.max_windows} are allowed"
            )
        self._counted = sampling, wanted
        return wanted

    def _check_length(self, duration: Fraction | None) -> None:
        if duration is not None and duration > self._limits.max_video_sec:
            raise VideoTooLong(
                f"the video lasts {float(duration):.1f} s; at most {self._limits.max_video_sec:g} s are allowed"
            )

    def _sampling_duration(self) -> Fraction:
        """Seconds over which several windows are spread: the stream's own, else up to the last frame's timestamp.

        A raw stream has no timestamps; there the frames count.
        """
        header = self.file.header_duration()
        if header is not None:
            return header
        table, _ = self._scan(None)
        if self.file.kind.elementary:
            return len(table.pts) / self.file.frame_rate
        shown = table.shown()
        if not shown:
            raise EmptyClip("this video holds no frame")
        return max(shown[-1] - self.file.origin, 0) * self.file.time_base

    def _bounds(self, windows: list[IndexedWindow]) -> tuple[int, int]:
        """First and end timestamp of all windows together."""
        bounds = [window_bounds(window, self.file.time_base, self.file.origin) for _, window in windows]
        return min(first for first, _ in bounds), max(end for _, end in bounds)

    def _seek_target(self, windows: list[IndexedWindow]) -> int | None:
        """Where EncodedVideo would seek to; None: from the start, for lack of an index or because it is the start."""
        target = max(self._bounds(windows)[0] - _SEEK_MARGIN, 0)
        return target if self.file.kind.seekable and target > self.file.origin else None

    def _plan(self, windows: list[IndexedWindow], shown: list[int]) -> list[PlannedClip]:
        file, most = self.file, self._limits.max_frames_per_window
        clips = plan_clips(
            windows, shown, time_base=file.time_base, origin=file.origin, num_frames=self._spec.num_frames
        )
        for clip in clips:
            frames = bisect_left(shown, clip.end) - bisect_left(shown, clip.first)
            if frames > most:
                raise VideoTooLong(f"one clip of this video holds {frames} frames; at most {most} are allowed")
        return clips

    # Planned ----------------------------------------------------------------------------------------------------------

    def _planned(self, windows: list[IndexedWindow], done: set[int]) -> Iterator[Event]:
        file, seek_to = self.file, self._seek_target(windows)
        table, kept = self._scan(self._bounds(windows)[1], seek_to=seek_to)
        if not table.is_plannable or file.kind.elementary or file.stamps_follow_decoding:
            raise PlanMismatch
        if file.kind.demuxer == "gif" and len(table.pts) < 2:
            raise UnsupportedVideo("a still image is not a video; an animated GIF is")
        clips = self._plan(windows, table.shown())
        if not clips:
            raise PlanMismatch  # let the decoder itself say that there is nothing
        yield ClipsPlanned(tuple(clips))
        packets = iter(kept) if kept is not None else file.packets(seek_to)
        yield from self._decode_ranges(packets, table, clips, PlanCheck(table, clips, done))

    def _decode_ranges(
        self, packets: Iterator[Any], table: PacketTable, clips: list[PlannedClip], check: PlanCheck
    ) -> Iterator[Event]:
        """Decode each range of packets that is needed and pass over the others."""
        order = sorted(range(len(clips)), key=lambda position: clips[position].end)
        read = 0
        for wanted in table.intervals(set(check.places), trust_keys=self._trusts_keys(table)):
            for frame in self._decode_range(packets, read, wanted, table, check):
                pts = check.came_out(frame)
                while order and clips[order[0]].end <= pts:
                    yield _checked(check, order.pop(0))
                if pts in check.places:
                    yield PickedFrame(partial(self.file.picture, frame), pts, tuple(check.places[pts]))
            read = wanted.stop
            reached = max(table.pts[wanted.start : wanted.stop])
            while order and clips[order[0]].picks[-1] <= reached:
                yield _checked(check, order.pop(0))
        if order:
            raise PlanMismatch

    def _decode_range(
        self, packets: Iterator[Any], read: int, wanted: range, table: PacketTable, check: PlanCheck
    ) -> Iterator[Any]:
        """Frames of the packets in that index range, drained; `read` packets were taken before."""
        is_unreferenced = self._unreferenced_test()
        for index in range(read, wanted.stop):
            packet = next(packets, None)
            if packet is None or packet.pts != table.pts[index]:
                raise PlanMismatch
            if index < wanted.start:
                continue
            if packet.pts not in check.places and is_unreferenced is not None and is_unreferenced(packet):
                continue
            # After a jump, pictures shown before the key frame lack what they refer to: they are not to be expected.
            is_leading = wanted.start > 0 and packet.pts < table.pts[wanted.start]
            if not is_leading and not table.is_discarded[index]:
                check.went_in(packet.pts)
            yield from self._decode(packet)
        yield from self._decode(None)
        self.file.reset_decoder()

    def _decode(self, packet: Any) -> list[Any]:
        try:
            frames = self.file.decode(packet)
        except UndecodableVideo as error:
            raise PlanMismatch from error
        if self.file.is_doubtful:
            raise PlanMismatch
        return frames

    def _scan(self, end: int | None, *, seek_to: int | None = None) -> tuple[PacketTable, list[Any] | None]:
        """Timestamps of the packets up to `end`, and the packets themselves while they are few enough to keep.

        Decoding times only grow, and no frame is shown before it is decoded, so the first past `end` is the last.
        """
        table = PacketTable()
        kept: list[Any] | None = []
        kept_bytes = 0
        for number, packet in enumerate(self.file.packets(seek_to)):
            if number % 256 == 0:
                self.file.check_deadline()
            if end is not None and packet.dts is not None and packet.dts >= end:
                break
            table.add(packet.pts, is_key=packet.is_keyframe, is_discarded=packet.is_discard)
            if kept is not None:
                kept.append(packet)
                kept_bytes += packet.size
                if kept_bytes > _MOST_KEPT_BYTES:
                    kept = None  # they are read a second time instead
        return table, kept

    def _trusts_keys(self, table: PacketTable) -> bool:
        """Whether key frame marks tell where decoding can begin; a codec that predicts is never all key frames."""
        seekable = self.file.kind.seekable
        return seekable and (self.file.codec in _INTRA_ONLY or not all(table.is_key))

    def _unreferenced_test(self) -> NonReferenceTest | None:
        """A test for packets whose frame no other refers to, or None where that cannot be known for sure."""
        if not self.file.kind.seekable or self.file.codec != "h264":
            return None
        return non_reference_test(self.file.extradata)

    # Thorough ---------------------------------------------------------------------------------------------------------

    def _thorough(self, windows: list[IndexedWindow], *, any_before: bool) -> Iterator[Event]:
        """Decode everything twice: first for the timestamps in output order, then for the frames that are picked."""
        stamps = self._output_stamps(windows)
        clips = self._plan(windows, sorted({stamp for stamp in stamps if stamp is not None}))
        if not clips:
            if any_before:
                return
            if not stamps and self._seek_target(windows) is None:
                raise UndecodableVideo("no frame could be decoded from this video")
            start, end = float(windows[0][1].start_sec), float(windows[-1][1].end_sec)
            raise EmptyClip(f"the video has no frame between {start:.3f} s and {end:.3f} s")
        yield ClipsPlanned(tuple(clips))
        places = places_of(clips)
        last_output = {stamp: number for number, stamp in enumerate(stamps)}  # of equal stamps the last one wins
        # Where stamps contradict the order of output, the pick with the largest stamp is not the one that comes last.
        complete_at = [max(last_output[pts] for pts in clip.picks) for clip in clips]
        order = sorted(range(len(clips)), key=complete_at.__getitem__)
        for number, frame in enumerate(self._decode_all(self._seek_target(windows))):
            stamp = stamps[number] if number < len(stamps) else None
            if stamp in places and last_output[stamp] == number:
                yield PickedFrame(partial(self.file.picture, frame), stamp, tuple(places[stamp]))
            while order and complete_at[order[0]] <= number:
                yield ClipDone(order.pop(0))
            if not order:
                return
        raise UndecodableVideo("the video decodes differently each time; it is damaged")

    def _output_stamps(self, windows: list[IndexedWindow]) -> list[int | None]:
        """Each output frame's timestamp, in output order, until the windows' end; made up from the rate if missing."""
        file, (first, end) = self.file, self._bounds(windows)
        most_inside = self._limits.max_frames_per_window * len(windows)
        step = Fraction(1) / (file.frame_rate * file.time_base)
        stamps: list[int | None] = []
        inside = past_end = 0
        for number, frame in enumerate(self._decode_all(self._seek_target(windows))):
            if number >= self._limits.max_packets:
                raise VideoTooLong(f"more than {self._limits.max_packets} frames lie before the part asked for")
            stamp = file.origin + math.floor(number * step) if file.kind.elementary else frame.pts
            past_end += stamp is not None and stamp >= end
            inside += stamp is None or stamp >= first
            if inside > most_inside:
                raise VideoTooLong(f"more than {most_inside} frames lie in the part asked for")
            if past_end > (_REORDER_FRAMES if file.stamps_follow_decoding else 0):
                break
            stamps.append(stamp)
        known = [stamp for stamp in stamps if stamp is not None]
        if file.stamps_follow_decoding and known != sorted(known):
            dealt: list[int | None] = [*sorted(known)]
            return dealt  # the decoder's order holds, the packets' stamps are merely dealt out in it
        return stamps

    def _decode_all(self, seek_to: int | None) -> Iterator[Any]:
        """Every frame from the seek point on; a decode error ends the video there and leaves a warning."""
        packets = self.file.packets(seek_to)
        self.file.reset_decoder()
        try:
            for packet in packets:
                yield from self._decode(packet)
            yield from self._decode(None)
        except PlanMismatch:
            self.file.warn("the video is damaged; what was decoded before the damage was used")


def _checked(check: PlanCheck, position: int) -> ClipDone:
    check.finish(position)
    return ClipDone(position)
