"""What the demo page shows of an answer, as HTML: bars, a timeline that seeks, facts, errors. Everything is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from video_action_client import Clip, Prediction, ScoredLabel, Segment, Timeline
from video_action_client.text import RANDOM_WEIGHTS, clock, sampling_text, timing_text, video_text

Answer = Prediction | Timeline

# Dark enough for white text (contrast 4.5 and more, WCAG 2 AA); a label keeps its colour within one answer.
_COLOURS = ("#2f5fd8", "#b4501c", "#1f7a4d", "#a03a80", "#7d5f0b", "#1f7288", "#6d44bd", "#b03635")
_TICKS = 5


def bars(labels: Sequence[ScoredLabel]) -> str:
    """The labels with bars to the scale of 1."""
    return panel("Labels", _label_list(labels, "Labels, most likely first"))


def timeline(segments: Sequence[Segment], duration_sec: float | None) -> str:
    """The segments to scale, as buttons that carry the second to seek to, over an axis of the whole video.

    Without a duration the axis ends where the last segment does.
    """
    end_sec = duration_sec or max((each.end_sec for each in segments), default=0.0)
    end_sec = max(end_sec, max((each.start_sec for each in segments), default=0.0), 1e-6)
    colours = _colours(segments)
    buttons = "".join(
        _segment(each, min(until, end_sec), end_sec, colours[each.label])
        for each, until in zip(segments, _shown_ends(segments), strict=True)
    )
    ticks = "".join(
        f'<span style="left:{index / (_TICKS - 1):.2%}">{clock(end_sec * index / (_TICKS - 1))}</span>'
        for index in range(_TICKS)
    )
    legend = "".join(
        f'<li><span class="va-dot" style="background:{colour}"></span>{escape(label)}</li>'
        for label, colour in colours.items()
    )
    return (
        f'<div class="va-timeline" data-end="{end_sec:.3f}" role="group" aria-label="Timeline">'
        f'<div class="va-segments">{buttons}<span class="va-playhead" hidden></span></div>'
        f'<div class="va-ticks" aria-hidden="true">{ticks}</div><ul class="va-legend">{legend}</ul></div>'
    )


def facts(answer: Answer) -> str:
    """Model, video, effective sampling and timings, and the decoder's notes."""
    rows = {
        "Model": f"{answer.model}, version {answer.version}",
        "Video": video_text(answer.video),
        "Sampling": sampling_text(answer.sampling),
        "Average of": "probabilities" if answer.sampling.average == "prob" else "scores (logits)",
        "Frames decoded": str(answer.video.frames_decoded),
        "Time": timing_text(answer.timing),
    }
    rows |= {f"Note {index}": text for index, text in enumerate(answer.video.warnings, start=1)}
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
    warning = error(RANDOM_WEIGHTS) if answer.weights == "random" else ""
    return warning + panel("How they came about", f'<dl class="va-facts">{cells}</dl>')


def progress(done: int, windows: int, latest: Clip | None) -> str:
    """How far a video is, with the best labels of the window that came last."""
    text = (
        "Waiting for the first window ..."
        if latest is None
        else f"Window {done} of {windows}, at {clock(latest.start_sec)}"
    )
    drawn = "" if latest is None else _label_list(latest.predictions, f"Labels of window {done}")
    bar = f'<progress class="va-progress" max="{windows}" value="{done}" aria-label="Windows that are done"></progress>'
    return panel("So far", f'<div class="va-hint" role="status">{escape(text)}</div>{bar}{drawn}')


def panel(title: str, content: str) -> str:
    """A box with a heading; `content` is HTML."""
    return f'<section class="va-panel"><h2>{escape(title)}</h2>{content}</section>'


def error(message: str) -> str:
    return f'<div class="va-error" role="alert">{escape(message)}</div>'


def hint(message: str) -> str:
    return panel("Labels", f'<div class="va-hint">{escape(message)}</div>')


def _label_list(labels: Sequence[ScoredLabel], name: str) -> str:
    rows = "".join(
        f'<li class="va-label"><span class="va-name">{escape(each.label)}</span>'
        f'<span class="va-score">{each.score:.1%}</span>'
        f'<span class="va-track"><span class="va-fill" style="width:{each.score:.2%}"></span></span></li>'
        for each in labels
    )
    return f'<ol class="va-labels" aria-label="{escape(name, quote=True)}">{rows}</ol>'


def _segment(segment: Segment, until_sec: float, end_sec: float, colour: str) -> str:
    left, width = segment.start_sec / end_sec, max(until_sec - segment.start_sec, 0) / end_sec
    times = f"{clock(segment.start_sec)} to {clock(segment.end_sec)}"
    title = escape(f"{segment.label} {segment.score:.0%}, {times}", quote=True)
    return (
        f'<button type="button" class="va-segment" data-seek="{segment.start_sec:.3f}" title="{title}" '
        f'aria-label="{title}" style="left:{left:.3%};width:{width:.3%};background:{colour}">'
        f"<span>{escape(segment.label)}</span></button>"
    )


def _shown_ends(segments: Sequence[Segment]) -> list[float]:
    """Where each segment's block ends: at its end, or where the next begins, since windows overlap."""
    starts = [each.start_sec for each in segments[1:]]
    return [min(each.end_sec, start) for each, start in zip(segments[:-1], starts, strict=True)] + [
        each.end_sec for each in segments[-1:]
    ]


def _colours(segments: Sequence[Segment]) -> dict[str, str]:
    labels = dict.fromkeys(each.label for each in segments)
    return {label: _COLOURS[index % len(_COLOURS)] for index, label in enumerate(labels)}
