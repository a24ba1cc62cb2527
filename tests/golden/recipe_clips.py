"""What the documented recipe gives for later clips of the shared corpus's videos: at 1.5 s, near the end, and ten
clips of three crops, with x3d_xs.

    python -m tests.golden.recipe_clips

runs the recipe, pytorchvideo's EncodedVideo and transforms, on every file and writes recipe_clips.json.gz beside this
module (about five minutes, some gigabytes of memory). The windows' bounds are this project's; what is in them is the
recipe's: per window the timestamp and the CRC-32 of each picked RGB frame, and the statistics of the final tensor as
in the corpus's reference.json, of all three crops together. The file names the versions that made it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import torch

from handlers.errors import EmptyClip
from handlers.specs import get_spec
from handlers.video.recipe import open_encoded_video, read_clip, transform_clip
from handlers.video.sampling import Sampling, Window
from handlers.video.windows import plan_windows
from tests.support.corpus import HUGE, has_stable_pixels, statistics, videos
from tests.support.frames import crc
from tests.support.paths import CORPUS

SPEC = get_spec("x3d_xs")
_FILE = Path(__file__).with_suffix(".json.gz")
_DIGITS = 5  # behind the point, as in reference.json; what is compared may differ by 1e-4


@dataclass(frozen=True, slots=True)
class RecordedWindow:
    """One window: the picked frames in order, and the statistics of the tensor that the model gets.

    Of a file whose pixels depend on the decoder's thread count, all of it is empty.
    """

    pts: tuple[int, ...] = ()
    crc32: tuple[str, ...] = ()
    tensor: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RecordedSampling:
    """One request: its windows in order, None where the recipe finds no frame."""

    sampling: Sampling
    starts: tuple[float, ...]
    windows: tuple[RecordedWindow | None, ...]


@dataclass(frozen=True, slots=True)
class RecordedVideo:
    """One file, known by its SHA-256, and the duration in seconds that the recipe finds."""

    sha256: str
    duration: Fraction
    samplings: tuple[RecordedSampling, ...]


@cache
def recorded() -> Mapping[str, RecordedVideo]:
    """Every recorded file, by its name in the corpus."""
    content = json.loads(gzip.decompress(_FILE.read_bytes()))
    return {name: _video(entry) for name, entry in content["videos"].items()}


def _video(entry: Mapping[str, Any]) -> RecordedVideo:
    samplings = tuple(
        RecordedSampling(
            Sampling(**request["sampling"]),
            tuple(request["starts"]),
            tuple(None if window is None else _window(window) for window in request["windows"]),
        )
        for request in entry["samplings"]
    )
    return RecordedVideo(entry["sha256"], Fraction(entry["duration"]), samplings)


def _window(entry: Mapping[str, Any]) -> RecordedWindow:
    return RecordedWindow(tuple(entry["pts"]), tuple(entry["crc32"]), entry["tensor"])


def samplings(duration: Fraction) -> tuple[Sampling, ...]:
    """The recorded requests of a video of that many seconds."""
    near_end = max(float(duration) - 1.0, 0.3)
    return Sampling(start_sec=1.5), Sampling(start_sec=near_end), Sampling(num_clips=10, num_crops=3)


def record(name: str) -> RecordedVideo:
    """Run the recipe on a file of the corpus."""
    payload = (CORPUS / name).read_bytes()
    video = open_encoded_video(payload)
    try:
        duration = Fraction(video.duration)
        found = []
        for sampling in samplings(duration):
            windows = tuple(plan_windows(sampling, SPEC, duration))
            taken = tuple(_run(video, window, sampling.num_crops, exact=has_stable_pixels(name)) for window in windows)
            found.append(RecordedSampling(sampling, tuple(float(window.start_sec) for window in windows), taken))
    finally:
        video.close()
    return RecordedVideo(hashlib.sha256(payload).hexdigest(), duration, tuple(found))


def _run(video: Any, window: Window, num_crops: int, *, exact: bool) -> RecordedWindow | None:
    try:
        clip = read_clip(video, window.start_sec, window.end_sec)
    except EmptyClip:
        return None
    if not exact:
        return RecordedWindow()
    tensor = statistics(transform_clip(clip, SPEC, num_crops=num_crops))
    picks = _subsample(torch.arange(clip.shape[1])).tolist()
    pts = _timestamps(video, window)
    frames = clip[:, picks].permute(1, 2, 3, 0).to(torch.uint8).numpy()
    return RecordedWindow(
        tuple(pts[pick] for pick in picks),
        tuple(f"{crc(frame):08x}" for frame in frames),
        {key: _rounded(value) for key, value in tensor.items()},
    )


def _subsample(indices: torch.Tensor) -> torch.Tensor:
    """pytorchvideo's own choice among a clip's frames; importable once `transform_clip` has run."""
    from pytorchvideo.transforms.functional import uniform_temporal_subsample

    picked: torch.Tensor = uniform_temporal_subsample(indices, SPEC.num_frames, temporal_dim=0)
    return picked


def _timestamps(video: Any, window: Window) -> list[int]:
    """The timestamps of the frames that `get_clip` has just returned, which it keeps to itself."""
    from pytorchvideo.data.encoded_video_pyav import secs_to_pts

    first, end = (
        secs_to_pts(seconds, video._video_time_base, video._video_start_pts, round_mode="ceil")
        for seconds in (window.start_sec, window.end_sec)
    )
    return [pts for _, pts in video._video if first <= pts < end]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


def main() -> int:
    """Record every file; exits 1 where the corpus is missing."""
    found = {}
    for name in videos(readable=True):
        if name not in HUGE:
            print(name, file=sys.stderr)
            found[name] = asdict(record(name))
            found[name]["duration"] = str(found[name]["duration"])
    if not found:
        print(f"{CORPUS} is not there", file=sys.stderr)
        return 1
    versions = {package: version(package) for package in ("torch", "torchvision", "av", "pytorchvideo")}
    versions["ffmpeg"] = str(av.ffmpeg_version_info)
    text = json.dumps({"versions": versions, "videos": found}, separators=(",", ":"))
    _FILE.write_bytes(gzip.compress(text.encode(), mtime=0))  # the same bytes for the same content
    return 0


if __name__ == "__main__":
    sys.exit(main())
