"""A decoded frame -> its pixels, in the colours that the recipe gives them, and the way it is to be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from handlers.video.ffmpeg import av_errors, display_matrix
from handlers.video.transforms import UPRIGHT, Orientation

_VECTOR_PIXELS = 16  # swscale's vectors, in pixels


@dataclass(frozen=True, slots=True)
class Picture:
    """One RGBA frame: `pixels` are its bytes, rows `row_bytes` apart, shown with `orientation`."""

    pixels: NDArray[np.uint8]
    height: int
    width: int
    row_bytes: int
    orientation: Orientation

    def array(self) -> NDArray[np.uint8]:
        """The frame as stored, RGB, (H, W, 3) uint8."""
        rows = self.pixels.reshape(self.height, self.row_bytes)[:, : self.width * 4]
        return rows.reshape(self.height, self.width, 4)[:, :, :3]

    @property
    def shown_size(self) -> tuple[int, int]:
        """(width, height) as it is shown."""
        return (self.height, self.width) if self.orientation.transpose else (self.width, self.height)


class FrameConverter:
    """Converts the frames of one video, which share a converter of swscale and an orientation."""

    def __init__(self, *, autorotate: bool) -> None:
        self._autorotate = autorotate
        self._reformatter, self._packer = VideoReformatter(), VideoReformatter()
        self._orientation: Orientation | None = None

    def convert(self, frame: VideoFrame) -> Picture:
        """The frame as RGBA, in the colours of PyAV's `to_rgb`."""
        if self._orientation is None:
            # Asked of one frame only: what it answers holds the frame in a reference cycle.
            self._orientation = _orientation(display_matrix(frame)) if self._autorotate else UPRIGHT
        with av_errors():
            rgba = self._to_rgba(frame)
        plane: Any = rgba.planes[0]
        pixels = np.frombuffer(plane, dtype=np.uint8)[: plane.line_size * rgba.height]
        return Picture(pixels, rgba.height, rgba.width, plane.line_size, self._orientation)

    def _to_rgba(self, frame: VideoFrame) -> VideoFrame:
        """swscale's three bytes per pixel, with a fourth, so that the transform reads a pixel as one number.

        Both come out of the same arithmetic, but where a row is no multiple of its vectors swscale treats the last
        columns in other ways, depending on the room there: then the recipe's three bytes are made first.
        """
        if frame.width % _VECTOR_PIXELS:
            frame = self._reformatter.reformat(frame, format="rgb24", threads=1)
        return self._packer.reformat(frame, format="rgba", threads=1)


def _orientation(matrix: tuple[int, ...] | None) -> Orientation:
    """From the display matrix (ISO 14496-12, 6.2.2), when it is a turn by quarters or a mirror; else as stored."""
    if matrix is None:
        return UPRIGHT
    a, b, _, c, d, *_ = matrix
    if b == 0 and c == 0 and a != 0 and d != 0:
        return Orientation(flip_x=a < 0, flip_y=d < 0)
    if a == 0 and d == 0 and b != 0 and c != 0:
        return Orientation(transpose=True, flip_x=b < 0, flip_y=c < 0)
    return UPRIGHT
