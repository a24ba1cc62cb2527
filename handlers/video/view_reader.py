"""Picked frames -> the model input of each window, a frame at a time, so that memory follows the windows in flight.

Where a second core is free, the conversion to RGB and the transform run in a thread of their own, beside the decoder:
both release Python's lock for most of their time, so they run in parallel.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.video.antialias import AntialiasTransform
from handlers.video.clip_events import ClipDone, ClipsPlanned, Event, PickedFrame
from handlers.video.codecs import UNCONFINED, Formats
from handlers.video.packet_plan import PlannedClip
from handlers.video.picture import Picture
from handlers.video.sampled_video import SampledVideo
from handlers.video.sampling import Sampling, VideoReport, WindowViews, views_shape
from handlers.video.transforms import FrameTransform, Orientation

Views = NDArray[np.float32]
Allocate = Callable[[tuple[int, ...]], Views]
"""Gives an array of that shape, (num_crops, 3, T, S, S), for one window; may wait until one is free."""


Times = Callable[[Sequence[int]], tuple[float, ...]]
"""Timestamps of frames -> seconds from the stream's first one."""

_SIZES_KEPT = 2  # of several megabytes each
_FRAMES_AHEAD = 2  # decoded frames that may wait for their transform: bounds memory


@dataclass(slots=True)
class _Stopwatch:
    """Seconds spent in conversion and transform, and by the decoder waiting: for the transform, or for room."""

    transform_sec: float = 0.0
    waiting_sec: float = 0.0


class VideoReader:
    """One video from bytes to views: decoding and transform of every window, then a report.

    `threads` decode. `overlap`: frames are transformed beside the decoder; without a free core that is slower.
    """

    def __init__(
        self,
        payload: bytes | memoryview,
        spec: ModelSpec,
        limits: Limits,
        *,
        autorotate: bool,
        allocate: Allocate,
        threads: int = 1,
        overlap: bool = True,
        formats: Formats = UNCONFINED,
    ) -> None:
        self._started = time.perf_counter()
        self._spec, self._allocate = spec, allocate
        self._watch = _Stopwatch()
        self._video = SampledVideo(payload, spec, limits, autorotate=autorotate, threads=threads, formats=formats)
        self._thread = ThreadPoolExecutor(max_workers=1) if overlap else None
        self._under_way: deque[Future[float]] = deque()

    def count_windows(self, sampling: Sampling) -> int:
        """How many windows `windows` will look at. Raises InvalidOption or VideoTooLong over a limit."""
        return self._video.count_windows(sampling)

    def windows(self, sampling: Sampling) -> Iterator[WindowViews]:
        """Every window's views, in the order in which they are complete. The arrays are those that `allocate` gave."""
        self._num_crops, self._wants_times = sampling.num_crops, sampling.frame_times
        assembler: _Assembler | None = None
        for event in self._video.events(sampling):
            if isinstance(event, ClipsPlanned):
                self._wait(0)
                spare = assembler.reclaim() if assembler is not None else []
                assembler = _Assembler(event.clips, self._spec, sampling.num_crops, self._room(spare))
            elif assembler is not None:
                yield from self._advance(assembler, event)

    def _advance(self, assembler: _Assembler, event: Event) -> Iterator[WindowViews]:
        if isinstance(event, PickedFrame):
            target, copies = assembler.targets(event)
            if self._thread is None:
                self._watch.waiting_sec += self._apply(event, target, copies)
            else:
                self._wait(_FRAMES_AHEAD - 1)
                self._under_way.append(self._thread.submit(self._apply, event, target, copies))
        elif isinstance(event, ClipDone):
            self._wait(0)
            yield assembler.finish(event.position, self._times if self._wants_times else None)

    def _apply(self, event: PickedFrame, target: Views, copies: list[Views]) -> float:
        """Convert, transform, and repeat the frame where a clip takes it more than once; returns the seconds."""
        started = time.perf_counter()
        picture = event.load()
        self._transform(picture).apply(picture.pixels, target)
        for copy in copies:
            copy[...] = target
        taken_sec = time.perf_counter() - started
        self._watch.transform_sec += taken_sec
        return taken_sec

    def _wait(self, most: int) -> None:
        """Until at most so many frames are under way; raises what their transform raised."""
        started = time.perf_counter()
        while len(self._under_way) > most:
            self._under_way.popleft().result()
        self._watch.waiting_sec += time.perf_counter() - started

    def report(self) -> VideoReport:
        """Call it when `windows` has ended. The two times overlap: decoding goes on while a frame is transformed."""
        decode_sec = max(time.perf_counter() - self._started - self._watch.waiting_sec, 0.0)
        return self._video.report(decode_ms=decode_sec * 1e3, transform_ms=self._watch.transform_sec * 1e3)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._video.close()

    def _room(self, spare: list[Views]) -> Allocate:
        def allocate(shape: tuple[int, ...]) -> Views:
            if spare:
                return spare.pop()
            started = time.perf_counter()
            room = self._allocate(shape)
            waited = time.perf_counter() - started
            self._watch.waiting_sec += waited
            self._video.file.extend_deadline(waited)
            return room

        return allocate

    def _times(self, picks: Sequence[int]) -> tuple[float, ...]:
        file = self._video.file
        return tuple(float(max(pts - file.origin, 0) * file.time_base) for pts in picks)

    def _transform(self, picture: Picture) -> FrameTransform | AntialiasTransform:
        size = (picture.height, picture.width, picture.row_bytes)
        return _frame_transform(self._spec, *size, self._num_crops, picture.orientation)


@lru_cache(maxsize=_SIZES_KEPT)
def _frame_transform(
    spec: ModelSpec, height: int, width: int, row_bytes: int, num_crops: int, orientation: Orientation
) -> FrameTransform | AntialiasTransform:
    """For frames of that size; its tables take longer to make than a frame takes, and videos are of few sizes."""
    kind = AntialiasTransform if spec.antialias else FrameTransform
    return kind(spec, height=height, width=width, row_bytes=row_bytes, num_crops=num_crops, orientation=orientation)


class IncompleteClip(RuntimeError):
    """A window was declared complete while some of its frames were missing: a defect of this package."""


class _Assembler:
    """Puts transformed frames where they belong.

    Windows that do not overlap are written in place. Overlapping ones share frames: each is transformed once, kept
    while a window still needs it, and copied; memory follows the frames of one window's length, not the overlaps.
    """

    def __init__(self, clips: Sequence[PlannedClip], spec: ModelSpec, num_crops: int, allocate: Allocate) -> None:
        self._clips, self._allocate = clips, allocate
        self._shape = views_shape(spec, num_crops)
        self._frame_shape = (num_crops, 3, spec.crop_size, spec.crop_size)
        ordered = sorted(clips, key=lambda clip: clip.first)
        self._overlap = any(one.end > later.first for one, later in pairwise(ordered))
        self._open: dict[int, Views] = {}
        self._written: dict[int, set[int]] = {}  # by position of the clip: the steps that have been written
        self._kept: dict[int, Views] = {}
        self._uses: dict[int, int] = {}
        for clip in clips:
            for pts in set(clip.picks):
                self._uses[pts] = self._uses.get(pts, 0) + 1

    def targets(self, event: PickedFrame) -> tuple[Views, list[Views]]:
        """Where to write the transformed frame, (num_crops, 3, S, S), and where to copy it to."""
        if self._overlap:
            self._kept[event.pts] = np.empty(self._frame_shape, dtype=np.float32)
            return self._kept[event.pts], []
        for position, step in event.places:
            self._written.setdefault(position, set()).add(step)
        first, *others = [self._room(position)[:, :, step] for position, step in event.places]
        return first, others

    def finish(self, position: int, times: Times | None = None) -> WindowViews:
        """The window's views, with the `times` of its frames.

        Raises IncompleteClip unless every one of its frames has been written.

        The memory is reused: what is not written still holds views of another request.
        """
        clip = self._clips[position]
        frame_times = () if times is None else times(clip.picks)
        if not self._overlap:
            if len(self._written.pop(position, ())) != len(clip.picks):
                raise IncompleteClip(f"window {clip.index} was given away before all of its frames were written")
            return WindowViews(clip.index, clip.window, self._open.pop(position), frame_times)
        if not self._kept.keys() >= set(clip.picks):
            raise IncompleteClip(f"window {clip.index} was given away before all of its frames were decoded")
        views = self._allocate(self._shape)
        for step, pts in enumerate(clip.picks):
            views[:, :, step] = self._kept[pts]
        for pts in set(clip.picks):
            self._uses[pts] -= 1
            if self._uses[pts] == 0:
                del self._kept[pts]
        return WindowViews(clip.index, clip.window, views, frame_times)

    def reclaim(self) -> list[Views]:
        """The arrays of windows that will not be finished."""
        spare = list(self._open.values())
        self._open.clear()
        return spare

    def _room(self, position: int) -> Views:
        if position not in self._open:
            self._open[position] = self._allocate(self._shape)
        return self._open[position]
