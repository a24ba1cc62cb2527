"""RGBA frame -> model input where the original resizes uint8 pictures with antialias. Only numpy.

The resize is torch's own for uint8 pictures (`aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h`), which
torchvision's transforms v2 and Hugging Face's processors call: first along the rows, then along the columns, a triangle
over all pixels that become one, weights as whole numbers of 16 bits, and whole numbers again after each step. So it can
be repeated exactly by a matrix product, in a float type that holds the sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handlers.specs import ModelSpec
from handlers.video.transforms import UPRIGHT, FloatArray, Normalisation, Orientation, crop_origins, resized

_MOST_WEIGHT = 2**15
_MOST_PRECISION = 22
_FLOAT32_PRECISION = 16  # a pixel of 255 times a weight of 2 ** 16 is below 2 ** 24: float32 holds it


class _Axis(NamedTuple):
    """The source pixels `[start, stop)` that are read, and the weight of each in each output pixel, times 2 **
    precision: (stop - start, size), float32 or float64. `weights` is None for an axis that keeps its length."""

    start: int
    stop: int
    weights: NDArray[np.floating] | None
    precision: int


class AntialiasTransform:
    """As `transforms.FrameTransform`, which see, for specs with `antialias`."""

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
        self._stored = (height, width if row_bytes is None else row_bytes // 4)
        self._width, self._orientation = width, orientation
        shown = (width, height) if orientation.transpose else (height, width)
        scaled = resized(spec, *shown)
        size = self._size = spec.crop_size
        self._norm = Normalisation.of(spec)
        origins = crop_origins(spec, *scaled, num_crops)
        top, left = min(y for y, _ in origins), min(x for _, x in origins)
        self._crops = [(y - top, x - left) for y, x in origins]
        self._rows = _axis(shown[0], scaled[0], top, max(y for y, _ in origins) + size)
        self._cols = _axis(shown[1], scaled[1], left, max(x for _, x in origins) + size)

    def apply(self, frame: NDArray[np.uint8], out: FloatArray) -> None:
        """Write the frame's crops into `out`, (num_crops, 3, S, S) float32, any strides."""
        pixels = frame.reshape(*self._stored, 4)[:, : self._width]
        turn = self._orientation
        pixels = pixels[:: -1 if turn.flip_y else 1, :: -1 if turn.flip_x else 1]
        pixels = pixels.transpose(1, 0, 2) if turn.transpose else pixels
        pixels = pixels[self._rows.start : self._rows.stop, self._cols.start : self._cols.stop]
        size = self._size
        for channel, values in enumerate(pixels.transpose(2, 0, 1)[self._norm.channels]):
            along = _resized(values.astype(np.float32), self._cols)
            total = _resized(np.ascontiguousarray(along.T), self._rows).T
            total = total * self._norm.gains[channel]
            for crop, (top, left) in enumerate(self._crops):
                box = total[top : top + size, left : left + size]
                np.subtract(box, self._norm.shifts[channel], out=out[crop, channel])


def _resized(values: FloatArray, axis: _Axis) -> FloatArray:
    """(n, source) -> (n, size), whole numbers from 0 to 255."""
    if axis.weights is None:
        return values
    sums = values.astype(axis.weights.dtype, copy=False) @ axis.weights
    sums += 2 ** (axis.precision - 1)
    sums *= 2.0**-axis.precision
    whole: FloatArray = np.clip(np.floor(sums, out=sums), 0, 255, out=sums).astype(np.float32, copy=False)
    return whole


def _axis(size_in: int, size_out: int, start: int, stop: int) -> _Axis:
    """The taps of the output pixels `[start, stop)`."""
    if size_in == size_out:
        return _Axis(start, stop, None, 0)
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    exact = np.zeros((size_in, size_out))
    for index in range(size_out):
        centre = scale * (index + 0.5)
        low = max(int(centre - stretch + 0.5), 0)
        high = min(int(centre + stretch + 0.5), size_in)
        offsets = np.arange(high - low) + (low - centre) + 0.5
        taps = np.maximum(1.0 - np.abs(offsets * (1.0 / stretch)), 0.0)
        exact[low:high, index] = taps / np.cumsum(taps)[-1]  # summed one by one, as torch does
    most, precision = float(exact.max()), 0
    while precision < _MOST_PRECISION and int(0.5 + most * 2 ** (precision + 1)) < _MOST_WEIGHT:
        precision += 1
    weights = np.floor(0.5 + exact[:, start:stop] * 2**precision)
    read = np.flatnonzero(weights.any(axis=1))
    first, last = int(read[0]), int(read[-1]) + 1
    kind = np.float32 if precision <= _FLOAT32_PRECISION else np.float64
    return _Axis(first, last, np.ascontiguousarray(weights[first:last], dtype=kind), precision)
