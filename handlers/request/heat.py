"""The heat of one window: where in its frames the model recognised a class, and when."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from handlers.video.sampling import Window

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class WindowHeat:
    """`pathways`: for each the heat (num_crops, T, H, W) of its own T steps; negative where it spoke against the class.

    `frame_times`: seconds of the frames that the model was given; empty where they are not known. `pictures`:
    (num_crops, columns, height, width, 3) uint8, some of the frames, small, if they are wanted.
    """

    window: Window
    frame_times: tuple[float, ...]
    pathways: tuple[FloatArray, ...]
    pictures: NDArray[np.uint8] | None = None

    @property
    def combined(self) -> FloatArray:
        """(num_crops, T, H, W): the sum of the pathways; a step of the slow one counts for each fast one beside it."""
        *slow, last = self.pathways
        total = last
        for pathway in slow:
            steps = np.arange(last.shape[1]) * pathway.shape[1] // last.shape[1]
            total = total + pathway[:, steps]
        return total


@dataclass(frozen=True, slots=True)
class Step:
    """The part `[start_sec, end_sec)` of a window that a step of the maps stands for, and the time of its frame."""

    start_sec: float
    end_sec: float
    time_sec: float


def steps_of(heat: WindowHeat, num_steps: int) -> list[Step]:
    """The window's steps, which share its frames evenly: each begins with its first frame and ends with the next one's.

    The first begins with the window, the last ends with it. Frames whose times are not known count as spread evenly.
    """
    start, end = float(heat.window.start_sec), float(heat.window.end_sec)
    frames = heat.frame_times or tuple(start + (end - start) * step / num_steps for step in range(num_steps))
    end = max(end, frames[-1])
    firsts = [step * len(frames) // num_steps for step in range(num_steps + 1)]
    starts = [start, *(frames[first] for first in firsts[1:-1]), end]
    middles = [(first + max(following - 1, first)) // 2 for first, following in pairwise(firsts)]
    return [Step(starts[step], max(starts[step + 1], starts[step]), frames[middles[step]]) for step in range(num_steps)]
