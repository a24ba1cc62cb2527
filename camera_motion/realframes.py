"""Still frames of real videos, for measuring alone: textures that training never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from camera_motion.render import DETAIL

LARGEST_SHORT_SIDE = 720  # larger frames are halved until they fit: the model sees 182 pixels
SMALLEST_SHORT_SIDE = 120
ALIKE = 6.0  # mean difference of 16 x 16 thumbnails, grey levels, below which two frames are the same scene


DRAWN = frozenset(
    (
        "dc_corrupted.mp4",
        "fp_in.mp4",
        "tc_av1_video.mkv",
        "tc_bt709_full_range.mp4",
        "tc_h264_10bits.mp4",
        "tc_h265_video.mp4",
        "xo_midroll-5s.mp4",
        "xo_sample_h265.ts",
    )
)
"""Videos of the corpus that show test cards, countdowns and titles: they are measured apart from camera pictures."""


@dataclass(frozen=True, slots=True)
class Still:
    """One decoded frame, (H, W, 3) uint8 RGB, and where it is from."""

    source: str
    picture: NDArray[np.uint8]

    @property
    def drawn(self) -> bool:
        return self.source in DRAWN


def read_stills(folder: Path, *, per_video: int) -> list[Still]:
    """`per_video` frames, spread over the first ten seconds, of each readable video in the folder.

    Left out: frames that are too small, blank ones, and those that look like one taken before (the same recording in
    another container, or a scene in which little moves).
    """
    stills: list[Still] = []
    thumbnails: list[NDArray[np.float32]] = []
    for path in sorted(folder.iterdir()):
        frames = _readable_frames(path)
        for index in np.unique(np.linspace(0, len(frames) - 1, per_video + 2).astype(int)[1:-1]) if frames else ():
            picture = _fit(frames[index].to_ndarray(format="rgb24"))
            if min(picture.shape[:2]) < SMALLEST_SHORT_SIDE or detail(picture) < DETAIL:
                continue
            thumbnail = _thumbnail(picture)
            if all(np.abs(thumbnail - other).mean() > ALIKE for other in thumbnails):
                thumbnails.append(thumbnail)
                stills.append(Still(path.name, picture))
    return stills


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """16 x 16 block means in grey."""
    height, width = picture.shape[0] // 16, picture.shape[1] // 16
    blocks = picture[: 16 * height, : 16 * width].reshape(16, height, 16, width, 3)
    return np.asarray(blocks.mean(axis=(1, 3, 4)), np.float32)


def _readable_frames(path: Path) -> list[av.VideoFrame]:
    """Every fifth frame of the first ten seconds; none where the file is no video or is damaged from the start."""
    frames: list[av.VideoFrame] = []
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % 5 == 0:
                    frames.append(frame)
                if number > 300 or len(frames) * frame.width * frame.height > 60_000_000:
                    break
    except (FFmpegError, OSError, ValueError, IndexError):
        pass  # what was decoded before the damage is as good as any frame
    return frames


def _fit(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    while min(picture.shape[:2]) > LARGEST_SHORT_SIDE:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        blocks = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
        picture = blocks.mean(axis=(1, 3)).astype(np.uint8)
    return picture


def detail(picture: NDArray[np.uint8]) -> float:
    """As a scene's: mean difference to itself moved by a sixteenth of the short side, the lesser of both axes."""
    step = min(picture.shape[:2]) // 16
    levels = picture.astype(np.float32)
    down = np.abs(levels[step:] - levels[:-step]).mean()
    right = np.abs(levels[:, step:] - levels[:, :-step]).mean()
    return float(min(down, right))
