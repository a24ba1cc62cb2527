"""Camera paths: where the virtual camera is at each instant, and which of the ten labels that motion has.

A pose is (x, y, log_zoom, roll): the point of the scene in the middle of the picture, in units of the picture's short
side at zoom 1 (x right, y down); the natural logarithm of the magnification; radians, positive when the camera turns
clockwise as its operator sees it. Directions follow the camera, so the picture's content moves the other way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LABELS: tuple[str, ...] = (
    "static",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "roll clockwise",
    "roll counter-clockwise",
    "shake",
)
"""Class id -> label; the order is the model's."""

REFERENCE_SEC = 1.6
"""Travel is stated per this many seconds: one clip of the x3d_xs recipe (4 frames x rate 12 / 30 per second)."""

SHAKE_HZ = (1.0, 5.0)
STATIC_DRIFT = 0.008  # short sides per clip: a tripod's settling is still static
STATIC_JITTER = 0.003  # root mean square, short sides
CROSS_TALK = 0.12  # an operator's pan also tilts a little: other components, as part of the wanted one


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """What paths are drawn from: travel per clip, and how even it is. Lowest and highest values."""

    pan: tuple[float, float]  # short sides; at 4 frames per clip, a third of it per step
    zoom: tuple[float, float]  # logarithm of the magnification
    roll: tuple[float, float]  # radians
    shake_step: tuple[float, float]  # mean distance between neighbouring picked frames, short sides
    shake_net: float  # a shake's net displacement is at most this part of the distance it covers
    jitter: float  # on top of a move: at most this part of its travel, root mean square
    ease: float  # at most; see CameraPath
    skew: float  # at most, and at least its inverse

    @property
    def by_axis(self) -> tuple[tuple[float, float], ...]:
        return (self.pan, self.pan, self.zoom, self.roll)


ORDINARY = Ranges(
    pan=(0.08, 0.75),
    zoom=(float(np.log(1.15)), float(np.log(2.3))),
    roll=(float(np.radians(6)), float(np.radians(60))),
    shake_step=(0.03, 0.10),
    shake_net=0.5,
    jitter=0.05,
    ease=0.8,
    skew=1.25,
)
"""Plain moves: what sample clips show, and the first training run saw."""
WIDE = Ranges(
    pan=(0.06, 0.95),
    zoom=(float(np.log(1.1)), float(np.log(2.5))),
    roll=(float(np.radians(4.5)), float(np.radians(66))),
    shake_step=(0.02, 0.13),
    shake_net=0.6,
    jitter=0.09,
    ease=1.0,
    skew=float(np.exp(0.55)),
)
"""From barely visible to as fast as four frames can show, less even: what the refinement sees."""

_AXIS = {"pan": 0, "tilt": 1, "zoom": 2, "roll": 3}
_SIGN = {"left": -1, "right": 1, "up": -1, "down": 1, "in": 1, "out": -1, "clockwise": 1, "counter-clockwise": -1}
# How much a unit of each component moves the picture at half a short side from its middle.
_EQUIVALENT = np.array([1.0, 1.0, 0.5, 0.5])


@dataclass(frozen=True, slots=True)
class CameraPath:
    """A path of `duration_sec` seconds: an eased travel plus jitter, a sum of sines (K frequencies)."""

    duration_sec: float
    travel: Floats  # (4,), whole path
    ease: float  # 0 constant speed, 1 smooth start and stop
    skew: float  # exponent of time: below 1 it starts fast, above 1 it ends fast
    amplitudes: Floats  # (K, 4)
    frequencies_hz: Floats  # (K,)
    phases: Floats  # (K, 4)
    trend: Floats  # (4,), per second, subtracted: what makes a shake end where it began

    def poses(self, times_sec: Floats) -> Floats:
        """(N, 4) poses at N instants."""
        part = np.clip(times_sec / self.duration_sec, 0.0, 1.0) ** self.skew
        eased = (1 - self.ease) * part + self.ease * part * part * (3 - 2 * part)
        waves = np.sin(2 * np.pi * times_sec[:, None, None] * self.frequencies_hz[:, None] + self.phases)
        jitter = (waves * self.amplitudes).sum(axis=1) - times_sec[:, None] * self.trend
        poses: Floats = eased[:, None] * self.travel + jitter
        return poses


def sample_path(
    label: str,
    rng: np.random.Generator,
    *,
    duration_sec: float = REFERENCE_SEC,
    strength: float | None = None,
    ranges: Ranges = ORDINARY,
) -> CameraPath:
    """A path with that label. `strength` in [0, 1] places the speed in the label's range (logarithmically)."""
    if label not in LABELS:
        raise ValueError(f"unknown camera motion {label!r}; known: {', '.join(LABELS)}")
    place = float(rng.uniform()) if strength is None else strength
    if label == "shake":
        return _shake(rng, duration_sec, _log_between(ranges.shake_step, place), ranges.shake_net)
    travel = np.zeros(4)
    if label == "static":
        angle = rng.uniform(0, 2 * np.pi)
        travel[:2] = STATIC_DRIFT * rng.uniform() * np.array([np.cos(angle), np.sin(angle)])
        travel[2:] = rng.uniform(-1, 1, 2) * STATIC_DRIFT
        jitter = STATIC_JITTER
    else:
        motion, direction = label.split(" ", 1)
        axis = _AXIS[motion]
        travel[axis] = _SIGN[direction] * _log_between(ranges.by_axis[axis], place)
        size = abs(travel[axis]) * _EQUIVALENT[axis]
        travel += np.where(np.arange(4) == axis, 0.0, rng.uniform(-1, 1, 4) * CROSS_TALK * size / _EQUIVALENT)
        jitter = min(2 * STATIC_JITTER, ranges.jitter * size)
    waves = _waves(rng, 4, (0.5, 6.0))
    amplitudes = waves.amplitudes * jitter * rng.uniform(0, 1) * np.array([1.0, 1.0, 0.5, 1.0])
    return CameraPath(
        duration_sec=duration_sec,
        travel=travel * duration_sec / REFERENCE_SEC,
        ease=float(rng.uniform(0, ranges.ease)),
        skew=_log_between((1 / ranges.skew, ranges.skew), float(rng.uniform())),
        amplitudes=amplitudes,
        frequencies_hz=waves.frequencies_hz,
        phases=waves.phases,
        trend=np.zeros(4),
    )


@dataclass(frozen=True, slots=True)
class _Waves:
    amplitudes: Floats
    frequencies_hz: Floats
    phases: Floats


def _waves(rng: np.random.Generator, count: int, band_hz: tuple[float, float]) -> _Waves:
    """`count` sines whose sum has a root mean square of about 1 on each axis."""
    weights = rng.uniform(0.3, 1.0, (count, 4))
    return _Waves(
        amplitudes=weights * np.sqrt(2.0 / (weights**2).sum(axis=0)),
        frequencies_hz=rng.uniform(*band_hz, count),
        phases=rng.uniform(0, 2 * np.pi, (count, 4)),
    )


def _shake(rng: np.random.Generator, duration_sec: float, step: float, net: float) -> CameraPath:
    """Jitter whose picked frames lie `step` apart on average and show no net direction, at any usual frame rate."""
    while True:
        waves = _waves(rng, 6, SHAKE_HZ)
        balance = np.array([rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.0), 0.05, 0.3])
        path = CameraPath(
            duration_sec=duration_sec,
            travel=np.zeros(4),
            ease=0.0,
            skew=1.0,
            amplitudes=waves.amplitudes * balance,
            frequencies_hz=waves.frequencies_hz,
            phases=waves.phases,
            trend=np.zeros(4),
        )
        times = np.arange(64, dtype=np.float64) * (duration_sec / 63)
        poses = path.poses(times)
        path = _with(path, trend=np.polyfit(times, poses, 1)[0], scale=1.0)
        distances = [_picked_steps(path, spacing) for spacing in (0.5, 0.515, 0.53)]
        mean = float(np.mean([np.abs(steps).mean() for steps in distances]))
        if all(abs(steps.sum()) <= net * np.abs(steps).sum() for steps in distances) and all(
            0.6 * mean <= np.abs(steps).mean() and np.abs(steps).min() >= 0.25 * mean for steps in distances
        ):
            return _with(path, trend=path.trend, scale=step / mean)


def _picked_steps(path: CameraPath, spacing_sec: float) -> NDArray[np.complex128]:
    """The three displacements between four frames `spacing_sec` apart, x + iy."""
    poses = path.poses(np.arange(4, dtype=np.float64) * spacing_sec)
    positions: NDArray[np.complex128] = poses[:, 0] + 1j * poses[:, 1]
    return np.diff(positions)


def _with(path: CameraPath, *, trend: Floats, scale: float) -> CameraPath:
    return CameraPath(
        duration_sec=path.duration_sec,
        travel=path.travel,
        ease=path.ease,
        skew=path.skew,
        amplitudes=path.amplitudes * scale,
        frequencies_hz=path.frequencies_hz,
        phases=path.phases,
        trend=trend * scale,
    )


def _log_between(bounds: tuple[float, float], place: float) -> float:
    low, high = bounds
    return float(low * (high / low) ** place)
