"""A picture of a clip's frames with heat laid over them, as PNG. Only numpy and zlib.

A row for each view, at most six, a column for each of up to 16 frames, which are at most 128 pixels wide; below each
frame a bar as long as its weight. Such a picture takes tens of milliseconds of one core.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from handlers.specs import ModelSpec
from handlers.video.transforms import FloatArray

Pixels = NDArray[np.uint8]

MOST_ROWS = 6
_MOST_COLUMNS = 16
_TILE = 128  # pixels
_GAP = 4
_BAR = 4
_BACKGROUND = 24
_BAR_COLOUR = (255, 160, 0)
_STRENGTH = 0.7  # of the colour where heat is 1
_COMPRESSION = 2  # of zlib; higher ones take twice as long for a tenth of the size


def thumbnails(views: FloatArray, spec: ModelSpec) -> Pixels:
    """Views (num_crops, 3, T, S, S), as the model takes them -> (num_crops, columns, side, side, 3) RGB pictures."""
    columns = _columns(views.shape[2])
    shrink = _resampling(views.shape[-1], min(_TILE, views.shape[-1]))
    mean, std = (np.array(each, np.float32)[:, None, None, None] for each in (spec.mean, spec.std))
    small = shrink @ views[:, :, columns] @ shrink.T
    shown = np.clip((small * std + mean) * np.float32(255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(shown[:, :: 1 if spec.channel_order == "rgb" else -1].transpose(0, 2, 3, 4, 1))


def sheet(windows: Sequence[tuple[Pixels, FloatArray]]) -> bytes:
    """The PNG of pictures (num_crops, columns, side, side, 3) with their heat (num_crops, T, H, W), 0 to 1."""
    highest = max((float(heat.mean(axis=(2, 3)).max()) for _, heat in windows), default=0.0) or 1.0
    rows = [
        _row(tiles, heat, highest) for pictures, heats in windows for tiles, heat in zip(pictures, heats, strict=True)
    ]
    return png(np.concatenate(rows[:MOST_ROWS]))


def _row(tiles: Pixels, heat: FloatArray, highest: float) -> Pixels:
    """The frames of one view side by side; `highest`: the weight of a full bar."""
    side = tiles.shape[1]
    steps = [column * len(heat) // len(tiles) for column in range(len(tiles))]
    enlarge = [_resampling(length, side) for length in heat.shape[1:]]
    over = np.clip(enlarge[0] @ heat[steps] @ enlarge[1].T, 0, 1)[..., None]
    colour = np.concatenate([np.full_like(over, 255), 255 * (1 - over), np.zeros_like(over)], axis=-1)
    strength = _STRENGTH * over
    painted = (tiles * (1 - strength) + colour * strength).astype(np.uint8)
    cells = np.full((len(tiles), side + _BAR + 2 * _GAP, side + _GAP, 3), _BACKGROUND, np.uint8)
    cells[:, :side, :side] = painted
    for cell, step in zip(cells, steps, strict=True):
        length = round(side * float(heat[step].mean()) / highest)
        cell[side + _GAP : side + _GAP + _BAR, :length] = _BAR_COLOUR
    return np.concatenate(list(cells), axis=1)


def _columns(num_frames: int) -> NDArray[np.int64]:
    return np.arange(min(num_frames, _MOST_COLUMNS)) * num_frames // min(num_frames, _MOST_COLUMNS)


def _resampling(size: int, wanted: int) -> FloatArray:
    """(wanted, size): bilinear interpolation, over all pixels that become one where the picture shrinks."""
    scale = size / wanted
    reach = max(scale, 1.0)
    middles = np.clip((np.arange(wanted) + 0.5) * scale - 0.5, 0, size - 1)
    weights = np.maximum(1 - np.abs(np.arange(size) - middles[:, None]) / reach, 0)
    matrix: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def png(pixels: Pixels) -> bytes:
    """(H, W, 3) as a PNG file (RFC 2083): each row as differences to its left neighbours, which compress better."""
    height, width, _ = pixels.shape
    lines = np.empty((height, 1 + width * 3), np.uint8)
    lines[:, 0] = 1
    lines[:, 1:4] = pixels[:, 0]
    lines[:, 4:] = (pixels[:, 1:] - pixels[:, :-1]).reshape(height, -1)
    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), _COMPRESSION)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body)) for kind, body in chunks
    )
