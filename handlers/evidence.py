"""What an explanation needs of each window of a video, kept until it is known which class is explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakSet

import numpy as np

from handlers.model.head import FloatArray, HeadWeights
from handlers.model.outputs import Outputs
from handlers.request.explanation import Explanation
from handlers.request.heat import WindowHeat
from handlers.request.options import Explain
from handlers.request.sheet import MOST_ROWS, thumbnails
from handlers.specs import ModelSpec
from handlers.video.sampling import WindowViews

_KEPT_BYTES = 64 * 2**20
"""Feature maps of all videos that are kept while their best classes are not known: those of 186 views of x3d_s, 16 of
slow_r50."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One window: its heat, or until that can be computed the feature maps of its views."""

    heat: WindowHeat
    maps: tuple[tuple[FloatArray, ...], ...] = ()


class Evidence:
    """Collects windows. With a target their heat is computed at once, and the feature maps are let go.

    Without one they are kept, up to 64 MiB of all videos under way together; the video that goes beyond is `overfull`,
    and has to be looked at once more when its best class is known.
    """

    def __init__(self, explain: Explain, head: HeadWeights, spec: ModelSpec, together: WeakSet[Evidence]) -> None:
        """`together`: the evidence of all videos under way, to which this one is added."""
        self._explain, self._head, self._spec = explain, head, spec
        self._windows: dict[int, _Seen] = {}
        self._rows = self.kept_bytes = 0
        self.overfull = False
        self._together = together
        together.add(self)

    def add(self, delivered: WindowViews, outputs: Sequence[Outputs]) -> None:
        """A window with what the model gave for each of its views, which are read here and not kept."""
        if self.overfull:
            return
        pictures = None
        if self._explain.image and self._rows < MOST_ROWS:
            pictures = thumbnails(delivered.views, self._spec)
            self._rows += len(pictures)
        heat = WindowHeat(delivered.window, delivered.frame_times, (), pictures)
        seen = _Seen(heat, tuple(each.maps for each in outputs))
        if self._explain.target is not None:
            seen = _Seen(self._heat(seen, self._explain.target))  # without the maps
        self._windows[delivered.index] = seen
        self.kept_bytes += sum(pathway.nbytes for view in seen.maps for pathway in view)
        if seen.maps and sum(each.kept_bytes for each in self._together) > _KEPT_BYTES:
            self.overfull = True
            self.let_go()

    def let_go(self) -> None:
        """Forget the windows: the video is done, or has too many of them."""
        self._windows.clear()
        self.kept_bytes = 0

    def explanation(self, target: int) -> Explanation:
        """Of the class `target`, or of the one that was asked for, with all windows in order."""
        if self._explain.target is not None:
            target = self._explain.target
        seen = [self._windows[index] for index in sorted(self._windows)]
        windows = tuple(self._heat(each, target) if each.maps else each.heat for each in seen)
        return Explanation(target, self._head.method, windows)

    def _heat(self, seen: _Seen, target: int) -> WindowHeat:
        views = [self._head.heat([pathway[0] for pathway in maps], target) for maps in seen.maps]
        return replace(seen.heat, pathways=tuple(np.stack(pathway) for pathway in zip(*views, strict=True)))
