"""The model's logits of every view, in a file of numpy's own format that grows with no run's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bulk.outcomes import Outcome
from handlers.errors import InvalidConfig


class ViewScores:
    """(videos, views, classes) float32: row i is the list's video i, clips in order of time, crops within; NaN where
    there is no score. Before softmax or sigmoid.

    Rows are on disk when `write` returns, so that a run can go on after a kill.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], *, is_begun: bool) -> None:
        """`is_begun`: the run goes on, so the file has to be there. Raises InvalidConfig."""
        self.path = path
        if is_begun:
            self._array = _opened(path, shape)
            return
        if path.exists():
            raise InvalidConfig(f"{path} is there; name another file, or --force replaces it")
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        array[:] = np.nan
        array.flush()
        self._array = array

    def write(self, first: int, outcomes: Sequence[Outcome]) -> None:
        """The outcomes of videos from `first` on. Raises InvalidConfig where a video has another number of views."""
        for index, outcome in enumerate(outcomes, start=first):
            if outcome.failure is None:
                views = np.array(outcome.logits, dtype=np.float32)
                if views.shape != self._array.shape[1:]:
                    raise InvalidConfig(
                        f"{outcome.video} gave views and classes {views.shape}; {self.path.name} has room for "
                        f"{self._array.shape[1:]}"
                    )
                self._array[index] = views
        self._array.flush()


def _opened(path: Path, shape: tuple[int, int, int]) -> np.memmap[tuple[int, ...], np.dtype[np.float32]]:
    try:
        array = np.lib.format.open_memmap(path, mode="r+")
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"the run was begun with {path}, which cannot be read ({error}); --force begins anew"
        ) from error
    if array.shape != shape or array.dtype != np.float32:
        raise InvalidConfig(f"{path} holds {array.dtype} {array.shape}, this run float32 {shape}; --force begins anew")
    return array
