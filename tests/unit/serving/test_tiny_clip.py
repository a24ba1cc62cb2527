"""The clip of probes: what lies in the repository is what is drawn here."""

from __future__ import annotations

import io

import av
import numpy as np

from camera_motion.render import encode_h264
from serving.tiny_clip import FPS, FRAMES, HEIGHT, WIDTH, tiny_clip


def decoded(content: bytes) -> np.ndarray:
    with av.open(io.BytesIO(content), "r") as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def test_the_tiny_clip_is_a_block_that_moves_over_grey() -> None:
    frames = np.full((FRAMES, HEIGHT, WIDTH, 3), 96, dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[16:32, 6 * index : 6 * index + 16] = 208
    assert len(tiny_clip()) < 2048
    assert decoded(tiny_clip()).shape == frames.shape
    # To draw the file again: write what encode_h264 gives here. Encoders differ a little from version to version.
    np.testing.assert_allclose(decoded(tiny_clip()), decoded(encode_h264(frames, fps=FPS)), atol=8)
