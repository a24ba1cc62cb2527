"""What the demo page shows of an answer that is still coming: windows as they are scored, then the whole."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from video_action_client import (
    Clip,
    Segment,
    StreamEnd,
    StreamEvent,
    StreamSegment,
    StreamStart,
    StreamWindow,
)

_INTERVAL_SEC = 0.2
"""The page is not drawn more often than that: a browser needs some time for each."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of so many `windows`; the last window is `latest`. In a clip-wise answer there are no segments."""

    windows: int
    duration_sec: float | None
    is_timeline: bool
    done: int = 0
    latest: Clip | None = None
    segments: tuple[Segment, ...] = ()


def progress_of(events: Iterable[StreamEvent]) -> Generator[Progress | StreamEnd, None, None]:
    """States of an answer, at most one each fifth of a second, the last one the end."""
    drawn_at = 0.0
    state = Progress(0, None, is_timeline=False)
    closed: list[Segment] = []
    grown: list[Clip] = []  # windows since the last closed segment, all with the same best label
    for event in events:
        if isinstance(event, StreamStart):
            state = Progress(event.windows, event.duration_sec, event.sampling.stride_sec is not None)
        elif isinstance(event, StreamSegment):
            closed.append(event.segment)
            grown.clear()
        elif isinstance(event, StreamWindow):
            if state.is_timeline and event.clip.predictions:
                grown.append(event.clip)
            segments = (*closed, _segment(grown)) if grown else tuple(closed)
            state = replace(state, done=event.index + 1, latest=event.clip, segments=segments)
            if monotonic() - drawn_at >= _INTERVAL_SEC:
                drawn_at = monotonic()
                yield state
        else:
            yield event


def _segment(windows: Sequence[Clip]) -> Segment:
    """The segment that may still grow, as the server would end it here."""
    best = [each.predictions[0] for each in windows]
    score = sum(each.score for each in best) / len(best)
    return Segment(windows[0].start_sec, windows[-1].end_sec, best[0].label, score)
