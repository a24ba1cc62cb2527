"""The smallest video that every model answers: for the prediction that shows that a worker still works.

It lies here encoded (by `camera_motion.render.encode_h264`, from what the test of this module draws), so that whoever
sends it, process 1 of a container among them, needs neither FFmpeg nor numpy.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

FRAMES, FPS, WIDTH, HEIGHT = 8, 8, 64, 48
"""One second, so that a whole clip of any model starts inside it."""
_FILE = Path(__file__).with_suffix(".mp4")


@cache
def tiny_clip() -> bytes:
    """One second of H.264, 64 x 48, in under 2 KB: a grey picture in which a bright block moves."""
    return _FILE.read_bytes()
