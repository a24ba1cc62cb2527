"""RGBA frame -> model input, in one fused step: short-side scale, crop, scale to [0, 1] and normalise. Only numpy.

The documented chain (pytorchvideo 0.1.5 and torchvision: /255, Normalize, ShortSideScale, CenterCrop or UniformCrop) is
linear in the pixels and bilinear interpolation's weights sum to 1, so the order of its steps does not matter but for
float rounding. Here only the pixels under the crop are read, straight from uint8, and the normalisation is folded into
the interpolation's weights: the same tensors to 1e-4 at a small part of the cost.

Where the original resizes uint8 pictures (`resize_as: torchvision`), it computes in float32 and rounds to whole
numbers. So it is here, and values half-way between two whole numbers are computed again in its own order, so that they
are rounded to the same side. Resizing with antialias is in `antialias`.

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
_NEAR_TIE = np.float32(1e-3)  # of a pixel value; float32 errs by less than 1e-4 there


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
    """What is computed at once: pixel offsets of the four taps and, for each channel of the model, their weights,
    (4, H, W) each; the weights along each axis, (H, 1) and (1, W), of the second tap; and the crops that are cut from
    it: each one's number and (top, left) inside."""

    offsets: NDArray[np.int64]
    weights: tuple[FloatArray, FloatArray, FloatArray]
    axes: tuple[FloatArray, FloatArray]
    crops: tuple[tuple[int, int, int], ...]


def resized(spec: ModelSpec, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a frame of that size after the spec's resize."""
    if spec.exact_size is not None:
        return spec.exact_size
    if spec.resize_as == "pytorchvideo":
        return scaled_size(height, width, spec.short_side)
    # torchvision 0.29.1, `functional._compute_resized_image_output_size`
    long_side = int(spec.short_side * max(height, width) / min(height, width))
    return (long_side, spec.short_side) if width <= height else (spec.short_side, long_side)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after ShortSideScale: the shorter side becomes `short_side`, the other is floored."""
    if width < height:
        return math.floor((float(height) / width) * short_side), short_side
    return short_side, math.floor((float(width) / height) * short_side)


def crop_origins(spec: ModelSpec, height: int, width: int, num_crops: int) -> list[tuple[int, int]]:
    """(top, left) of each crop in a scaled frame: CenterCrop for one, UniformCrop along the longer side for three.

    They round differently, as their originals do: torchvision's centre is `round`, Hugging Face's is floored,
    pytorchvideo's three are `ceil`.
    """
    size = spec.crop_size
    if num_crops == 1 and spec.crop_rounding == "floor":
        return [((height - size) // 2, (width - size) // 2)]
    if num_crops == 1:
        return [(round((height - size) / 2.0), round((width - size) / 2.0))]
    top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        return [(0, left), (top, left), (height - size, left)]
    return [(top, 0), (top, left), (top, width - size)]


class Normalisation(NamedTuple):
    """`pixel * gain - shift` of each channel of the model, and the slice that puts R, G, B, A in its order."""

    gains: tuple[np.float32, np.float32, np.float32]
    shifts: tuple[np.float32, np.float32, np.float32]
    channels: slice

    @classmethod
    def of(cls, spec: ModelSpec) -> Normalisation:
        red, green, blue = (np.float32(1.0 / (255.0 * std)) for std in spec.std)
        first, second, third = (np.float32(mean / std) for mean, std in zip(spec.mean, spec.std, strict=True))
        channels = slice(0, 3) if spec.channel_order == "rgb" else slice(2, None, -1)
        return cls((red, green, blue), (first, second, third), channels)


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
        scaled = resized(spec, *shown)
        self._norm = Normalisation.of(spec)
        self._rounds = spec.resize_as == "torchvision"
        self._size = spec.crop_size
        self._regions = [
            self._region(shown, scaled, box, crops, orientation)
            for box, crops in _boxes(crop_origins(spec, *scaled, num_crops), spec.crop_size)
        ]

    def _region(
        self,
        shown: tuple[int, int],
        scaled: tuple[int, int],
        box: _Box,
        crops: tuple[tuple[int, int, int], ...],
        orientation: Orientation,
    ) -> _Region:
        rows = _taps(shown[0], scaled[0], box.top, box.height, fused=self._rounds)
        cols = _taps(shown[1], scaled[1], box.left, box.width, fused=self._rounds)
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
        bilinear = np.stack([(one - wy) * (one - wx), (one - wy) * wx, wy * (one - wx), wy * wx])
        # Normalisation is folded in, unless the pixels have to be rounded before it.
        gains = (one, one, one) if self._rounds else self._norm.gains
        scaled_weights = {gain: (bilinear * gain).astype(np.float32) for gain in gains}
        first, second, third = (scaled_weights[gain] for gain in gains)
        return _Region(np.stack(corners), (first, second, third), (wy, wx), crops)

    def apply(self, frame: NDArray[np.uint8], out: FloatArray) -> None:
        """Write the frame's crops into `out`, (num_crops, 3, S, S) float32, any strides."""
        pixels, size = frame.reshape(-1).view(np.uint32), self._size
        for region in self._regions:
            taps = pixels.take(region.offsets, mode="clip")
            channels = taps.view(np.uint8).reshape(*taps.shape, _PIXEL_BYTES).transpose(3, 0, 1, 2)[self._norm.channels]
            for channel, values in enumerate(np.ascontiguousarray(channels)):
                weights = region.weights[channel]
                total = weights[0] * values[0]
                for weight, value in zip(weights[1:], values[1:], strict=True):
                    total += weight * value
                if self._rounds:
                    total = _rounded(total, values, region.axes)
                    total *= self._norm.gains[channel]
                shift = self._norm.shifts[channel]
                for crop, top, left in region.crops:
                    np.subtract(total[top : top + size, left : left + size], shift, out=out[crop, channel])


def _rounded(total: FloatArray, values: NDArray[np.uint8], axes: tuple[FloatArray, FloatArray]) -> FloatArray:
    """`total`, (H, W), to whole numbers; half to even, as torch rounds.

    Near a half the last bits decide: there it is computed as torch's kernel does, along the rows first and with fused
    multiplication and addition. A product of two float32 is exact in float64.
    """
    near = np.abs(total - np.floor(total) - np.float32(0.5)) < _NEAR_TIE
    ys, xs = np.nonzero(near)
    wy, wx = axes[0][ys, 0], axes[1][0, xs]
    one = np.float32(1)
    corners = values[:, ys, xs].astype(np.float32)

    def fused(lower: FloatArray, upper: FloatArray, weight: FloatArray) -> FloatArray:
        exact = lower.astype(np.float64) * (one - weight).astype(np.float64)
        return (exact + (upper * weight).astype(np.float64)).astype(np.float32)

    total[ys, xs] = fused(fused(corners[0], corners[1], wx), fused(corners[2], corners[3], wx), wy)
    return np.rint(total, out=total)


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


def _taps(size_in: int, size_out: int, start: int, count: int, *, fused: bool = False) -> _Axis:
    """Taps of `count` output pixels from `start`, align_corners=False, in float32 as torch computes them.

    Source: torch's `area_pixel_compute_source_index`: scale * (i + 0.5) - 0.5, clamped at 0. `fused`: with one rounding
    at the end, as compilers make it for the processors of today; it matters only before a rounding to whole numbers.
    """
    scale = np.float32(size_in) / np.float32(size_out)
    half = np.float32(0.5)
    middle = np.arange(start, start + count, dtype=np.float32) + half
    if fused:
        position = (scale.astype(np.float64) * middle.astype(np.float64) - 0.5).astype(np.float32)
    else:
        position = scale * middle - half
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
