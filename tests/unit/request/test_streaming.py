"""An answer in lines holds what the format `full` holds, in order, whatever order the windows come in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import InternalError, RequestTimeout
from handlers.request.answer import VideoScores, WindowScores, render
from handlers.request.options import RequestOptions
from handlers.request.streaming import AnswerLines
from handlers.specs import get_spec
from handlers.video.sampling import Sampling, VideoReport, Window

SPEC = get_spec("x3d_s")
LABELS = ("jump", "run", "sit")
REPORT = VideoReport(
    duration_sec=9.0,
    width=320,
    height=240,
    fps=30.0,
    codec="h264",
    frames_decoded=40,
    decode_ms=1.5,
    transform_ms=2.0,
    plan_fallback="missing_frame",
    warnings=("2 frames were damaged",),
)
OPENED = replace(REPORT, frames_decoded=13, plan_fallback=None, warnings=())


def scores(tops: list[int]) -> VideoScores:
    """One window per entry, whose best label has that id."""
    windows = []
    for index, top in enumerate(tops):
        logits = np.zeros((1, len(LABELS)), dtype=np.float32)
        logits[0, top] = 1 + index / 10
        windows.append(WindowScores(Window(float(index), index + 2.0), logits))
    return VideoScores(tuple(windows), REPORT, inference_ms=3.0, total_ms=6.5)


class Sent:
    """What an AnswerLines sent, parsed."""

    def __init__(self, options: RequestOptions) -> None:
        self.lines: list[dict[str, Any]] = []
        self.options = options
        self.answer = AnswerLines(self.take, options, LABELS, model="m", version="2.0", spec=SPEC, weights="random")

    def take(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        self.lines += [json.loads(line) for line in data.splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [
            {name: value for name, value in line.items() if name != "event"}
            for line in self.lines
            if line["event"] == event
        ]


def options(*, stride_sec: float | None = 1.0) -> RequestOptions:
    return RequestOptions(top_k=2, sampling=Sampling(stride_sec=stride_sec), format="full", stream=True)


def test_lines_of_embeddings() -> None:
    whole = scores([0, 1, 1])
    whole = replace(whole, windows=tuple(replace(each, features=each.logits) for each in whole.windows))
    sent = Sent(replace(options(), output="embedding"))
    sent.take(sent.answer.end(whole).body)
    full = render(whole, sent.options, LABELS, model="m", version="2.0", spec=SPEC)
    assert isinstance(full, dict)
    assert [{k: v for k, v in line.items() if k != "index"} for line in sent.of("window")] == full["timeline"]
    assert sent.of("segment") == []
    (end,) = sent.of("end")
    assert (end["embedding"], end["length"]) == (full["embedding"], 3)
    assert "predictions" not in end


@given(tops=st.lists(st.integers(0, 2), min_size=1, max_size=12), data=st.data())
@pytest.mark.parametrize("stride_sec", [1.0, None])
def test_the_lines_hold_the_full_answer(tops: list[int], stride_sec: float | None, data: st.DataObject) -> None:
    sent, whole = Sent(options(stride_sec=stride_sec)), scores(tops)
    known: dict[int, WindowScores] = {}
    for index in data.draw(st.permutations(range(len(tops)))):
        known[index] = whole.windows[index]
        sent.answer.advance(OPENED, len(tops), known)
    reply = sent.answer.end(whole)
    assert reply.content_type == "application/x-ndjson"
    sent.take(reply.body)

    full: Any = render(whole, sent.options, LABELS, model="m", version="2.0", spec=SPEC, weights="random")
    (start,), (end,) = sent.of("start"), sent.of("end")
    assert sent.lines[0]["event"] == "start"
    assert sent.lines[-1]["event"] == "end"
    assert start["windows"] == len(tops)
    assert [start[name] for name in ("model", "version", "weights")] == [
        full[name] for name in ("model", "version", "weights")
    ]
    assert start["sampling"] == full["sampling"]
    late = {name: end[name] for name in ("frames_decoded", "plan_fallback", "warnings")}
    assert {**start["video"], **late} == full["video"]
    windows = sent.of("window")
    assert [window.pop("index") for window in windows] == list(range(len(tops)))
    assert windows == full["clips" if stride_sec is None else "timeline"]
    assert sent.of("segment") == full.get("segments", [])
    assert (end["predictions"], end["timing_ms"]) == (full["predictions"], full["timing_ms"])


def test_a_window_is_sent_as_soon_as_those_before_it_are_there() -> None:
    sent, whole = Sent(options()), scores([0, 0, 1])
    known = {1: whole.windows[1]}
    sent.answer.advance(OPENED, 3, known)
    assert sent.lines == []
    known[0] = whole.windows[0]
    sent.answer.advance(OPENED, 3, known)
    assert [line["event"] for line in sent.lines] == ["start", "window", "window"]
    assert sent.answer.begun
    known[2] = whole.windows[2]
    sent.answer.advance(OPENED, 3, known)
    assert [line["event"] for line in sent.lines[3:]] == ["segment", "window"]
    assert sent.lines[3]["end_sec"] == 3.0
    sent.take(sent.answer.end(whole).body)
    assert [line["event"] for line in sent.lines[5:]] == ["segment", "end"]


def test_what_was_not_sent_before_the_end_is_sent_then() -> None:
    sent, whole = Sent(options()), scores([0, 1])
    sent.take(sent.answer.end(whole).body)
    assert [line["event"] for line in sent.lines] == ["start", "window", "segment", "window", "segment", "end"]


def test_a_failure_is_the_last_line() -> None:
    sent = Sent(options())
    reply = sent.answer.failed(RequestTimeout("too long"))
    assert reply.status == 200, "it was sent with the first line"
    assert json.loads(reply.body) == {"event": "error", "code": 504, "type": "RequestTimeout", "message": "too long"}


def test_scores_that_are_no_numbers_are_a_failure() -> None:
    sent, whole = Sent(options()), scores([0])
    whole.windows[0].logits[0, 0] = np.nan
    with pytest.raises(InternalError, match="finite"):
        sent.answer.advance(OPENED, 1, {0: whole.windows[0]})
    assert not sent.answer.begun
