"""Sample clips whose camera motion is known: a textured scene, things that move in it, a moving camera, H.264.

Needs numpy and av, not torch. `python -m camera_motion.sample_clips "pan left" --output pan_left.mp4` writes one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from camera_motion.motion import LABELS, sample_path
from camera_motion.render import Frames, Texture, encode_h264, render, sample_scene
from camera_motion.scenes import make_texture

__all__ = ["LABELS", "make_clip", "make_frames", "sample_clip", "two_part_clip"]

SAMPLE_LABEL = "pan left"
"""What `sample_clip` shows."""

PARTS = ("pan left", "zoom in")
PART_SEC = 4.0
"""What `two_part_clip` shows, and for how long each, seconds."""


def make_clip(
    label: str,
    *,
    seed: int,
    duration_sec: float = 2.0,
    fps: int = 30,
    width: int = 320,
    height: int = 240,
    crf: int = 23,
    strength: float = 0.5,
    reverse: bool = False,
) -> bytes:
    """An H.264 mp4 of that camera motion; the same arguments give the same frames.

    About one encoding in a hundred differs in a few bytes: x264 does not promise to repeat itself.

    `strength` in [0, 1] is the speed within the label's range; `reverse` plays the clip backwards, which turns
    "pan left" into "pan right". Raises ValueError for a label that is not one of LABELS.
    """
    frames = make_frames(
        label, seed=seed, duration_sec=duration_sec, fps=fps, width=width, height=height, strength=strength
    )
    return encode_h264(frames[::-1] if reverse else frames, fps=fps, crf=crf)


def make_frames(
    label: str,
    *,
    seed: int,
    duration_sec: float = 2.0,
    fps: int = 30,
    width: int = 320,
    height: int = 240,
    strength: float = 0.5,
) -> Frames:
    """The clip's frames before encoding, (T, height, width, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    path = sample_path(label, rng, duration_sec=duration_sec, strength=strength)
    textures = [Texture(make_texture(rng)) for _ in range(2)]
    scene = sample_scene(rng, textures, max_objects=2)
    times_sec = np.arange(max(1, round(duration_sec * fps))) / fps
    pictures = render(scene, path, times_sec, width=width, height=height)
    frames: Frames = np.clip(pictures + 0.5, 0, 255).astype(np.uint8)
    return frames


def sample_clip(path: Path) -> Path:
    """Write two seconds of `SAMPLE_LABEL` to `path` unless the file is there: whole, or not at all."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(make_clip(SAMPLE_LABEL, seed=7, strength=0.6))
        partial.replace(path)
    return path


def two_part_clip(*, seed: int = 7, strength: float = 0.6, width: int = 640, height: int = 360) -> bytes:
    """An mp4 of `PARTS` at 30 frames a second, `PART_SEC` seconds each: what the demo's pictures and tests show."""
    fps = 30
    parts = [
        make_frames(label, seed=seed, duration_sec=PART_SEC, fps=fps, width=width, height=height, strength=strength)
        for label in PARTS
    ]
    return encode_h264(np.concatenate(parts), fps=fps)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m camera_motion.sample_clips", description=__doc__)
    parser.add_argument("label", choices=LABELS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strength", type=float, default=0.5, help="speed within the label's range, 0 to 1")
    parser.add_argument("--reverse", action="store_true", help="play it backwards")
    parser.add_argument("--output", type=Path, required=True, help="the .mp4 file to write")
    arguments = parser.parse_args()
    clip = make_clip(arguments.label, seed=arguments.seed, strength=arguments.strength, reverse=arguments.reverse)
    arguments.output.write_bytes(clip)
    print(f"{arguments.output}: {arguments.label}, {len(clip)} bytes")


if __name__ == "__main__":
    main()
