"""What goes into the decoder and what comes out: the wanted part of a video, its views, a report.

For the server's side of the decoder too, so nothing here imports FFmpeg.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.specs import ModelSpec


@dataclass(frozen=True, slots=True)
class Sampling:
    """The part of a request that decides which frames are wanted. Seconds; the part looked at is `[start, end)`.

    `frame_times`: each window comes with the times of its frames.
    """

    start_sec: float = 0.0
    end_sec: float | None = None
    num_clips: int = 1
    num_crops: int = 1
    stride_sec: float | None = None
    frame_times: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """One clip's time span `[start_sec, end_sec)`, seconds from the stream's first timestamp.

    Floats where the recipe passes floats, Fractions where pytorchvideo's samplers do: rounding to
    timestamps differs. `open_end`: frames after `end_sec` belong to it as well, up to the end of the video.
    """

    start_sec: float | Fraction
    end_sec: float | Fraction
    open_end: bool = False


@dataclass(frozen=True, slots=True)
class WindowViews:
    """The model input of one window: `views` is (num_crops, 3, T, size, size) float32, normalised.

    `frame_times`: seconds of the T frames from the stream's first timestamp; empty where nobody asked for them, or
    where they are not known.
    """

    index: int
    window: Window
    views: NDArray[np.float32]
    frame_times: tuple[float, ...] = ()


def views_shape(spec: ModelSpec, num_crops: int) -> tuple[int, int, int, int, int]:
    """(num_crops, 3, T, S, S): what one window becomes."""
    return (num_crops, 3, spec.num_frames, spec.crop_size, spec.crop_size)


@dataclass(frozen=True, slots=True)
class VideoReport:
    """What was learnt about the video while decoding; `warnings` are sentences for the client.

    `plan_fallback`: why every frame had to be decoded instead of only those that are wanted, else None.
    """

    duration_sec: float | None
    width: int
    height: int
    fps: float | None
    codec: str
    frames_decoded: int
    decode_ms: float
    transform_ms: float
    plan_fallback: str | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
