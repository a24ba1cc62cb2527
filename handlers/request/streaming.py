"""A request's answer as lines, one JSON object each, sent while its windows are computed.

    start      the model, what is known of the video, the sampling, how many windows there will be
    window     one window's times and predictions, or its embedding, in order
    segment    with a stride: neighbouring windows with the same best label, when the next one differs
    end        the predictions over all windows, and what only the end tells
    error      instead of the end: what went wrong after the first window

The lines together hold what the format `full` holds. Nothing is sent before the first window has its scores, so
whatever is wrong before that is an ordinary error with its own status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from handlers.errors import RequestError
from handlers.request.answer import (
    SegmentMerger,
    VideoScores,
    WindowScores,
    named,
    result_entry,
    sampling_entry,
    timing_entry,
    video_entry,
    window_entry,
)
from handlers.request.options import LINES_TYPE, RequestOptions
from handlers.request.wire import Reply, to_json
from handlers.specs import ModelSpec
from handlers.video.sampling import VideoReport

_KNOWN_AT_THE_END = ("frames_decoded", "plan_fallback", "warnings")
"""Fields of `video` in the format `full` that the last line has, because they count what is still being read."""


class AnswerLines:
    """Turns the scores of one video into lines. `send` gets each of them as it is known, but for the last."""

    def __init__(
        self,
        send: Callable[[bytes], None],
        options: RequestOptions,
        labels: Sequence[str],
        *,
        model: str,
        version: str,
        spec: ModelSpec,
        weights: str | None = None,
        request_id: str | None = None,
    ) -> None:
        self._send, self._options, self._labels = send, options, labels
        self._spec = spec
        self._named = named(model=model, version=version, weights=weights, request_id=request_id)
        merges = options.sampling.stride_sec is not None and options.output == "scores"
        self._segments = SegmentMerger() if merges else None
        self._next = 0

    @property
    def begun(self) -> bool:
        """Whether anything has been sent."""
        return self._next > 0

    def advance(self, opened: VideoReport, num_windows: int, scores: Mapping[int, WindowScores]) -> None:
        """Send the windows that have their scores, as far as there is none missing before them."""
        lines: list[dict[str, Any]] = []
        while (window := scores.get(self._next)) is not None:
            if self._next == 0:
                lines.append(self._start(opened, num_windows))
            entry = window_entry(window, self._options, self._labels, self._spec)
            closed = None if self._segments is None else self._segments.add(entry)
            if closed is not None:
                lines.append({"event": "segment", **closed})
            lines.append({"event": "window", "index": self._next, **entry})
            self._next += 1
        if lines:
            self._send(_lines(lines))

    def end(self, scores: VideoScores) -> Reply:
        """What is left to send."""
        self.advance(scores.report, len(scores.windows), dict(enumerate(scores.windows)))
        lines: list[dict[str, Any]] = []
        if self._segments is not None and self._segments.open is not None:
            lines.append({"event": "segment", **self._segments.open})
        video = video_entry(scores.report)
        lines.append(
            {
                "event": "end",
                **result_entry(scores, self._options, self._labels),
                "timing_ms": timing_entry(scores),
                **{name: video[name] for name in _KNOWN_AT_THE_END},
            }
        )
        return _reply(lines)

    @staticmethod
    def failed(error: RequestError) -> Reply:
        """The last line of an answer that has begun. Its status has been sent."""
        return replace(_reply([{"event": "error", **error.body()}]), errors=(error,))

    def _start(self, opened: VideoReport, num_windows: int) -> dict[str, Any]:
        video = video_entry(opened)
        return {
            "event": "start",
            **self._named,
            "video": {name: value for name, value in video.items() if name not in _KNOWN_AT_THE_END},
            "sampling": sampling_entry(num_windows, opened.duration_sec, self._options, self._spec),
            "windows": num_windows,
        }


def _reply(entries: Sequence[dict[str, Any]]) -> Reply:
    return Reply(HTTPStatus.OK, _lines(entries), LINES_TYPE)


def _lines(entries: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(to_json(entry) + b"\n" for entry in entries)
