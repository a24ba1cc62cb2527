"""What packets promised against what the decoder gave: whether a plan of frames held."""

from __future__ import annotations

import math
from typing import Any

from handlers.frame_plan import PacketTable, PlannedClip


class PlanMismatch(Exception):
    """What came out of the decoder is not what the packets promised."""


class PlanCheck:
    """Holds what went into the decoder against what came out, so that a wrong plan never becomes an answer."""

    def __init__(self, table: PacketTable, clips: list[PlannedClip], done: set[int]) -> None:
        self.places = places_of(clips)
        self._known = set(table.pts)
        self._clips, self._done = clips, done
        self._expected: set[int] = set()
        self._came: set[int] = set()
        self._last: float = -math.inf

    def went_in(self, pts: int) -> None:
        self._expected.add(pts)

    def came_out(self, frame: Any) -> int:
        """The frame's timestamp; raises PlanMismatch when it is unknown or not later than the one before."""
        pts: int | None = frame.pts
        if pts is None or pts not in self._known or pts <= self._last:
            raise PlanMismatch
        self._last = pts
        self._expected.discard(pts)
        if pts in self.places:
            self._came.add(pts)
        return pts

    def finish(self, position: int) -> None:
        """The clip's end: its picks, and every packet in its window that was decoded, must be frames by now."""
        clip = self._clips[position]
        if any(clip.first <= pts < clip.end for pts in self._expected) or not self._came.issuperset(clip.picks):
            raise PlanMismatch
        self._done.add(clip.index)


def places_of(clips: list[PlannedClip]) -> dict[int, list[tuple[int, int]]]:
    """Timestamp -> (index into the clips, position in the clip) of every time that it is picked."""
    places: dict[int, list[tuple[int, int]]] = {}
    for position, clip in enumerate(clips):
        for step, pts in enumerate(clip.picks):
            places.setdefault(pts, []).append((position, step))
    return places
