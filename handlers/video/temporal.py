"""Which of the frames in a window a clip takes: one function per temporal rule. Only numpy."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from handlers.specs import ModelSpec
from handlers.video.transforms import subsample_indices

Indices = NDArray[np.int64]

_MOST_APART = 3  # between the rate of a whole video and that of a part of it


def clip_indices(spec: ModelSpec, num_frames: int, fps: Fraction) -> Indices:
    """The `spec.num_frames` frames of a clip, as positions among the `num_frames` of its window, by the spec's rule.

    `fps` is the video's rate (`stated_rate`). Frames repeat where there are too few.
    """
    if spec.temporal == "fps_stride":
        return stride_indices(num_frames, spec.num_frames, float(fps) / spec.frame_rate)
    if spec.temporal == "whole_video":
        return whole_indices(num_frames, spec.num_frames)
    return subsample_indices(num_frames, spec.num_frames)


def stated_rate(header: Fraction, shown: Sequence[int], time_base: Fraction) -> Fraction:
    """The frames per second that the header states, or those of the timestamps where the two contradict each other.

    Some Matroska files state 1000: one frame per unit of their timestamps. `shown`: sorted distinct timestamps.
    """
    if len(shown) < 2:
        return header
    counted = (len(shown) - 1) / ((shown[-1] - shown[0]) * time_base)
    return header if counted / _MOST_APART < header < counted * _MOST_APART else counted


def stride_indices(num_frames: int, num_samples: int, step: float) -> Indices:
    """`floor(k * step)` for k = 0, 1, ..., the last frame at most. `step` is the video's rate over the clip's.

    Source: torchvision 0.29.1, `VideoClips._resample_video_idx`, which multiplies in float32.
    """
    positions: Indices = np.floor(np.arange(num_samples, dtype=np.float32) * np.float32(step)).astype(np.int64)
    positions[positions >= num_frames] = num_frames - 1
    return positions


def whole_indices(num_frames: int, num_samples: int) -> Indices:
    """`k * num_frames // num_samples` for k = 0, 1, ...: as Hugging Face's video processors sample a whole video."""
    positions: Indices = np.arange(num_samples, dtype=np.int64) * num_frames // num_samples
    return positions
