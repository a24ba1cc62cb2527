"""Which frames a window takes, which packets produce them, and whether the decoder kept to that: no decoding here.

The frames are those of the documented recipe: EncodedVideo's `[ceil(start / time_base), ceil(end / time_base))` from
the stream's start time, then UniformTemporalSubsample over the frames in it (pytorchvideo 0.1.5,
`encoded_video_pyav.py`, `data/utils.py`), or another of the rules in `temporal`. All are known from timestamps alone.

Which packets have to be decoded, for a stream with two B-frames between its reference frames; `*` marks a wanted frame:

    packets, decoding order    I0  P3  B1  B2  P6  B4  B5  I9  B7  B8  P12
    key frame                  x                           x
    wanted                                         *               *

    B5 refers to P3 and P6, so its range starts at the key frame I0. B8 is shown before its key frame I9 (an open GOP)
    and also refers to P6 before it, so its range starts one key frame earlier, at I0 again: the two ranges become one,
    I0 to B8, and P12 is never decoded.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from handlers.video.sampling import Window

_LAST = 2**62  # after every timestamp


@dataclass(frozen=True, slots=True)
class PlannedClip:
    """One window and the frames it takes: `picks` are timestamps, one per model frame, repeated when frames are few.

    `first`, `end`: the window in timestamps, `[first, end)`.
    """

    index: int
    window: Window
    first: int
    end: int
    picks: tuple[int, ...]


@dataclass(slots=True)
class PacketTable:
    """The video packets read so far, in decoding order, one entry per packet in each column."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    is_discarded: bytearray = field(default_factory=bytearray)
    is_complete: bool = True
    """False when some packet had no timestamp: then packets do not determine which frames come out."""

    def add(self, pts: int | None, *, is_key: bool, is_discarded: bool) -> None:
        if pts is None:
            self.is_complete = False
            pts = 0
        self.pts.append(pts)
        self.is_key.append(is_key)
        self.is_discarded.append(is_discarded)

    def shown(self) -> list[int]:
        """Timestamps of the packets that an edit list does not cut away, sorted."""
        return sorted(pts for pts, cut in zip(self.pts, self.is_discarded, strict=True) if not cut)

    def check_plannable(self) -> None:
        """Raises PlanMismatch unless one packet stands for one frame: each has a timestamp, and no two are equal."""
        if not self.is_complete:
            raise PlanMismatch("missing_timestamps")
        if len(set(self.pts)) != len(self.pts):
            raise PlanMismatch("repeated_timestamps")

    def intervals(self, wanted: set[int], *, trust_keys: bool) -> list[range]:
        """Index ranges to decode, each from a key frame to the last packet that is wanted, in decoding order.

        Packets between two ranges need no decoding. A wanted picture shown before its key frame (open GOP) refers to
        pictures before it, so its range starts one key frame earlier.
        """
        ranges: list[range] = []
        key = previous_key = 0
        for index, pts in enumerate(self.pts):
            if self.is_key[index] and trust_keys:
                previous_key, key = key, index
            if pts not in wanted:
                continue
            start = previous_key if pts < self.pts[key] else key
            while ranges and start <= ranges[-1].stop:
                start = min(start, ranges.pop().start)
            ranges.append(range(start, index + 1))
        return ranges


def window_bounds(window: Window, time_base: Fraction, origin: int) -> tuple[int, int]:
    """The window in timestamps, `[first, end)`, rounded as pytorchvideo's `secs_to_pts(round_mode="ceil")` does.

    A float divided by a Fraction is a float, a Fraction stays exact: which one comes in decides the last frame.
    """
    first = math.ceil(window.start_sec / time_base) + origin
    return first, _LAST if window.open_end else math.ceil(window.end_sec / time_base) + origin


def plan_clips(
    windows: Sequence[tuple[int, Window]],
    shown: Sequence[int],
    *,
    time_base: Fraction,
    origin: int,
    pick: Callable[[int], NDArray[np.int64]],
) -> list[PlannedClip]:
    """The clip of each (index, window); windows without a frame are left out. `shown`: sorted distinct timestamps.

    `pick` gives the positions, among so many frames in a window, of those that the clip takes.
    """
    clips = []
    for index, window in windows:
        first, end = window_bounds(window, time_base, origin)
        low, high = bisect_left(shown, max(first, origin)), bisect_left(shown, end)
        if high > low:
            picks = tuple(shown[low + int(position)] for position in pick(high - low))
            clips.append(PlannedClip(index, window, first, end, picks))
    return clips


def places_of(clips: Iterable[PlannedClip]) -> dict[int, list[tuple[int, int]]]:
    """Timestamp -> (index into the clips, position in the clip) of every time that it is picked."""
    places: dict[int, list[tuple[int, int]]] = {}
    for position, clip in enumerate(clips):
        for step, pts in enumerate(clip.picks):
            places.setdefault(pts, []).append((position, step))
    return places


MismatchReason = Literal[
    "raw_stream",  # no timestamps, by design of the format
    "missing_timestamps",
    "repeated_timestamps",
    "avi_with_b_frames",  # its packets carry the wrong timestamps
    "empty_window",  # no packet lies in any window: only decoding can show that there is nothing
    "packets_changed",  # a second reading of the file gave other packets
    "decode_error",
    "damage_concealed",  # several threads decoded, and what FFmpeg conceals depends on how many
    "unexpected_frame",
    "missing_frame",
]
"""Why a plan made from packets could not be used, or did not hold."""


class PlanMismatch(Exception):
    """The packets do not determine which frames will come out, or other frames came out than planned."""

    def __init__(self, reason: MismatchReason) -> None:
        super().__init__(reason)
        self.reason: MismatchReason = reason


class PlanCheck:
    """Checks that the decoder returned exactly the frames that the packet timestamps announced."""

    def __init__(self, table: PacketTable, clips: Sequence[PlannedClip]) -> None:
        self.places = places_of(clips)
        self._known = set(table.pts)
        self._clips = clips
        self._expected: set[int] = set()
        self._came: set[int] = set()
        self._last: float = -math.inf

    def went_in(self, pts: int) -> None:
        """A packet with this timestamp went into the decoder, and a frame is expected of it."""
        self._expected.add(pts)

    def came_out(self, pts: int | None) -> int:
        """A frame's timestamp; raises PlanMismatch when it is unknown or not later than the one before."""
        if pts is None or pts not in self._known or pts <= self._last:
            raise PlanMismatch("unexpected_frame")
        self._last = pts
        self._expected.discard(pts)
        if pts in self.places:
            self._came.add(pts)
        return pts

    def check_complete(self, position: int) -> None:
        """At a clip's end: its picks, and every packet in its window that was decoded, must be frames by now.

        Raises PlanMismatch.
        """
        clip = self._clips[position]
        if any(clip.first <= pts < clip.end for pts in self._expected) or not self._came.issuperset(clip.picks):
            raise PlanMismatch("missing_frame")
