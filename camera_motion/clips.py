"""Labelled model inputs: rendered straight at the model's size, or encoded as H.264, decoded and preprocessed."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from camera_motion.motion import LABELS, ORDINARY, REFERENCE_SEC, WIDE, CameraPath, Floats, Ranges, sample_path
from camera_motion.render import Frames, Texture, encode, render, sample_scene
from camera_motion.scenes import make_texture
from handlers.specs import ModelSpec, get_spec
from handlers.video.transforms import FrameTransform, subsample_indices, with_alpha

T = TypeVar("T")
ModelInput = NDArray[np.float32]  # (3, T, S, S), normalised

PIXEL_BUDGET = 2_400_000
"""Pixels of one encoded clip, all frames together: what bounds the time it takes to make one."""

TEXTURE_EVERY = 200
"""Examples per new texture, which costs as much as fifty small clips."""

_PRESETS = ("ultrafast", "superfast", "veryfast")
_X265 = "log-level=none:pools=none:frame-threads=1"  # one thread, as the other encoders

_REVERSED = {
    "pan left": "pan right",
    "tilt up": "tilt down",
    "zoom in": "zoom out",
    "roll clockwise": "roll counter-clockwise",
}
_MIRRORED = {"pan left": "pan right", "roll clockwise": "roll counter-clockwise"}
_TRANSPOSED = {"pan left": "tilt up", "pan right": "tilt down", "roll clockwise": "roll counter-clockwise"}


def _permutation(pairs: dict[str, str]) -> tuple[int, ...]:
    both = pairs | {second: first for first, second in pairs.items()}
    return tuple(LABELS.index(both.get(label, label)) for label in LABELS)


REVERSED = _permutation(_REVERSED)
"""Class id -> class id of the clip played backwards."""
MIRRORED = _permutation(_MIRRORED)
"""Class id -> class id of the clip seen in a mirror (left and right swapped)."""
TRANSPOSED = _permutation(_TRANSPOSED)
"""Class id -> class id of the clip with rows and columns swapped."""


STEP_UNITS = np.array([0.1, 0.1, 0.15, 0.15], np.float32)
"""Typical steps between picked frames (x, y, log_zoom, roll): `Example.steps` is in these units."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled clip as the picked frames, (T, S, S, 3) uint8, and the camera's steps between them, (T - 1, 4)."""

    frames: Frames
    label: int
    steps: NDArray[np.float32]

    def reversed(self) -> Example:
        return Example(self.frames[::-1], REVERSED[self.label], -self.steps[::-1])

    def mirrored(self) -> Example:
        return Example(self.frames[:, :, ::-1], MIRRORED[self.label], self.steps * np.array([-1, 1, 1, -1], np.float32))

    def transposed(self) -> Example:
        steps = self.steps[:, [1, 0, 2, 3]] * np.array([1, 1, 1, -1], np.float32)
        return Example(self.frames.transpose(0, 2, 1, 3), TRANSPOSED[self.label], steps)


def camera_steps(path: CameraPath, times_sec: Floats) -> NDArray[np.float32]:
    """(T - 1, 4) changes of pose between T instants, in STEP_UNITS."""
    return np.diff(path.poses(times_sec), axis=0).astype(np.float32) / STEP_UNITS


def sized_spec(size: int) -> ModelSpec:
    """The x3d_xs recipe at another picture size."""
    return replace(get_spec("x3d_xs"), short_side=size, crop_size=size)


def to_input(frames: Frames, spec: ModelSpec) -> ModelInput:
    """(T, S, S, 3) uint8 -> (3, T, S, S) float32, normalised as the spec says."""
    normalised = (frames.astype(np.float32) / 255 - spec.mean) / spec.std
    return np.ascontiguousarray(normalised.transpose(3, 0, 1, 2), np.float32)


def picked_indices(fps: float, spec: ModelSpec, available: int | None = None) -> NDArray[np.int64]:
    """Which frames of a clip that starts at 0 the recipe picks."""
    inside = int(np.ceil(spec.clip_duration_sec * fps - 1e-9))
    return subsample_indices(inside if available is None else min(inside, available), spec.num_frames)


def direct_example(
    rng: np.random.Generator,
    textures: list[Texture],
    label: int,
    spec: ModelSpec,
    *,
    difficulty: float = 1.0,
    wide: bool = False,
) -> Example:
    """Rendered at the model's size, without a codec: cheap, for most of training.

    Below difficulty 1 the motions are slow, and fewer things distract from them.
    """
    path = sample_path(LABELS[label], rng, strength=float(rng.uniform(0, 0.4 + 0.6 * difficulty)), ranges=_ranges(wide))
    scene = sample_scene(rng, textures, max_objects=round(3 * difficulty))
    fps = float(rng.choice([10, 12, 15, 24, 25, 30, 50, 60]))
    times_sec = picked_indices(fps, spec) / fps
    shutter = 0.5 / fps if rng.uniform() < 0.12 else 0.0
    size = spec.crop_size
    pictures = render(scene, path, times_sec, width=size, height=size, shutter_sec=shutter)
    steps = camera_steps(path, times_sec)
    if rng.uniform() > difficulty:
        return Example(np.clip(pictures + 0.5, 0, 255).astype(np.uint8), label, steps)
    return Example(degrade(rng, pictures), label, steps)


@dataclass(frozen=True, slots=True)
class Recording:
    """A clip as an mp4, and the path of the camera that took it."""

    video: bytes
    path: CameraPath


def _record(
    rng: np.random.Generator, textures: list[Texture], label: int, wide: bool
) -> tuple[Frames, int, CameraPath]:
    """All frames of a clip as a camera would take it, its frames per second, its path; size, shape and rate vary."""
    path = sample_path(LABELS[label], rng, ranges=_ranges(wide))
    scene = sample_scene(rng, textures)
    fps = int(rng.choice([10, 12, 15, 24, 25, 30, 30, 50, 60]))
    count = int(np.ceil(REFERENCE_SEC * fps))
    aspect = float(rng.choice([1.0, 4 / 3, 4 / 3, 16 / 9, 16 / 9]))
    largest = min(360.0, (PIXEL_BUDGET / count / aspect) ** 0.5)
    short = 2 * int(rng.uniform(max(96.0, 0.55 * largest), largest) / 2)
    width, height = 2 * round(short * aspect / 2), short
    if rng.uniform() < 0.3:
        width, height = height, width
    times_sec = np.arange(count) / fps
    shutter = rng.uniform(0.3, 0.9) / fps if rng.uniform() < 0.15 else 0.0
    pictures = render(scene, path, times_sec, width=width, height=height, shutter_sec=shutter)
    return degrade(rng, pictures), fps, path


def decode(video: bytes) -> tuple[Frames, float]:
    """Every frame, RGB, and the frames per second."""
    with av.open(io.BytesIO(video), "r") as container:
        rate = container.streams.video[0].average_rate
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if rate is None:
        raise ValueError("the video states no frame rate")
    return np.stack(pictures).astype(np.uint8, copy=False), float(rate)


def preprocess(frames: Frames, fps: float, spec: ModelSpec) -> NDArray[np.float32]:
    """The served preprocessing of a whole clip: picked, resized, cropped, normalised; (3, T, S, S)."""
    picked = frames[picked_indices(fps, spec, len(frames))]
    transform = FrameTransform(spec, height=frames.shape[1], width=frames.shape[2])
    out = np.empty((1, 3, spec.num_frames, spec.crop_size, spec.crop_size), np.float32)
    for position, frame in enumerate(picked):
        transform.apply(with_alpha(frame), out[:, :, position])
    tensor: NDArray[np.float32] = out[0]
    return tensor


def encoded_video(rng: np.random.Generator, textures: list[Texture], label: int, *, wide: bool = False) -> Recording:
    """A degraded clip of random size, shape, rate and quality. Where it is `wide`: any speed, any of three encoders."""
    frames, fps, path = _record(rng, textures, label, wide)
    return Recording(encode(frames, *(_encoder(rng) if wide else _h264(rng, _PRESETS)), fps=fps), path)


def _encoder(rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """FFmpeg's encoder and its options: H.264 more often than not, else MPEG-4 or H.265."""
    kind = rng.uniform()
    if kind < 0.2:
        quality = str(int(rng.integers(3, 13)))
        return "mpeg4", {"qmin": quality, "qmax": quality}
    if kind < 0.3:
        return "libx265", {"preset": "ultrafast", "crf": str(int(rng.integers(20, 34))), "x265-params": _X265}
    return _h264(rng, (*_PRESETS, "faster"))


def _h264(rng: np.random.Generator, presets: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    preset = str(rng.choice(presets))
    return "libx264", {"preset": preset, "crf": str(int(rng.integers(18, 37)))}


def _ranges(wide: bool) -> Ranges:
    return WIDE if wide else ORDINARY


def encoded_example(
    rng: np.random.Generator, textures: list[Texture], label: int, spec: ModelSpec, *, wide: bool = False
) -> Example:
    """Through an encoder and the package's own resize and crop."""
    recording = encoded_video(rng, textures, label, wide=wide)
    frames, fps = decode(recording.video)
    tensor = preprocess(frames, fps, spec) * spec.std[0] + spec.mean[0]
    picked = np.clip(tensor.transpose(1, 2, 3, 0) * 255 + 0.5, 0, 255).astype(np.uint8)
    times_sec = picked_indices(fps, spec, len(frames)) / fps
    return Example(picked, label, camera_steps(recording.path, times_sec))


def symmetric(rng: np.random.Generator, example: Example) -> Example:
    """One of the 16 reversals, mirrorings and transpositions of a clip, with the label that it then has."""
    reverse, mirror, transpose, mirror_again = rng.integers(0, 2, 4)
    example = example.reversed() if reverse else example
    example = example.mirrored() if mirror else example
    example = example.transposed() if transpose else example
    return example.mirrored() if mirror_again else example


def degrade(rng: np.random.Generator, pictures: NDArray[np.float32]) -> Frames:
    """Light, lens and sensor: brightness, contrast, fades, vignette, bars, softness, noise. (T, H, W, 3) in and out."""
    count, height, width = pictures.shape[:3]
    mean = pictures.mean()
    pictures = (pictures - mean) * rng.uniform(0.65, 1.2) + mean + rng.uniform(-35, 35)
    if rng.uniform() < 0.1:
        pictures = np.repeat(pictures.mean(axis=3, keepdims=True), 3, axis=3)
    if rng.uniform() < 0.15:
        pictures = _soften(pictures)
    if rng.uniform() < 0.3:
        fade = np.linspace(0, rng.uniform(-0.2, 0.2), count) + rng.normal(0, 0.015, count)
        pictures = pictures * (1 + fade).astype(np.float32)[:, None, None, None]
    if rng.uniform() < 0.15:
        y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
        pictures = pictures * (1 - rng.uniform(0.1, 0.5) * (x * x + y * y) / 2).astype(np.float32)[..., None]
    if rng.uniform() < 0.06:
        _cover(rng, pictures)
    if rng.uniform() < 0.7:
        noise = rng.standard_normal(pictures.shape, dtype=np.float32)
        pictures = pictures + noise * np.float32(rng.uniform(0.5, 7))
    frames: Frames = np.clip(pictures + 0.5, 0, 255).astype(np.uint8)
    return frames


def _soften(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis in (1, 2):
        neighbours = np.roll(pictures, 1, axis) + np.roll(pictures, -1, axis)
        pictures = np.asarray((2 * pictures + neighbours) / 4, np.float32)
    return pictures


def _cover(rng: np.random.Generator, pictures: NDArray[np.float32]) -> None:
    """Black bars, or a small mark, that stay where they are while the camera moves."""
    height, width = pictures.shape[1:3]
    if rng.uniform() < 0.5:
        bar = int(height * rng.uniform(0.03, 0.12))
        pictures[:, :bar] = pictures[:, height - bar :] = 0
    else:
        top, left = int(height * rng.uniform(0, 0.85)), int(width * rng.uniform(0, 0.75))
        pictures[:, top : top + height // 10, left : left + width // 5] = rng.uniform(0, 255, 3)


class ExampleSource:
    """An endless, seeded stream of examples; textures are replaced as it goes, encoded clips are used several times."""

    def __init__(
        self,
        seed: int | list[int],
        spec: ModelSpec,
        *,
        encoded_share: float,
        encode_every: int,
        textures: int,
        ease_in: int = 0,
        made: int = 0,
        wide: bool = False,
    ) -> None:
        """The first `ease_in` examples are easy, from half of them on ever less; `made` of them were made before.

        `wide`: see `encoded_video`.
        """
        self._rng = np.random.default_rng(seed)
        self._spec = spec
        self._encoded_share, self._encode_every, self._ease_in = encoded_share, encode_every, ease_in
        self._textures = [Texture(make_texture(self._rng)) for _ in range(textures)]
        self._encoded: list[Example] = []
        self._made, self._wide = made, wide

    def next(self) -> Example:
        """A fresh rendered clip or one of the encoded ones, in a random symmetry."""
        rng = self._rng
        self._made += 1
        if self._made % TEXTURE_EVERY == 0:
            self._remember(self._textures, Texture(make_texture(rng)), 240)
        if self._encoded_share and (not self._encoded or self._made % self._encode_every == 0):
            fresh = encoded_example(rng, self._textures, int(rng.integers(len(LABELS))), self._spec, wide=self._wide)
            self._remember(self._encoded, fresh, 400)
        difficulty = min(1.0, max(0.0, 2 * self._made / self._ease_in - 1)) if self._ease_in else 1.0
        if rng.uniform() < self._encoded_share * difficulty:
            return symmetric(rng, self._encoded[int(rng.integers(len(self._encoded)))])
        label = int(rng.integers(len(LABELS)))
        rendered = direct_example(rng, self._textures, label, self._spec, difficulty=difficulty, wide=self._wide)
        return symmetric(rng, rendered)

    def _remember(self, kept: list[T], item: T, limit: int) -> None:
        if len(kept) < limit:
            kept.append(item)
        else:
            kept[int(self._rng.integers(limit))] = item
