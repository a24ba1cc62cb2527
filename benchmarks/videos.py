"""The videos that are measured: made here, so that a clone needs no download, and kept in a folder that git ignores.

H.264 with B-frames in mp4, 30 frames per second. A camera pans and zooms over a textured scene in which things move,
with a little sensor noise: content that compresses as filmed video does, at the rates that sites publish. Pure noise or
flat colours would make decoding cost something else.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "benchmarks" / "videos"

_RECIPE = 2  # raised when the content or the encoder's settings below change
_FPS = 30
_SCENE = 1.5  # side of the scene in frames: margin for the camera to move
_NOISE = 2.0  # standard deviation of the sensor's noise, of 255
_OBJECTS = 6
# Without adaptive B-frames x264's macroblock tree reads memory that nothing wrote: other bytes from run to run.
_X264 = "ref=3:bframes=2:b-adapt=0:mbtree=0:keyint=60:min-keyint=60:scenecut=0"

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkVideo:
    """What to make. Pixels, seconds, kilobits per second; `seed` decides scene, camera and objects."""

    name: str
    width: int
    height: int
    duration_sec: int
    bit_rate_kbps: int
    seed: int = 0

    @property
    def num_frames(self) -> int:
        return self.duration_sec * _FPS

    @property
    def file_name(self) -> str:
        """Changes with everything that decides the content."""
        settings = repr((_RECIPE, av.library_versions.get("libavcodec"), asdict(self)))
        return f"{self.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.mp4"


VIDEOS: Mapping[str, BenchmarkVideo] = {
    video.name: video
    for video in (
        BenchmarkVideo(name="320x240", width=320, height=240, duration_sec=10, bit_rate_kbps=350),
        BenchmarkVideo(name="1280x720", width=1280, height=720, duration_sec=10, bit_rate_kbps=2000),
        BenchmarkVideo(name="1920x1080", width=1920, height=1080, duration_sec=10, bit_rate_kbps=4000),
        BenchmarkVideo(name="3840x2160", width=3840, height=2160, duration_sec=3, bit_rate_kbps=14000),
    )
}


def ensure_video(video: BenchmarkVideo, folder: Path = FOLDER, *, on_frame: Callable[[], object] | None = None) -> Path:
    """The video's file, made the first time, whole or not at all. `on_frame` is called after each frame."""
    path = folder / video.file_name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(encode(video, on_frame=on_frame))
        partial.replace(path)
    return path


def describe_video(video: BenchmarkVideo, path: Path) -> dict[str, Any]:
    """What a result file says about an input."""
    content = path.read_bytes()
    return {
        "width": video.width,
        "height": video.height,
        "duration_sec": video.duration_sec,
        "fps": _FPS,
        "codec": "h264",
        "bytes": len(content),
        "kbit_per_sec": round(len(content) * 8 / 1000 / video.duration_sec),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def encode(video: BenchmarkVideo, *, on_frame: Callable[[], object] | None = None) -> bytes:
    """The mp4. One thread, so that the same libraries give the same bytes on every machine."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        options = {"preset": "veryfast", "x264-params": _X264}
        stream: Any = output.add_stream("libx264", rate=_FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        stream.bit_rate = video.bit_rate_kbps * 1000
        stream.codec_context.thread_count = 1
        for index, picture in enumerate(frames(video)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, _FPS)
            output.mux(stream.encode(frame))
            if on_frame is not None:
                on_frame()
        output.mux(stream.encode(None))
    return file.getvalue()


def frames(video: BenchmarkVideo) -> Iterator[Image]:
    """The pictures, in order."""
    rng = np.random.default_rng(video.seed)
    height, width = round(video.height * _SCENE), round(video.width * _SCENE)
    scene = texture(rng, height, width)
    objects = [_Object.random(rng, video) for _ in range(_OBJECTS)]
    noise = rng.normal(0, _NOISE, (video.height, video.width, 1)).astype(np.int16)
    reformatter = VideoReformatter()
    for index in range(video.num_frames):
        seconds = index / _FPS
        picture = _scaled(_view(scene, video, seconds), video.width, video.height, reformatter).astype(np.int16)
        for thing in objects:
            thing.draw(picture, seconds)
        picture += np.roll(noise, (int(rng.integers(video.height)), int(rng.integers(video.width))), axis=(0, 1))
        yield picture.clip(0, 255).astype(np.uint8)


def texture(rng: np.random.Generator, height: int, width: int) -> Image:
    """Noise in octaves, each weaker than the one twice as coarse, as in natural pictures."""
    total = np.zeros((height, width, 3), dtype=np.float32)
    reformatter = VideoReformatter()
    cell, strength = max(height, width) // 3, 1.0
    while cell >= 2:
        rows, columns = -(-height // cell) + 1, -(-width // cell) + 1
        grey = rng.integers(0, 256, (rows, columns, 1))
        colour = rng.integers(-40, 41, (rows, columns, 3))
        coarse = (grey + colour).clip(0, 255).astype(np.uint8)
        total += strength * (_scaled(coarse, width, height, reformatter).astype(np.float32) - 127.5)
        cell, strength = cell // 2, strength * 0.72
    total *= 45.0 / max(float(total.std()), 1e-6)
    return (total + 120).clip(0, 255).astype(np.uint8)


def _view(scene: Image, video: BenchmarkVideo, seconds: float) -> Image:
    """What the camera sees: a slow pan on an ellipse, with a zoom of up to a fifth."""
    zoom = 1.1 + 0.1 * math.sin(2 * math.pi * seconds / 7)
    height, width = round(video.height * zoom), round(video.width * zoom)
    top = (scene.shape[0] - height) * (0.5 + 0.5 * math.sin(2 * math.pi * seconds / 11))
    left = (scene.shape[1] - width) * (0.5 + 0.5 * math.cos(2 * math.pi * seconds / 9))
    return scene[round(top) : round(top) + height, round(left) : round(left) + width]


@dataclass(frozen=True, slots=True)
class _Object:
    """A textured ellipse that swings across the picture. Pixels and seconds."""

    pixels: NDArray[np.int16]
    mask: NDArray[np.bool_]
    centre: tuple[float, float]
    reach: tuple[float, float]
    period_sec: float
    phase: float

    @classmethod
    def random(cls, rng: np.random.Generator, video: BenchmarkVideo) -> _Object:
        height = int(video.height * rng.uniform(0.12, 0.3)) // 2 * 2
        width = int(video.height * rng.uniform(0.1, 0.3)) // 2 * 2
        rows, columns = np.mgrid[0:height, 0:width]
        mask = ((rows - height / 2) / (height / 2)) ** 2 + ((columns - width / 2) / (width / 2)) ** 2 <= 1
        tint = rng.integers(-50, 51, 3)
        pixels = (texture(rng, height, width).astype(np.int16) + tint.astype(np.int16)).clip(0, 255)
        margin = (video.height - height) / 2, (video.width - width) / 2
        return cls(
            pixels=pixels.astype(np.int16),
            mask=mask[..., None],
            centre=margin,
            reach=(margin[0] * float(rng.uniform(0.3, 1)), margin[1] * float(rng.uniform(0.3, 1))),
            period_sec=float(rng.uniform(2, 6)),
            phase=float(rng.uniform(0, 2 * math.pi)),
        )

    def draw(self, picture: NDArray[np.int16], seconds: float) -> None:
        angle = 2 * math.pi * seconds / self.period_sec + self.phase
        top = round(self.centre[0] + self.reach[0] * math.sin(angle))
        left = round(self.centre[1] + self.reach[1] * math.cos(angle * 0.7))
        height, width = self.mask.shape[:2]
        np.copyto(picture[top : top + height, left : left + width], self.pixels, where=self.mask)


def _scaled(picture: Image, width: int, height: int, reformatter: VideoReformatter) -> Image:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    scaled = reformatter.reformat(frame, width, height, "rgb24", interpolation="BICUBIC", threads=1)
    pixels: Any = scaled.to_ndarray()
    return np.asarray(pixels, dtype=np.uint8)
