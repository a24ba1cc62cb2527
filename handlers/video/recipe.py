"""The documented recipe, literally: pytorchvideo's EncodedVideo and its and torchvision's own transforms.

Other ways of decoding are compared with this one, and `decoder: encoded_video` runs it. It holds the whole
clip in memory, as float32 at full size, in the worker: for comparing answers, not for untrusted input.

Source: PyTorchVideo's Torch Hub inference tutorial. One setting differs from it: `decode_audio=False`, which changes no
frame, but for the videos whose sound would fail the request or outlast the pictures.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handlers.errors import EmptyClip, UndecodableVideo, UnsupportedVideo
from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.video.codecs import UNCONFINED, Formats
from handlers.video.containers import identify
from handlers.video.refusals import refused
from handlers.video.sampling import Sampling, VideoReport, Window, WindowViews
from handlers.video.windows import count_windows, needs_duration, plan_windows

_OLD_NAME, _NEW_NAME = "torchvision.transforms.functional_tensor", "torchvision.transforms._functional_tensor"


class EncodedVideoReader:
    """One video by the recipe. Times in `report` are those of EncodedVideo, and of the transforms."""

    def __init__(
        self, payload: bytes | memoryview, *, spec: ModelSpec, limits: Limits, formats: Formats = UNCONFINED
    ) -> None:
        identify(payload, formats)  # playlists, scripts and still images never reach FFmpeg's own probing
        self._spec, self._limits = spec, limits
        self._decode_sec = self._transform_sec = 0.0
        self._frames_decoded, self._size = 0, (0, 0)
        started = time.perf_counter()
        self._video = open_encoded_video(payload)
        self._decode_sec = time.perf_counter() - started

    def count_windows(self, sampling: Sampling) -> int:
        """How many windows `windows` will look at; raises InvalidOption when there are more than allowed."""
        count = count_windows(sampling, self._spec, self._spread_over(sampling))
        if count > self._limits.max_windows:
            raise refused("windows", windows=count, allowed=self._limits.max_windows)
        return count

    def _spread_over(self, sampling: Sampling) -> Fraction | None:
        return Fraction(self._video.duration) if needs_duration(sampling, self._spec) else None

    def windows(self, sampling: Sampling) -> Iterator[WindowViews]:
        """Every window's views, in order; raises EmptyClip for one without frames."""
        self.count_windows(sampling)
        duration_sec = self._spread_over(sampling)
        for index, window in enumerate(plan_windows(sampling, self._spec, duration_sec)):
            yield WindowViews(index, window, self._views(window, sampling.num_crops))

    def _views(self, window: Window, num_crops: int) -> NDArray[np.float32]:
        started = time.perf_counter()
        clip = read_clip(self._video, window.start_sec, window.end_sec)
        decoded = time.perf_counter()
        self._frames_decoded += clip.shape[1]
        self._size = (int(clip.shape[3]), int(clip.shape[2]))
        views: NDArray[np.float32] = transform_clip(clip, self._spec, num_crops=num_crops).numpy()
        self._decode_sec += decoded - started
        self._transform_sec += time.perf_counter() - decoded
        return views

    def report(self) -> VideoReport:
        stream = self._video._container.streams.video[0]
        return VideoReport(
            duration_sec=float(self._video.duration),
            width=self._size[0],
            height=self._size[1],
            fps=float(stream.average_rate) if stream.average_rate else None,
            codec=stream.codec_context.name,
            frames_decoded=self._frames_decoded,
            decode_ms=self._decode_sec * 1e3,
            transform_ms=self._transform_sec * 1e3,
        )

    def close(self) -> None:
        self._video.close()


def open_encoded_video(payload: bytes | memoryview) -> Any:
    """EncodedVideo over these bytes; raises UnsupportedVideo or UndecodableVideo."""
    video_class = _module("pytorchvideo.data.encoded_video_pyav").EncodedVideoPyAV
    try:
        return video_class(io.BytesIO(payload), decode_audio=False)
    except RuntimeError as error:  # the only one that the constructor raises on purpose; its text may name anything
        if "stream not found" in str(error):
            raise UnsupportedVideo("this file has no video stream") from error
        raise UndecodableVideo("EncodedVideo cannot open this file") from error
    except Exception as error:
        raise UndecodableVideo(f"EncodedVideo cannot open this file: {type(error).__name__}") from error


def read_clip(video: Any, start_sec: float | Fraction, end_sec: float | Fraction) -> torch.Tensor:
    """EncodedVideo's frames of `[start_sec, end_sec)`: (3, T, H, W) float32, RGB, 0 to 255."""
    try:
        clip: torch.Tensor | None = video.get_clip(start_sec, end_sec)["video"]
    except Exception as error:
        raise UndecodableVideo(f"EncodedVideo cannot read this clip: {type(error).__name__}") from error
    if clip is None:
        raise EmptyClip(f"EncodedVideo finds no frame from {float(start_sec):g} to {float(end_sec):g} s")
    return clip


def transform_clip(clip: torch.Tensor, spec: ModelSpec, *, num_crops: int = 1) -> torch.Tensor:
    """The tutorial's transforms: (3, T, H, W) in 0 to 255 -> (num_crops, 3, num_frames, S, S) normalised.

    One crop is torchvision's CenterCropVideo; three are pytorchvideo's uniform_crop.
    """
    classes = _transform_classes()
    clip = classes.subsample(spec.num_frames)(clip)
    clip = clip / 255.0
    clip = classes.normalize(list(spec.mean), list(spec.std))(clip)
    clip = classes.short_side_scale(size=spec.short_side)(clip)
    if num_crops == 1:
        crops = [classes.center_crop((spec.crop_size, spec.crop_size))(clip)]
    else:
        crops = [classes.uniform_crop(clip, spec.crop_size, crop) for crop in range(num_crops)]
    return torch.stack(crops)


def recipe_tensor(payload: bytes, spec: ModelSpec, *, start_sec: float = 0.0) -> torch.Tensor:
    """The model input of the tutorial's single clip, (3, num_frames, S, S) float32, before PackPathway."""
    video = open_encoded_video(payload)
    try:
        return transform_clip(read_clip(video, start_sec, start_sec + spec.clip_duration_sec), spec)[0]
    finally:
        video.close()


class _TransformClasses:
    """The transforms' classes, imported once."""

    def __init__(self) -> None:
        with _old_torchvision_name(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision: its video transforms are deprecated
            own = importlib.import_module("pytorchvideo.transforms")
            functional = importlib.import_module("pytorchvideo.transforms.functional")
            video = importlib.import_module("torchvision.transforms._transforms_video")
        self.subsample, self.short_side_scale = own.UniformTemporalSubsample, own.ShortSideScale
        self.uniform_crop = functional.uniform_crop
        self.normalize, self.center_crop = video.NormalizeVideo, video.CenterCropVideo


@cache
def _transform_classes() -> _TransformClasses:
    return _TransformClasses()


def _module(name: str) -> Any:
    with _old_torchvision_name(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@contextmanager
def _old_torchvision_name() -> Iterator[None]:
    """For the duration of an import: the module under the name that pytorchvideo 0.1.5 asks for.

    torchvision renamed it in 0.17; other code does not see the old name.
    """
    if importlib.util.find_spec(_OLD_NAME) is not None:
        yield
        return
    sys.modules[_OLD_NAME] = importlib.import_module(_NEW_NAME)
    try:
        yield
    finally:
        del sys.modules[_OLD_NAME]
