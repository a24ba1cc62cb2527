"""An independent measurement: a virtual camera over still frames of real videos, sharing no motion code with training.

The paths, the sampling of pictures (Pillow's bicubic), the sizes, frame rates and encoders are this module's own; only
the names of the labels are shared. Every clip has a speed band, so that accuracy can be stated per speed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from camera_motion.motion import LABELS
from camera_motion.realframes import Still, detail

BANDS = ("barely visible", "slow", "medium", "fast")

TRAVEL_SEC = 1.6
"""The speeds below are travels within this time, the model's clip; the camera goes on at its last speed after it."""

EDGES: dict[str, tuple[float, ...]] = {
    "pan": (0.05, 0.1, 0.22, 0.48, 0.9),  # short sides of the picture
    "tilt": (0.05, 0.1, 0.22, 0.48, 0.9),
    "zoom": (1.08, 1.15, 1.35, 1.75, 2.4),  # times
    "roll": (4.0, 8.0, 18.0, 36.0, 65.0),  # degrees
    "static": (0.0, 0.001, 0.002, 0.004, 0.006),  # drift, short sides
    "shake": (0.012, 0.02, 0.03, 0.045, 0.065),  # root mean square displacement per axis, short sides
}
"""The five bounds of the four bands of each motion."""

SHAPES = ((320, 240), (240, 320), (426, 240), (256, 256), (480, 270), (176, 144), (360, 640), (272, 224))
"""Widths and heights of the clips."""

RATES = (Fraction(12), Fraction(15), Fraction(24000, 1001), Fraction(25), Fraction(30), Fraction(50), Fraction(60))

ENCODERS: tuple[tuple[str, str, tuple[dict[str, str], ...]], ...] = (
    ("libx264", "mp4", tuple({"preset": "medium", "crf": crf} for crf in ("19", "25", "31"))),
    ("libx264", "matroska", tuple({"preset": "faster", "tune": "zerolatency", "crf": crf} for crf in ("22", "28"))),
    (
        "libx265",
        "mp4",
        tuple({"preset": "ultrafast", "x265-params": "log-level=none", "crf": crf} for crf in ("24", "30")),
    ),
    ("mpeg4", "avi", ({"qmin": "4", "qmax": "4"}, {"qmin": "9", "qmax": "9"})),
    ("libvpx", "webm", ({"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "900k"},)),
)
"""Codec, container and the options of which one is drawn."""

LEAST_DETAIL = 4.0
"""Grey levels, as `detail` measures it: what a window shows at its start and at its end."""

_EASINGS: tuple[Callable[[float], float], ...] = (
    lambda part: part,
    lambda part: (1 - math.cos(math.pi * part)) / 2,
    lambda part: part**1.7,
    lambda part: 1 - (1 - part) ** 1.7,
)
_DIRECTIONS: dict[str, tuple[int, int]] = {  # the component of a _Pose that moves, and its sign
    "pan left": (0, -1),
    "pan right": (0, 1),
    "tilt up": (1, -1),
    "tilt down": (1, 1),
    "zoom in": (2, 1),
    "zoom out": (2, -1),
    "roll clockwise": (3, 1),
    "roll counter-clockwise": (3, -1),
}

Poses = NDArray[np.float64]
"""(T, 4): x (right) and y (down) of the window's middle, short sides; log of the magnification; radians clockwise."""


def amount(label: str, band: int, rng: np.random.Generator) -> float:
    """How far that motion goes within TRAVEL_SEC, drawn from the band, in the units of EDGES."""
    low, high = EDGES[label.split(" ")[0]][band : band + 2]
    return float(rng.uniform(low, high))


def poses(label: str, size: float, times_sec: NDArray[np.float64], rng: np.random.Generator) -> Poses:
    """Where the camera is at each instant; `size` as `amount` gives it.

    Moves carry the unsteadiness of a hand: up to a twelfth of their size and half a percent of the short side. A shake
    is nothing but unsteadiness: new places two to seven times a second, around a point that stays.
    """
    found = np.zeros((len(times_sec), 4))
    if label == "static":
        angle = rng.uniform(0, 2 * np.pi)
        found[:, :2] = np.outer(times_sec / TRAVEL_SEC, size * np.array([np.cos(angle), np.sin(angle)]))
        return found
    if label == "shake":
        for axis, share in enumerate((1.0, rng.uniform(0.6, 1.0), 0.15, 0.4)):
            found[:, axis] = size * share * _wander(times_sec, float(rng.uniform(2, 7)), rng)
        return found
    axis, sign = _DIRECTIONS[label]
    wanted = (size, size, math.log(size) if axis == 2 else 0.0, math.radians(size))[axis]
    easing = _EASINGS[int(rng.integers(len(_EASINGS)))]
    reach = [easing(min(part, 1.0)) + max(0.0, part - 1) * 0.5 for part in times_sec / TRAVEL_SEC]
    found[:, axis] = sign * wanted * np.array(reach)
    visible = abs(wanted) * (1.0 if axis < 2 else 0.5)
    hand = rng.uniform(0, 1) * min(visible / 12, 0.005)
    for other, share in enumerate((1.0, 1.0, 0.3, 0.5)):
        found[:, other] += hand * share * _wander(times_sec, float(rng.uniform(1, 4)), rng)
    found[:, 1 - axis if axis < 2 else int(rng.integers(2))] += (
        rng.uniform(-0.08, 0.08) * visible * times_sec / TRAVEL_SEC
    )
    return found


def _wander(times_sec: NDArray[np.float64], places_per_sec: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smoothly from one random place to the next; mean 0, root mean square 1."""
    knots = rng.standard_normal(int(times_sec[-1] * places_per_sec) + 4)
    at = times_sec * places_per_sec + rng.uniform()
    before = at.astype(int)
    part = at - before
    part = part * part * (3 - 2 * part)
    path = knots[before] * (1 - part) + knots[before + 1] * part
    path = path - path.mean()
    return np.asarray(path / max(float(np.sqrt((path**2).mean())), 1e-6))


LabelledClip = tuple[bytes, int, int]
"""(video, class id, speed band)."""


def shoot(still: Still, label: str, band: int, rng: np.random.Generator) -> LabelledClip:
    """A clip of that motion over the frame; windows small and large, anywhere in it, that show something.

    Raises ValueError where no window of 500 tries stays inside the frame and shows something.
    """
    picture = Image.fromarray(still.picture)
    rate = RATES[int(rng.integers(len(RATES)))]
    times_sec = np.arange(int(rng.uniform(1.7, 2.2) * rate)) / float(rate)
    for _ in range(500):
        width, height = SHAPES[int(rng.integers(len(SHAPES)))]
        path = poses(label, amount(label, band, rng), times_sec, rng)
        window = _window(picture, path, (width, height), rng)
        if window is None:
            continue
        ends = (0, min(len(path) - 1, int(TRAVEL_SEC * rate)))
        if (
            min(detail(frame_at(picture, path[end], window.middle, window.pixels, (width, height))) for end in ends)
            < LEAST_DETAIL
        ):
            continue
        frames = [frame_at(picture, pose, window.middle, window.pixels, (width, height)) for pose in path]
        grain = rng.uniform(0, 3)
        noisy = [np.clip(frame + rng.normal(0, grain, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
        return _encode(noisy, rate, rng), LABELS.index(label), band
    raise ValueError(f"no window of {label} fits into {still.source} ({picture.width}x{picture.height})")


@dataclass(frozen=True, slots=True)
class _Window:
    """Where pose 0 lies in the frame, and the pixels of the frame per short side of the window there."""

    middle: tuple[float, float]
    pixels: float


def _window(picture: Image.Image, path: Poses, shape: tuple[int, int], rng: np.random.Generator) -> _Window | None:
    """Between a fifth and all of the frame's short side, wherever all four corners stay inside; None where nowhere."""
    pixels = min(picture.size) * rng.uniform(0.2, 1.0)
    closest = pixels * math.exp(-float(path[:, 2].max()))
    if closest < 64:
        return None
    short = min(shape)
    corners = np.array([[a * shape[0], b * shape[1]] for a in (-0.5, 0.5) for b in (-0.5, 0.5)]) / short * pixels
    turn = np.exp(-path[:, 2] + 1j * path[:, 3])[:, None] * (corners[:, 0] + 1j * corners[:, 1])
    x, y = turn.real + path[:, :1] * pixels, turn.imag + path[:, 1:2] * pixels
    free_x, free_y = picture.width - 2 - (x.max() - x.min()), picture.height - 2 - (y.max() - y.min())
    if free_x < 0 or free_y < 0:
        return None
    middle = float(1 - x.min() + rng.uniform(0, free_x)), float(1 - y.min() + rng.uniform(0, free_y))
    return _Window(middle, float(pixels))


def frame_at(
    picture: Image.Image, pose: NDArray[np.float64], middle: tuple[float, float], pixels: float, shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """(H, W, 3): what the camera shows, in a clip of `shape` (width, height).

    `middle` is where pose 0 looks in the frame, `pixels` how many of the frame's lie along the window's short side
    there. A window that would be scaled down by two or more is averaged first.
    """
    scale = pixels / min(shape) * math.exp(-float(pose[2]))
    halved = max(1, int(scale))
    small = picture.reduce(halved) if halved > 1 else picture
    turn = scale / halved * complex(math.cos(pose[3]), math.sin(pose[3]))
    x, y = (middle[0] + pose[0] * pixels) / halved, (middle[1] + pose[1] * pixels) / halved
    half_x, half_y = shape[0] / 2, shape[1] / 2
    coefficients = (
        turn.real, -turn.imag, x - turn.real * half_x + turn.imag * half_y,
        turn.imag, turn.real, y - turn.imag * half_x - turn.real * half_y,
    )  # fmt: skip
    seen = small.transform(shape, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BICUBIC)
    return np.asarray(seen)


def _encode(frames: list[NDArray[np.uint8]], rate: Fraction, rng: np.random.Generator) -> bytes:
    codec, container_format, choices = ENCODERS[int(rng.integers(len(ENCODERS)))]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = dict(choices[int(rng.integers(len(choices)))])
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class VirtualCameraClips(Dataset[list[LabelledClip]]):
    """One part per still: every label once, in bands that take turns, so that all are as frequent."""

    stills: list[Still]
    seed: int

    def __len__(self) -> int:
        return len(self.stills)

    def __getitem__(self, part: int) -> list[LabelledClip]:
        rng = np.random.default_rng([self.seed, 0xCA3E, part])
        still = self.stills[part]
        shots = []
        for label_id, label in enumerate(LABELS):
            try:
                shots.append(shoot(still, label, (part + label_id) % len(BANDS), rng))
            except ValueError:
                continue  # a frame too plain or too small for that motion: the counts in the report show it
        return shots
