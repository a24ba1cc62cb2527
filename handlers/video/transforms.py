"""RGBA frame -> model input, in one fused step: short-side scale, crop, scale to [0, 1] and normalise. Only numpy.

The documented chain (pytorchvideo 0.1.5 and torchvision: /255, Normalize, ShortSideScale, CenterCrop or UniformCrop) is
linear in the pixels and bilinear interpolation's weights sum to 1, so the order of its steps does not matter but for
float rounding. Here only the pixels under the crop are read, straight from uint8, and the normalisation is folded into
the interpolation's weights: the same tensors to 1e-4 at a small part of the cost.

A pixel has four bytes, so that it is gathered as one number; what the fourth holds does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handlers.specs import ModelSpec

FloatArray = NDArray[np.float32]
Pathways = Sequence[FloatArray]
"""The model's inputs, (N, 3, T, S, S) each: one array, or for SlowFast slow, then fast."""

_PIXEL_BYTES = 4


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored frame is shown: flips of its own axes first, then a transposition. The default changes nothing."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False


UPRIGHT = Orientation()


class _Axis(NamedTuple):
    """Bilinear taps of one output axis: the two source indices and the weight of the second, each (size,)."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: FloatArray


class _Box(NamedTuple):
    """A rectangle of the scaled frame, in its pixels."""

    top: int
    left: int
    height: int
    width: int


class _Region(NamedTuple):
    """What is computed at once: pixel offsets of the four taps and their weights, (4, H, W) each, and the crops that
    are cut from it: each one's number and (top, left) inside."""

    offsets: NDArray[np.int64]
    weights: FloatArray
    crops: tuple[tuple[int, int, int], ...]


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after ShortSideScale: the shorter side becomes `short_side`, the other is floored."""
    if width < height:
        return math.floor((float(height) / width) * short_side), short_side
    return short_side, math.floor((float(width) / height) * short_side)


def crop_origins(height: int, width: int, size: int, num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of each crop in a scaled frame: CenterCrop for one, UniformCrop along the longer side for three.

    The two round differently, as their originals do: torchvision's centre is `round`, pytorchvideo's is `ceil`.
    """
    if num_crops == 1:
        return [(round((height - size) / 2.0), round((width - size) / 2.0))]
    top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        return [(0, left), (top, left), (height - size, left)]
    return [(top, 0), (top, left), (top, width - size)]


class FrameTransform:
    """The transform of every frame of one size; index tables are made once and used for each frame.

    `apply` reads an RGBA frame (H, W, 4) uint8, as one run of bytes, and writes (num_crops, 3, S, S) float32. Rows may
    be padded: they are `row_bytes` apart, a multiple of 4.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        height: int,
        width: int,
        row_bytes: int | None = None,
        num_crops: int = 1,
        orientation: Orientation = UPRIGHT,
    ) -> None:
        self._row_pixels = width if row_bytes is None else row_bytes // _PIXEL_BYTES
        shown = (width, height) if orientation.transpose else (height, width)
        scaled = scaled_size(*shown, spec.short_side)
        self._shift = np.float32(spec.mean / spec.std)
        gain = np.float32(1.0 / (255.0 * spec.std))
        self._size = spec.crop_size
        self._regions = [
            self._region(shown, scaled, box, crops, gain, orientation)
            for box, crops in _boxes(crop_origins(*scaled, spec.crop_size, num_crops), spec.crop_size)
        ]

    def _region(
        self,
        shown: tuple[int, int],
        scaled: tuple[int, int],
        box: _Box,
        crops: tuple[tuple[int, int, int], ...],
        gain: np.float32,
        orientation: Orientation,
    ) -> _Region:
        rows = _taps(shown[0], scaled[0], box.top, box.height)
        cols = _taps(shown[1], scaled[1], box.left, box.width)
        y_flip, x_flip = orientation.flip_y, orientation.flip_x
        if orientation.transpose:  # the shown row is a stored column
            y_flip, x_flip = x_flip, y_flip
        rows, cols = _flip(rows, shown[0], y_flip), _flip(cols, shown[1], x_flip)
        row_step, col_step = (1, self._row_pixels) if orientation.transpose else (self._row_pixels, 1)
        corners = [
            (y * row_step)[:, None] + (x * col_step)[None, :]
            for y in (rows.lower, rows.upper)
            for x in (cols.lower, cols.upper)
        ]
        wy, wx = rows.weight[:, None], cols.weight[None, :]
        one = np.float32(1)
        weights = np.stack([(one - wy) * (one - wx), (one - wy) * wx, wy * (one - wx), wy * wx]) * gain
        return _Region(np.stack(corners), weights.astype(np.float32), crops)

    def apply(self, frame: NDArray[np.uint8], out: FloatArray) -> None:
        """Write the frame's crops into `out`, (num_crops, 3, S, S) float32, any strides."""
        pixels, size = frame.reshape(-1).view(np.uint32), self._size
        for region in self._regions:
            taps = pixels.take(region.offsets, mode="clip")
            channels = taps.view(np.uint8).reshape(*taps.shape, _PIXEL_BYTES).transpose(3, 0, 1, 2)[:3]
            for channel, values in enumerate(np.ascontiguousarray(channels)):
                total = region.weights[0] * values[0]
                for weight, value in zip(region.weights[1:], values[1:], strict=True):
                    total += weight * value
                for crop, top, left in region.crops:
                    np.subtract(total[top : top + size, left : left + size], self._shift, out=out[crop, channel])


def with_alpha(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., H, W, 3) RGB as the RGBA that the transform reads."""
    return np.concatenate([frames, np.full_like(frames[..., :1], 255)], axis=-1)


def _boxes(origins: list[tuple[int, int]], size: int) -> list[tuple[_Box, tuple[tuple[int, int, int], ...]]]:
    """What to compute for these crops, and where each lies in it: their hull, where they overlap enough, else each."""
    top, left = min(y for y, _ in origins), min(x for _, x in origins)
    hull = _Box(top, left, max(y for y, _ in origins) + size - top, max(x for _, x in origins) + size - left)
    if hull.height * hull.width <= len(origins) * size * size:
        return [(hull, tuple((crop, y - top, x - left) for crop, (y, x) in enumerate(origins)))]
    return [(_Box(y, x, size, size), ((crop, 0, 0),)) for crop, (y, x) in enumerate(origins)]


def _taps(size_in: int, size_out: int, start: int, count: int) -> _Axis:
    """Taps of `count` output pixels from `start`, align_corners=False, in float32 as torch computes them.

    Source: torch's `area_pixel_compute_source_index`: scale * (i + 0.5) - 0.5, clamped at 0.
    """
    scale = np.float32(size_in) / np.float32(size_out)
    half = np.float32(0.5)
    position = scale * (np.arange(start, start + count, dtype=np.float32) + half) - half
    position = np.maximum(position, np.float32(0))
    lower = np.minimum(position.astype(np.int64), size_in - 1)
    weight = np.clip(position - lower.astype(np.float32), np.float32(0), np.float32(1))
    return _Axis(lower, np.minimum(lower + 1, size_in - 1), weight.astype(np.float32))


def _flip(axis: _Axis, size: int, flipped: bool) -> _Axis:
    return _Axis(size - 1 - axis.lower, size - 1 - axis.upper, axis.weight) if flipped else axis


def slow_indices(num_frames: int, alpha: int) -> NDArray[np.int64]:
    """Frames of the slow pathway: `torch.linspace(0, T - 1, T // alpha).long()`, as the tutorial's PackPathway."""
    return subsample_indices(num_frames, num_frames // alpha)


def pack_pathways(views: FloatArray, alpha: int) -> list[FloatArray]:
    """[slow, fast] of views (N, 3, T, H, W): the slow pathway takes T // alpha frames, the fast one all."""
    return [np.ascontiguousarray(views[:, :, slow_indices(views.shape[2], alpha)]), views]


def subsample_indices(num_frames: int, num_samples: int) -> NDArray[np.int64]:
    """UniformTemporalSubsample's picks: `torch.linspace(0, n - 1, num_samples)` in float32, truncated.

    Float32 rounding decides some picks, so torch's own order of operations is kept: up from the start in the first
    half, down from the end in the second.
    """
    if num_frames < 1 or num_samples < 1:
        raise ValueError(f"need at least one frame and one sample, got {num_frames} and {num_samples}")
    if num_samples == 1:
        return np.zeros(1, dtype=np.int64)
    last = np.float32(num_frames - 1)
    step = last / np.float32(num_samples - 1)
    index = np.arange(num_samples)
    rising = step * index.astype(np.float32)
    falling = last - step * (num_samples - 1 - index).astype(np.float32)
    picks = np.where(index < num_samples // 2, rising, falling)
    return np.clip(picks, 0, num_frames - 1).astype(np.int64)
