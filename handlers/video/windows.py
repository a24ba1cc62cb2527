"""Which windows of a video are looked at. Exact arithmetic on times; no frames, no tensors.

Sources: pytorchvideo 0.1.5, `data/clip_sampling.py` (ConstantClipsPerVideoSampler, UniformClipSampler) and the Torch
Hub tutorial for the single clip. A model of the rule `whole_video` looks at the whole part at once: several clips are
parts of it of equal length, and only a timeline's windows have the spec's length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from handlers.specs import ModelSpec
from handlers.video.refusals import refused
from handlers.video.sampling import Sampling, Window


def needs_duration(sampling: Sampling, spec: ModelSpec) -> bool:
    """Whether the windows depend on how long the video is; one clip of the spec's length at `start_sec` does not."""
    return sampling.num_clips > 1 or sampling.stride_sec is not None or spec.temporal == "whole_video"


def count_windows(sampling: Sampling, spec: ModelSpec, duration_sec: Fraction | None) -> int:
    """How many windows `plan_windows` would give; cheap, so that a limit can be checked first."""
    if sampling.stride_sec is None:
        return sampling.num_clips
    span = _part(sampling, duration_sec)
    room = span[1] - span[0] - spec.clip_duration_exact
    return 1 if room < 0 else math.floor(room / _exact(sampling.stride_sec)) + 1


def plan_windows(sampling: Sampling, spec: ModelSpec, duration_sec: Fraction | None) -> Iterator[Window]:
    """The windows in order of time.

    One clip: `[start, start + clip_duration)` with the floats that the tutorial passes to `get_clip`. Several clips:
    ConstantClipsPerVideoSampler's Fractions over the part. A stride: windows of exact clip length whose ends stay
    within the part, as UniformClipSampler, and always at least one.
    """
    if sampling.stride_sec is not None:
        yield from _sliding(sampling, spec, duration_sec)
    elif spec.temporal == "whole_video":
        yield from _parts(sampling, duration_sec)
    elif sampling.num_clips == 1:
        end = sampling.start_sec + spec.clip_duration_sec
        yield Window(sampling.start_sec, end if sampling.end_sec is None else min(end, sampling.end_sec))
    else:
        yield from _spread(sampling, spec, duration_sec)


def _spread(sampling: Sampling, spec: ModelSpec, duration_sec: Fraction | None) -> Iterator[Window]:
    start, end = _part(sampling, duration_sec)
    clip = Fraction(spec.clip_duration_sec)  # the float's own value, as ClipSampler.__init__ takes it
    step = Fraction(max(end - start - clip, Fraction(0)), sampling.num_clips)
    for index in range(sampling.num_clips):
        clip_start = start + step * index
        yield Window(clip_start, _cut(clip_start + clip, sampling))


def _parts(sampling: Sampling, duration_sec: Fraction | None) -> Iterator[Window]:
    """The part as `num_clips` windows in a row. The last frame of a video may be shown after the length that its header
    states, so the window that ends with the video takes every frame to its end."""
    start, end = _part(sampling, duration_sec)
    step = (end - start) / sampling.num_clips
    for index in range(sampling.num_clips):
        is_last = index == sampling.num_clips - 1
        to_the_end = is_last and (sampling.end_sec is None or _exact(sampling.end_sec) >= (duration_sec or 0))
        yield Window(start + step * index, end if is_last else start + step * (index + 1), open_end=to_the_end)


def _sliding(sampling: Sampling, spec: ModelSpec, duration_sec: Fraction | None) -> Iterator[Window]:
    start, _ = _part(sampling, duration_sec)
    assert sampling.stride_sec is not None
    stride, clip = _exact(sampling.stride_sec), spec.clip_duration_exact
    for index in range(count_windows(sampling, spec, duration_sec)):
        yield Window(start + stride * index, _cut(start + stride * index + clip, sampling))


def _cut(end: Fraction, sampling: Sampling) -> Fraction:
    """A window never reaches past an `end_sec` that the client gave; the video's own end needs no cut."""
    return end if sampling.end_sec is None else min(end, _exact(sampling.end_sec))


def _part(sampling: Sampling, duration_sec: Fraction | None) -> tuple[Fraction, Fraction]:
    """The part `[start, end)` to look at, clamped to the video."""
    if duration_sec is None:
        raise refused("length_unknown")
    start = _exact(sampling.start_sec)
    end = duration_sec if sampling.end_sec is None else min(_exact(sampling.end_sec), duration_sec)
    if start >= duration_sec > 0:
        raise refused("start_past_end", start=sampling.start_sec, duration=float(duration_sec))
    return start, max(end, start)


def _exact(seconds: float) -> Fraction:
    """The decimal number that the client wrote, not its binary approximation."""
    return Fraction(repr(seconds)) if isinstance(seconds, float) else Fraction(seconds)
