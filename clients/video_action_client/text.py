"""Answers as text for people: ranked labels with bars, timelines, tables. Pure functions from values to lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .explanation import Explanation
from .results import EffectiveSampling, ModelInfo, Prediction, ScoredLabel, Segment, Timeline, Timing, VideoInfo

_LABEL_CHARS = 34
_BAR_CHARS = 24
_TIMELINE_CHARS = 40
RANDOM_WEIGHTS = "RANDOM WEIGHTS: the labels and scores mean nothing"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def prediction_lines(name: str, prediction: Prediction, *, plain: bool = False) -> list[str]:
    """A video's name, then its labels with bars, then what the server did."""
    return [
        name,
        *random_weights_lines(prediction.weights),
        *label_lines(prediction.predictions, plain=plain),
        f"  {_provenance(prediction.model, prediction.version, prediction.video, prediction.sampling)}",
        f"  {timing_text(prediction.timing)}",
        *(f"  Note: {warning}" for warning in prediction.video.warnings),
    ]


def timeline_lines(name: str, timeline: Timeline, *, plain: bool = False) -> list[str]:
    """A video's name, its segments drawn to scale, then its labels over all windows."""
    return [
        name,
        *random_weights_lines(timeline.weights),
        *segment_lines(timeline.segments, plain=plain),
        f"  over the whole ({len(timeline.windows)} window{'s' if len(timeline.windows) != 1 else ''}):",
        *label_lines(timeline.predictions, plain=plain),
        f"  {_provenance(timeline.model, timeline.version, timeline.video, timeline.sampling)}",
        f"  {timing_text(timeline.timing)}",
        *(f"  Note: {warning}" for warning in timeline.video.warnings),
    ]


def explanation_lines(name: str, explanation: Explanation, *, plain: bool = False) -> list[str]:
    """A video's name, the label that is explained, then each part of the time with its weight as a bar."""
    return [
        name,
        f"  {explanation.label}  {explanation.score:.4f}, seen at:",
        *(
            f"  {clock(each.start_sec):>9} - {clock(each.end_sec):>9}  "
            f"{bar(each.weight, _BAR_CHARS, plain=plain)}  {each.weight:.2f}"
            for each in explanation.times
        ),
    ]


def random_weights_lines(weights: str | None) -> list[str]:
    """The warning of a model whose weights are random; no line for any other."""
    return [f"  {RANDOM_WEIGHTS}"] if weights == "random" else []


def label_lines(labels: Sequence[ScoredLabel], *, plain: bool = False) -> list[str]:
    """One line per label: name, bar to the scale of 1, score."""
    if not labels:
        return ["  no label reaches the threshold"]
    width = min(max(len(each.label) for each in labels), _LABEL_CHARS)
    return [
        f"  {shortened(each.label, width):<{width}}  {bar(each.score, _BAR_CHARS, plain=plain)}  {each.score:.4f}"
        for each in labels
    ]


def segment_lines(segments: Sequence[Segment], *, plain: bool = False) -> list[str]:
    """One line per segment: from, to, where that lies in the whole, label, score."""
    if not segments:
        return ["  no window"]
    begin, end = segments[0].start_sec, max(each.end_sec for each in segments)
    span = max(end - begin, 1e-9)
    block = "=" if plain else "█"
    lines = []
    for each in segments:
        first = min(int((each.start_sec - begin) / span * _TIMELINE_CHARS), _TIMELINE_CHARS - 1)
        last = max(round((each.end_sec - begin) / span * _TIMELINE_CHARS), first + 1)
        drawn = (" " * first + block * (last - first)).ljust(_TIMELINE_CHARS)
        times = f"{clock(each.start_sec):>9} - {clock(each.end_sec):>9}"
        lines.append(f"  {times}  |{drawn}|  {each.label} {each.score:.2f}")
    return lines


def timing_text(timing: Timing) -> str:
    return (
        f"{timing.total_ms:.0f} ms in the server: decode {timing.decode_ms:.0f}, transform {timing.transform_ms:.0f}, "
        f"inference {timing.inference_ms:.0f}"
    )


def sampling_text(sampling: EffectiveSampling) -> str:
    """`2 clips x 3 crops of 13 frames over 2.6 s, from 0 s to 10 s`."""
    end = "the end" if sampling.end_sec is None else f"{sampling.end_sec:.2f} s"
    clips = f"{sampling.num_clips} clip{'s' if sampling.num_clips != 1 else ''}"
    if sampling.stride_sec is not None:
        clips = f"a window every {sampling.stride_sec:g} s ({sampling.num_clips} in all)"
    crops = f" x {sampling.num_crops} crops" if sampling.num_crops != 1 else ""
    each = f"{sampling.num_frames} frames over {sampling.clip_duration_sec:.2f} s"
    return f"{clips}{crops}, each {each}, from {sampling.start_sec:.2f} s to {end}"


def video_text(video: VideoInfo) -> str:
    parts = [f"{video.width}x{video.height}", video.codec]
    if video.fps is not None:
        parts.append(f"{video.fps:.4g} fps")
    if video.duration_sec is not None:
        parts.append(f"{video.duration_sec:.2f} s")
    return ", ".join(parts)


def models_table(models: Sequence[ModelInfo]) -> list[str]:
    """One row per version of each model."""
    header = ("MODEL", "VERSION", "DEFAULT", "WORKERS", "STATUS", "BATCH", "QUEUED", "ARCHIVE")
    rows = [
        (
            each.name,
            each.version,
            "yes" if each.default else "",
            f"{sum(worker.status == 'READY' for worker in each.workers)}/{each.max_workers}",
            "ready" if each.ready else "not ready",
            str(each.batch_size),
            str(each.pending_requests),
            each.archive,
        )
        for each in models
    ]
    return table(header, rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces between."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]


def bar(share: float, chars: int, *, plain: bool = False) -> str:
    """A bar of `chars` characters, filled to that share (0 to 1), in steps of an eighth of a character."""
    share = min(max(share, 0.0), 1.0)
    if plain:
        return ("#" * round(share * chars)).ljust(chars, ".")
    full, eighths = divmod(round(share * chars * 8), 8)
    return ("█" * full + (_EIGHTHS[eighths] if eighths else "")).ljust(chars)


def clock(seconds: float) -> str:
    """`75.5` -> `1:15.50`."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 100:02d}.{rest % 100:02d}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def shortened(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "~"


def is_plain() -> bool:
    """Whether standard output can only take ASCII."""
    try:
        "█▏".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def _provenance(model: str, version: str, video: VideoInfo, sampling: EffectiveSampling) -> str:
    return f"{model} {version} on {video_text(video)}: {sampling_text(sampling)}"
