"""Wanted windows -> the frames of each clip: `decoder: sampled`, the default.

Two ways to the same frames. By plan: packet timestamps determine which frames the recipe would pick, only the packets
that they need are decoded, only they become RGB, and what comes out is checked against the plan. In full: when
timestamps are missing, repeated or wrong, or the check fails, every frame is decoded. The report says which way was
taken, and why.

Deliberate differences from the recipe (docs/exactness.md): the decoder's output order is kept where timestamps
contradict it (AVI with B-frames); streams that do not start at 0 are read from their start where there is no index to
seek in; a decode error ends the video there instead of emptying it; undecodable metadata is replaced; an attached
picture is not the video; `autorotate` turns a rotated video upright.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.video.clip_events import ClipDone, ClipsPlanned, Event
from handlers.video.codecs import UNCONFINED, Formats
from handlers.video.full_decode import FullDecode
from handlers.video.packet_plan import MismatchReason, PlanMismatch
from handlers.video.planned_decode import PlannedDecode, scan_packets
from handlers.video.refusals import refused
from handlers.video.sampling import Sampling, VideoReport
from handlers.video.video_file import VideoFile
from handlers.video.wanted_windows import WantedWindows
from handlers.video.windows import count_windows, needs_duration, plan_windows


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
        formats: Formats = UNCONFINED,
    ) -> None:
        self._spec, self._limits = spec, limits
        self.file = VideoFile(payload, limits, autorotate=autorotate, threads=threads, formats=formats)
        self._counted: tuple[Sampling, int] | None = None
        self._duration: Fraction | None = None
        self._spread_over: Fraction | None = None
        self._fallback: MismatchReason | None = None

    def close(self) -> None:
        self.file.close()

    def report(self, *, decode_ms: float, transform_ms: float) -> VideoReport:
        """The report on the video; call it when `events` has ended."""
        return self.file.report(
            duration_sec=self._duration, decode_ms=decode_ms, transform_ms=transform_ms, plan_fallback=self._fallback
        )

    def events(self, sampling: Sampling) -> Iterator[Event]:
        """The wanted frames as they come out of the decoder, between the plan and a mark at each finished clip."""
        self.count_windows(sampling)
        windows = enumerate(plan_windows(sampling, self._spec, self._spread_over))
        wanted = WantedWindows(self.file, self._spec, self._limits, tuple(windows))
        done: set[int] = set()
        while wanted.windows:
            try:
                yield from _noting_done(PlannedDecode(wanted).events(), done)
                return
            except PlanMismatch as mismatch:
                wanted = wanted.without(done)
                # With several threads the check may have failed on what FFmpeg conceals; one thread is tried first.
                if not self.file.use_one_thread():
                    self._fallback = mismatch.reason
                    break
        if wanted.windows:
            yield from FullDecode(wanted).events(may_be_empty=bool(done))

    def count_windows(self, sampling: Sampling) -> int:
        """How many windows this sampling has in this video. Raises InvalidOption or VideoTooLong over the limits."""
        if self._counted is not None and self._counted[0] == sampling:
            return self._counted[1]
        self._duration = self.file.header_duration() or self.file.container_duration()
        self._check_length(self._duration)
        self._spread_over = self._sampling_duration() if needs_duration(sampling, self._spec) else None
        self._check_length(self._spread_over)
        self._duration = self._duration or self._spread_over
        wanted = count_windows(sampling, self._spec, self._spread_over)
        if wanted > self._limits.max_windows:
            raise refused("windows", windows=wanted, allowed=self._limits.max_windows)
        self._counted = sampling, wanted
        return wanted

    def _check_length(self, duration: Fraction | None) -> None:
        if duration is not None and duration > self._limits.max_video_sec:
            raise refused("duration", duration=float(duration), allowed=self._limits.max_video_sec)

    def _sampling_duration(self) -> Fraction:
        """Seconds over which several windows are spread: the stream's own, else up to the last frame's timestamp.

        A raw stream has no timestamps; there the frames count.
        """
        header = self.file.header_duration()
        if header is not None:
            return header
        table, _ = scan_packets(self.file, None)
        if self.file.kind.elementary:
            return len(table.pts) / self.file.frame_rate
        shown = table.shown()
        if not shown:
            raise refused("empty_video")
        return max(shown[-1] - self.file.origin, 0) * self.file.time_base


def _noting_done(events: Iterator[Event], done: set[int]) -> Iterator[Event]:
    """The events; `done` gets the index of each window whose clip is done, also when the events end in an error."""
    planned = ClipsPlanned(())
    for event in events:
        if isinstance(event, ClipsPlanned):
            planned = event
        elif isinstance(event, ClipDone):
            done.add(planned.clips[event.position].index)
        yield event
