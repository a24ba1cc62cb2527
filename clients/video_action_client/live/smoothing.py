"""Labels averaged over the latest windows, so that a single odd one does not change what is shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ..results import ScoredLabel


class Smoothing:
    """The mean of each label's score over the latest `windows` windows that were answered.

    A label that a window does not list counts as 0 there, so the server has to be asked for all labels.
    """

    def __init__(self, windows: int) -> None:
        self._latest: deque[dict[int, ScoredLabel]] = deque(maxlen=windows)

    def clear(self) -> None:
        """What comes next does not continue what was."""
        self._latest.clear()

    def add(self, predictions: Sequence[ScoredLabel]) -> tuple[ScoredLabel, ...]:
        """The means with this window in, highest first."""
        self._latest.append({each.class_id: each for each in predictions})
        labels = {class_id: each for window in self._latest for class_id, each in window.items()}
        means = (
            ScoredLabel(
                each.label,
                sum(window[class_id].score for window in self._latest if class_id in window) / len(self._latest),
                class_id,
            )
            for class_id, each in labels.items()
        )
        return tuple(sorted(means, key=lambda each: -each.score))
