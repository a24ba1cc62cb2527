"""Which frames a window takes and which packets produce them: timestamp arithmetic, no decoder.

The frames are those of the documented recipe: EncodedVideo's `[ceil(start / time_base), ceil(end / time_base))` from
the stream's start time, then UniformTemporalSubsample over the frames in it (pytorchvideo 0.1.5,
`encoded_video_pyav.py`, `data/utils.py`). Both are known from timestamps alone.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from handlers.clips import Window
from handlers.transforms import subsample_indices


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
    """False when some packet had no timestamp: then packets do not tell which frames come out."""

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

    @property
    def is_plannable(self) -> bool:
        """Whether one packet stands for one frame as far as timestamps tell: each has one, and no two are equal."""
        return self.is_complete and len(set(self.pts)) == len(self.pts)

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
    return first, math.ceil(window.end_sec / time_base) + origin


def plan_clips(
    windows: Sequence[tuple[int, Window]], shown: Sequence[int], *, time_base: Fraction, origin: int, num_frames: int
) -> list[PlannedClip]:
    """The clip of each (index, window); windows without a frame are left out. `shown`: sorted distinct timestamps."""
    clips = []
    for index, window in windows:
        first, end = window_bounds(window, time_base, origin)
        low, high = bisect_left(shown, max(first, origin)), bisect_left(shown, end)
        if high > low:
            picks = tuple(shown[low + int(pick)] for pick in subsample_indices(high - low, num_frames))
            clips.append(PlannedClip(index, window, first, end, picks))
    return clips
