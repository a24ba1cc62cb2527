"""Clips made by moving a virtual camera over still frames of real videos: textures that training never saw.

The window's path is drawn as in training, then placed and scaled so that it never leaves the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from torch.utils.data import Dataset

from camera_motion.motion import LABELS, REFERENCE_SEC, CameraPath, Floats, sample_path
from camera_motion.render import DETAIL, Frames, encode_h264

LARGEST_SHORT_SIDE = 720  # larger frames are halved until they fit: the model sees 182 pixels
SMALLEST_SHORT_SIDE = 120
SMALLEST_WINDOW = 72  # short side of the window in frame pixels, where the camera is closest
FPS = 30
ALIKE = 6.0  # mean difference of 16 x 16 thumbnails, grey levels, below which two frames are the same scene


@dataclass(frozen=True, slots=True)
class Still:
    """One decoded frame, (H, W, 3) uint8 RGB, and where it is from."""

    source: str
    picture: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Placement:
    """Frame pixels per short side of the window, and the frame position of pose 0."""

    pixels: float
    x: float
    y: float


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
            if min(picture.shape[:2]) < SMALLEST_SHORT_SIDE or _detail(picture) < DETAIL:
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


def _detail(picture: NDArray[np.uint8]) -> float:
    """As a scene's: mean difference to itself moved by a sixteenth of the short side, the lesser of both axes."""
    step = min(picture.shape[:2]) // 16
    levels = picture.astype(np.float32)
    down = np.abs(levels[step:] - levels[:-step]).mean()
    right = np.abs(levels[:, step:] - levels[:, :-step]).mean()
    return float(min(down, right))


def moving_window(still: Still, label: str, rng: np.random.Generator) -> Frames:
    """A clip of that motion over the frame, (T, H, W, 3) uint8; half of the windows are portrait or square.

    Windows on a blank part of the frame, where no motion can be seen, are drawn again; after 200 tries anything goes.
    """
    height, width = still.picture.shape[:2]
    aspect = float(rng.choice([4 / 3, 16 / 9, 1.0, 3 / 4]))
    for attempt in range(10_000):
        path = sample_path(label, rng)
        placement = _place(path, aspect, width, height, rng)
        if placement is None:
            continue
        ends = _film(still.picture, path, placement, aspect, times_sec=np.array([0.0, REFERENCE_SEC]))
        if attempt >= 200 or min(_detail(picture) for picture in ends) >= DETAIL:
            return _film(still.picture, path, placement, aspect, times_sec=np.arange(int(REFERENCE_SEC * FPS)) / FPS)
    raise ValueError(f"no window of {label} fits into a frame of {width}x{height} ({still.source})")


def _place(path: CameraPath, aspect: float, width: int, height: int, rng: np.random.Generator) -> _Placement | None:
    """The window as large as fits, less a random margin, somewhere inside; None where it would be too small."""
    half_x, half_y = max(aspect, 1.0) / 2, max(1 / aspect, 1.0) / 2
    poses = path.poses(np.linspace(0, path.duration_sec, 33))
    scale = np.exp(-poses[:, 2])
    reach_x = scale * (np.abs(np.cos(poses[:, 3])) * half_x + np.abs(np.sin(poses[:, 3])) * half_y)
    reach_y = scale * (np.abs(np.sin(poses[:, 3])) * half_x + np.abs(np.cos(poses[:, 3])) * half_y)
    left, right = (poses[:, 0] - reach_x).min(), (poses[:, 0] + reach_x).max()
    top, bottom = (poses[:, 1] - reach_y).min(), (poses[:, 1] + reach_y).max()
    pixels = min((width - 2) / (right - left), (height - 2) / (bottom - top)) * rng.uniform(0.7, 1.0)
    if pixels * scale.min() < min(SMALLEST_WINDOW, 0.35 * min(width, height)):
        return None
    x = -left * pixels + rng.uniform(0, width - 1 - (right - left) * pixels)
    y = -top * pixels + rng.uniform(0, height - 1 - (bottom - top) * pixels)
    return _Placement(float(pixels), float(x), float(y))


def _film(
    picture: NDArray[np.uint8], path: CameraPath, placement: _Placement, aspect: float, *, times_sec: Floats
) -> Frames:
    """Sample the frame along the path; the clip is about as large as its window, within 128 to 256 pixels."""
    short = 2 * round(float(np.clip(placement.pixels, 128, 256)) / 2)
    width = 2 * round(short * max(aspect, 1.0) / 2)
    height = 2 * round(short * max(1 / aspect, 1.0) / 2)
    across = np.tile((np.arange(width) + 0.5 - width / 2) / short, height).astype(np.float32)
    along = np.repeat((np.arange(height) + 0.5 - height / 2) / short, width).astype(np.float32)
    frames = []
    for x, y, log_zoom, roll in path.poses(times_sec):
        scale = placement.pixels * np.exp(-log_zoom)
        cosine, sine = np.float32(np.cos(roll) * scale), np.float32(np.sin(roll) * scale)
        frames.append(
            _bilinear(
                picture,
                cosine * across - sine * along + np.float32(placement.x + x * placement.pixels),
                sine * across + cosine * along + np.float32(placement.y + y * placement.pixels),
            ).reshape(height, width, 3)
        )
    return np.stack(frames)


def _bilinear(picture: NDArray[np.uint8], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, 3) at N points; points are inside the frame."""
    height, width = picture.shape[:2]
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    right, low = (x - column)[:, None], (y - row)[:, None]
    flat = picture.reshape(-1, 3)
    first = row * width + column
    upper = flat[first] * (1 - right) + flat[first + 1] * right
    lower = flat[first + width] * (1 - right) + flat[first + width + 1] * right
    mixed: NDArray[np.uint8] = (upper * (1 - low) + lower * low + 0.5).astype(np.uint8)
    return mixed


@dataclass(frozen=True, slots=True)
class RealFrameClips(Dataset[list[tuple[bytes, int]]]):
    """One part per still: every label `per_still` times over it, as (mp4, class id)."""

    stills: list[Still]
    per_still: int
    seed: int

    def __len__(self) -> int:
        return len(self.stills)

    def __getitem__(self, part: int) -> list[tuple[bytes, int]]:
        still = self.stills[part]
        rng = np.random.default_rng([self.seed, part])
        clips = []
        for _ in range(self.per_still):
            for label_id, label in enumerate(LABELS):
                frames = moving_window(still, label, rng)
                clips.append((encode_h264(frames, fps=FPS, crf=int(rng.integers(20, 31))), label_id))
        return clips
