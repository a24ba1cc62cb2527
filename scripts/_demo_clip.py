"""A clip in which two things happen, one after the other: what the demo page's pictures and tests show."""

from __future__ import annotations

import numpy as np

from scripts._camera_clips import make_frames
from scripts.camera_motion.render import encode_h264

FPS = 30
PARTS = ("pan left", "zoom in")
PART_SEC = 4.0


def two_part_clip(*, seed: int = 7, strength: float = 0.6, width: int = 640, height: int = 360) -> bytes:
    """An mp4 of `PARTS`, `PART_SEC` seconds each."""
    parts = [
        make_frames(label, seed=seed, duration_sec=PART_SEC, fps=FPS, width=width, height=height, strength=strength)
        for label in PARTS
    ]
    return encode_h264(np.concatenate(parts), fps=FPS)
