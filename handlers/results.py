"""View scores -> aggregated probabilities -> top-k -> JSON."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handlers.clips import VideoReport, Window


@dataclass(frozen=True, slots=True)
class WindowScores:
    """One window's logits, (num_crops, num_classes) float32, before any softmax."""

    window: Window
    logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VideoScores:
    """All windows of one video, in order, with what the decoder reported. Milliseconds."""

    windows: tuple[WindowScores, ...]
    report: VideoReport
    inference_ms: float
    total_ms: float
