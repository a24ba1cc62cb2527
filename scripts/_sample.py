"""The sample clip that quickstart sends: two seconds of a camera panning left over a textured scene."""

from __future__ import annotations

from pathlib import Path

from serving.environment import REPOSITORY

SAMPLE = REPOSITORY / "build" / "sample.mp4"
SAMPLE_LABEL = "pan left"


def sample_clip(path: Path = SAMPLE) -> Path:
    """The clip's path; made the first time, which takes a second or two, and whole or not at all."""
    if not path.is_file():
        from scripts._camera_clips import make_clip

        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(make_clip(SAMPLE_LABEL, seed=7, strength=0.6))
        partial.replace(path)
    return path
