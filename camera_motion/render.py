"""Scene + camera path -> frames -> H.264. Numpy and av alone, so that a sample clip needs no torch."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from fractions import Fraction

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from camera_motion.motion import CameraPath, Floats
from camera_motion.scenes import SIZE

Frames = NDArray[np.uint8]  # (T, H, W, 3)


class Texture:
    """A wrapped picture with two smaller copies, packed for fast look-up: one 32-bit word per texel."""

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        if picture.shape != (SIZE, SIZE, 3) or picture.dtype != np.uint8:
            raise ValueError(f"a texture is ({SIZE}, {SIZE}, 3) uint8, got {picture.shape} {picture.dtype}")
        levels: list[NDArray[np.uint8]] = [picture]
        while len(levels) < 3:
            side = levels[-1].shape[0] // 2
            levels.append(levels[-1].reshape(side, 2, side, 2, 3).mean(axis=(1, 3)).astype(np.uint8))
        self._levels = [_pack(level) for level in levels]

    def look_up(self, x: NDArray[np.float32], y: NDArray[np.float32], *, step: float) -> NDArray[np.float32]:
        """Bilinear RGB, (N, 3), [0, 255], at N points in texels of the full level; `step` texels lie between pixels."""
        level = int(np.clip(np.log2(max(step, 1e-3)) + 0.3, 0, len(self._levels) - 1))
        words, side = self._levels[level], SIZE >> level
        x, y = x * np.float32(2.0**-level) - np.float32(0.5), y * np.float32(2.0**-level) - np.float32(0.5)
        left, top = np.floor(x), np.floor(y)
        right_part, low_part = (x - left)[:, None], (y - top)[:, None]
        mask = side - 1
        column, row = left.astype(np.int32), top.astype(np.int32)
        column_next, row_next = (column + 1) & mask, ((row + 1) & mask) * side
        column, row = column & mask, (row & mask) * side
        upper = _mix(words[row + column], words[row + column_next], right_part)
        lower = _mix(words[row_next + column], words[row_next + column_next], right_part)
        mixed: NDArray[np.float32] = upper + (lower - upper) * low_part
        return mixed[:, :3]


def _pack(picture: NDArray[np.uint8]) -> NDArray[np.uint32]:
    padded = np.zeros((*picture.shape[:2], 4), np.uint8)
    padded[..., :3] = picture
    return padded.view(np.uint32).ravel()


def _mix(a: NDArray[np.uint32], b: NDArray[np.uint32], part: NDArray[np.float32]) -> NDArray[np.float32]:
    first = a.view(np.uint8).reshape(-1, 4).astype(np.float32)
    second = b.view(np.uint8).reshape(-1, 4).astype(np.float32)
    mixed: NDArray[np.float32] = first + (second - first) * part
    return mixed


@dataclass(frozen=True, slots=True)
class MovingObject:
    """A textured superellipse that crosses the scene by itself: not the camera's motion. Short sides, seconds."""

    texture: Texture
    position: Floats  # (2,) at time 0
    velocity: Floats  # (2,) per second
    radii: Floats  # (2,)
    power: float  # 2 an ellipse, more a box
    wobble: Floats  # (2,) amplitude
    wobble_hz: float
    offset: Floats  # (2,), texels

    def centre(self, time_sec: float) -> Floats:
        swing = self.wobble * np.sin(2 * np.pi * self.wobble_hz * time_sec)
        centre: Floats = self.position + self.velocity * time_sec + swing
        return centre


@dataclass(frozen=True, slots=True)
class Scene:
    """What the camera looks at; `texels` of the texture fill the picture's short side at zoom 1."""

    texture: Texture
    texels: float
    origin: Floats  # (2,), texels: the middle of the picture at pose 0
    angle: float = 0.0  # how the texture lies, radians
    objects: tuple[MovingObject, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class _Grid:
    """Offsets from the picture's middle in short sides, one per pixel."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    step: float  # short sides between pixels


def _grid(width: int, height: int) -> _Grid:
    short = min(width, height)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / short
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / short
    return _Grid(np.tile(x, height), np.repeat(y, width), 1 / short)


def render(
    scene: Scene, path: CameraPath, times_sec: Floats, *, width: int, height: int, shutter_sec: float = 0.0
) -> NDArray[np.float32]:
    """(T, height, width, 3), [0, 255]. `shutter_sec` is how long each frame is exposed (motion blur; 0 none)."""
    grid = _grid(width, height)
    if shutter_sec <= 0:
        frames = [_frame(scene, grid, pose, time) for pose, time in zip(path.poses(times_sec), times_sec, strict=True)]
        return np.stack(frames).reshape(len(times_sec), height, width, 3)
    exposures = (-0.5, -0.17, 0.17, 0.5)
    blurred = [
        render(scene, path, np.clip(times_sec + part * shutter_sec, 0, path.duration_sec), width=width, height=height)
        for part in exposures
    ]
    mean: NDArray[np.float32] = np.mean(blurred, axis=0, dtype=np.float32)
    return mean


def _frame(scene: Scene, grid: _Grid, pose: Floats, time_sec: float) -> NDArray[np.float32]:
    """(H * W, 3): where each pixel's ray meets the scene, and the colour there; objects lie in front."""
    x, y, log_zoom, roll = pose
    scale = float(np.exp(-log_zoom))
    cosine, sine = float(np.cos(roll)) * scale, float(np.sin(roll)) * scale
    seen_x = cosine * grid.x - sine * grid.y + np.float32(x)
    seen_y = sine * grid.x + cosine * grid.y + np.float32(y)
    cosine, sine = float(np.cos(scene.angle)) * scene.texels, float(np.sin(scene.angle)) * scene.texels
    step = grid.step * scale * scene.texels
    colours = scene.texture.look_up(
        cosine * seen_x - sine * seen_y + np.float32(scene.origin[0]),
        sine * seen_x + cosine * seen_y + np.float32(scene.origin[1]),
        step=step,
    )
    for thing in scene.objects:
        centre = thing.centre(time_sec)
        right, down = seen_x - np.float32(centre[0]), seen_y - np.float32(centre[1])
        outline = np.abs(right / thing.radii[0]) ** thing.power + np.abs(down / thing.radii[1]) ** thing.power
        inside = np.flatnonzero(outline < 1)
        if inside.size:
            colours[inside] = thing.texture.look_up(
                (right[inside] * scene.texels + thing.offset[0]).astype(np.float32),
                (down[inside] * scene.texels + thing.offset[1]).astype(np.float32),
                step=step,
            )
    return colours


DETAIL = 3.0
"""Least mean difference, grey levels, between a picture and itself moved by a sixteenth of its side, on both axes."""


def sample_scene(rng: np.random.Generator, textures: list[Texture], *, max_objects: int = 3) -> Scene:
    """A view with something to see in it: a blank wall has no camera motion to name, so it is drawn again."""
    while True:
        scene = _any_scene(rng, textures, max_objects)
        picture = _frame(replace(scene, objects=()), _grid(48, 48), np.zeros(4), 0.0).reshape(48, 48, 3)
        if min(np.abs(picture[3:] - picture[:-3]).mean(), np.abs(picture[:, 3:] - picture[:, :-3]).mean()) >= DETAIL:
            return scene


def _any_scene(rng: np.random.Generator, textures: list[Texture], max_objects: int) -> Scene:
    """A view of one of the textures, with up to `max_objects` small things that move by themselves."""
    count = int(rng.integers(0, max_objects + 1))
    return Scene(
        texture=textures[int(rng.integers(len(textures)))],
        texels=float(90 * (360 / 90) ** rng.uniform()),
        origin=rng.uniform(0, SIZE, 2),
        angle=float(rng.uniform(-0.3, 0.3)) if rng.uniform() < 0.4 else 0.0,
        objects=tuple(_object(rng, textures, count) for _ in range(count)),
    )


def _object(rng: np.random.Generator, textures: list[Texture], among: int) -> MovingObject:
    """Together the objects cover at most about a third of the picture."""
    largest = 0.3 / np.sqrt(among)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.6)
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    return MovingObject(
        texture=textures[int(rng.integers(len(textures)))],
        position=rng.uniform(-0.45, 0.45, 2) - velocity * 0.8,  # in the picture half way through the clip
        velocity=velocity,
        radii=rng.uniform(0.25, 1.0, 2) * largest,
        power=float(rng.choice([2.0, 2.0, 4.0, 8.0])),
        wobble=rng.uniform(0, 0.06, 2),
        wobble_hz=float(rng.uniform(0.5, 2.5)),
        offset=rng.uniform(0, SIZE, 2),
    )


def encode_h264(frames: Frames, *, fps: int, crf: int = 23, preset: str = "veryfast") -> bytes:
    """An mp4 file; frames (T, H, W, 3) uint8 RGB with even sides."""
    return encode(frames, "libx264", {"crf": str(crf), "preset": preset}, fps=fps)


def encode(frames: Frames, codec: str, options: dict[str, str], *, fps: int) -> bytes:
    """An mp4 file by FFmpeg's encoder of that name; frames (T, H, W, 3) uint8 RGB with even sides."""
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"4:2:0 colour needs even sides, got {width}x{height}")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.thread_count = 1
        stream.options = dict(options)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
