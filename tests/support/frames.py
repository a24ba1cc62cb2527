"""Both decoders' picked frames, in a form that compares: timestamp and CRC-32 per frame."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.video.clip_events import ClipDone, ClipsPlanned, PickedFrame
from handlers.video.codecs import UNCONFINED, Formats
from handlers.video.recipe import read_clip
from handlers.video.sampled_video import SampledVideo
from handlers.video.sampling import Sampling
from handlers.video.transforms import subsample_indices

Checksums = list[int]
Kept = TypeVar("Kept")

FIRST_CLIP = Sampling()
PATIENT = Limits(decode_timeout_sec=900.0)  # a busy machine must not decide what a test finds


def crc(frame: NDArray[np.uint8]) -> int:
    """CRC-32 of the frame's RGB bytes, rows top to bottom."""
    return zlib.crc32(np.ascontiguousarray(frame).tobytes())


def sampled_frames(
    payload: bytes,
    spec: ModelSpec,
    sampling: Sampling = FIRST_CLIP,
    *,
    autorotate: bool = False,
    threads: int = 1,
    formats: Formats = UNCONFINED,
) -> tuple[dict[int, Checksums], SampledVideo]:
    """Window index -> checksums of its frames, and the video (closed) for its counters."""

    def checksum(frame: PickedFrame) -> int:
        return crc(frame.load().array())

    return picked_frames(checksum, payload, spec, sampling, autorotate=autorotate, threads=threads, formats=formats)


def picked_frames(
    keep: Callable[[PickedFrame], Kept],
    payload: bytes,
    spec: ModelSpec,
    sampling: Sampling,
    *,
    autorotate: bool = False,
    threads: int = 1,
    formats: Formats = UNCONFINED,
) -> tuple[dict[int, list[Kept]], SampledVideo]:
    """Window index -> what `keep` makes of each of its frames, and the video (closed) for its counters."""
    video = SampledVideo(payload, spec, PATIENT, autorotate=autorotate, threads=threads, formats=formats)
    clips: tuple[Any, ...] = ()
    frames: dict[tuple[int, int], Kept] = {}
    done: dict[int, list[Kept]] = {}
    try:
        for event in video.events(sampling):
            if isinstance(event, ClipsPlanned):
                clips, frames = event.clips, {}
            elif isinstance(event, PickedFrame):
                frames.update(dict.fromkeys(event.places, keep(event)))
            elif isinstance(event, ClipDone):
                steps = range(spec.num_frames)
                done[clips[event.position].index] = [frames[event.position, step] for step in steps]
    finally:
        video.close()
    return done, video


def recipe_frames(clip: torch.Tensor, spec: ModelSpec) -> Checksums:
    """Checksums of the frames that UniformTemporalSubsample picks from EncodedVideo's (3, T, H, W)."""
    picks = subsample_indices(clip.shape[1], spec.num_frames)
    frames = {int(pick): crc(clip[:, int(pick)].permute(1, 2, 0).to(torch.uint8).numpy()) for pick in set(picks)}
    return [frames[int(pick)] for pick in picks]


def recipe_window(video: Any, start: float | Fraction, end: float | Fraction, spec: ModelSpec) -> Checksums:
    """The recipe's frames of one window of an open EncodedVideo."""
    return recipe_frames(read_clip(video, start, end), spec)
