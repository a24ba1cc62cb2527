"""What an explanation needs of each window of a video, kept until it is known which class is explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
"""Feature maps that are kept while the best class is not known: those of 186 views of x3d_s, 16 of slow_r50."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One window: its heat, or until that can be computed the feature maps of its views."""

    heat: WindowHeat
    maps: tuple[tuple[FloatArray, ...], ...] = ()


class Evidence:
    """Collects windows. With a target their heat is computed at once, and the feature maps are let go.

    Without one they are kept, up to 64 MiB; a video of more is `overfull`, and has to be looked at once more when its
    best class is known.
    """

    def __init__(self, explain: Explain, head: HeadWeights, spec: ModelSpec) -> None:
        self._explain, self._head, self._spec = explain, head, spec
        self._windows: dict[int, _Seen] = {}
        self._bytes = self._rows = 0
        self.overfull = False

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
            seen = _Seen(self._heat(seen, self._explain.target))
        self._windows[delivered.index] = seen
        self._bytes += sum(pathway.nbytes for view in seen.maps for pathway in view)
        if self._bytes > _KEPT_BYTES:
            self.overfull = True
            self._windows.clear()

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
