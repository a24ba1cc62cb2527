"""What decoding a video yields, in the order in which it happens: the clips planned, their frames, each clip's end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from handlers.video.packet_plan import PlannedClip
from handlers.video.picture import Picture


@dataclass(frozen=True, slots=True)
class ClipsPlanned:
    """The clips that will follow, before any of their frames. A second one replaces what is still unfinished."""

    clips: tuple[PlannedClip, ...]


@dataclass(frozen=True, slots=True)
class PickedFrame:
    """A frame that clips take: `places` are (index into the planned clips, position in the clip).

    `load` converts it to RGB in the thread that calls it, which takes milliseconds.
    """

    load: Callable[[], Picture]
    pts: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ClipDone:
    """Every frame of the clip at this position among the planned clips has come."""

    position: int


Event = ClipsPlanned | PickedFrame | ClipDone
