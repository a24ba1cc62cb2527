"""Streamed answers as the client gives them, against a server of a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fake_server import FakeServer, refusal
from video_action_client import (
    Embedding,
    Prediction,
    StreamEmbeddedWindow,
    StreamEmbeddingEnd,
    StreamEnd,
    StreamSegment,
    StreamStart,
    StreamWindow,
    Timeline,
    VideoClient,
)
from video_action_client.errors import EmptyClip, InvalidAnswer, TimeLimitExceeded
from video_action_client.events import events_of, events_of_answer

LABEL = {"label": "run", "score": 0.75, "class_id": 1}
VIDEO = {"duration_sec": 4.0, "width": 64, "height": 48, "fps": 30.0, "codec": "h264"}
SAMPLING = {
    "num_frames": 4, "sampling_rate": 12, "clip_duration_sec": 1.6, "start_sec": 0.0, "end_sec": 4.0, "num_clips": 2,
    "num_crops": 1, "stride_sec": 2.0, "average": "prob",
}  # fmt: skip
SPANS = ({"start_sec": 0.0, "end_sec": 1.6}, {"start_sec": 2.0, "end_sec": 3.6})
TIMING = {"decode": 1.0, "transform": 2.0, "inference": 3.0, "total": 4.0}
END = {"frames_decoded": 8, "plan_fallback": None, "warnings": ["a frame was damaged"]}
SEGMENT = {"start_sec": 0.0, "end_sec": 3.6, "label": "run", "score": 0.75}


def lines(*, stride_sec: float | None = 2.0) -> list[dict[str, Any]]:
    sampling = {**SAMPLING, "stride_sec": stride_sec}
    windows = [{"event": "window", "index": at, **span, "predictions": [LABEL]} for at, span in enumerate(SPANS)]
    return [
        {"event": "start", "model": "m", "version": "1.0", "video": VIDEO, "sampling": sampling, "windows": 2},
        *windows,
        *([{"event": "segment", **SEGMENT}] if stride_sec is not None else []),
        {"event": "end", "predictions": [LABEL], "timing_ms": TIMING, **END},
    ]


def whole(*, stride_sec: float | None = 2.0) -> dict[str, Any]:
    """The same in the format `full`."""
    windows = [{**span, "predictions": [LABEL]} for span in SPANS]
    parts = {"clips": windows} if stride_sec is None else {"timeline": windows, "segments": [SEGMENT]}
    return {
        "model": "m", "version": "1.0", "predictions": [LABEL], **parts, "video": {**VIDEO, **END},
        "sampling": {**SAMPLING, "stride_sec": stride_sec}, "timing_ms": TIMING,
    }  # fmt: skip


def embedded_lines(*, stride_sec: float | None) -> list[dict[str, Any]]:
    vectors = [{**span, "embedding": [0.5, at], "length": 2} for at, span in enumerate(SPANS)]
    start, *_ = lines(stride_sec=stride_sec)
    windows = [{"event": "window", "index": at, **entry} for at, entry in enumerate(vectors)]
    return [start, *windows, {"event": "end", "embedding": [0.5, 0.5], "length": 2, "timing_ms": TIMING, **END}]


def embedded_whole(*, stride_sec: float | None) -> dict[str, Any]:
    """As the server answers `output=embedding` in the format `full`: a timeline of features has no segments."""
    answer = whole(stride_sec=stride_sec)
    clips = "clips" if stride_sec is None else "timeline"
    vectors = [{**span, "embedding": [0.5, at], "length": 2} for at, span in enumerate(SPANS)]
    kept = {name: value for name, value in answer.items() if name not in ("predictions", "segments")}
    return {**kept, "embedding": [0.5, 0.5], "length": 2, clips: vectors}


def encoded(entries: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(entry).encode() for entry in entries]


@pytest.mark.parametrize("stride_sec", [2.0, None])
def test_events_end_with_the_answer_that_comes_whole_otherwise(stride_sec: float | None) -> None:
    events = list(events_of(encoded(lines(stride_sec=stride_sec))))
    start, first, second, *rest = events
    assert isinstance(start, StreamStart)
    assert (start.model, start.version, start.windows, start.codec, start.fps) == ("m", "1.0", 2, "h264", 30.0)
    assert isinstance(first, StreamWindow)
    assert isinstance(second, StreamWindow)
    assert (first.index, second.index, second.clip.start_sec, second.clip.predictions[0].label) == (0, 1, 2.0, "run")
    assert [each.segment.label for each in rest if isinstance(each, StreamSegment)] == ["run"] * (
        stride_sec is not None
    )
    end = events[-1]
    assert isinstance(end, StreamEnd)
    kind = Prediction if stride_sec is None else Timeline
    assert end.answer == kind.from_json(whole(stride_sec=stride_sec))
    assert end.answer.answer == whole(stride_sec=stride_sec)
    assert list(events_of_answer(whole(stride_sec=stride_sec))) == events


@pytest.mark.parametrize("stride_sec", [2.0, None])
def test_embedding_events_end_with_the_embedding_that_comes_whole_otherwise(stride_sec: float | None) -> None:
    events = list(events_of(encoded(embedded_lines(stride_sec=stride_sec))))
    start, first, second, end = events
    assert isinstance(start, StreamStart)
    assert isinstance(first, StreamEmbeddedWindow)
    assert isinstance(second, StreamEmbeddedWindow)
    assert (second.index, second.clip.start_sec, second.clip.vector) == (1, 2.0, (0.5, 1.0))
    assert isinstance(end, StreamEmbeddingEnd)
    assert end.answer == Embedding.from_json(embedded_whole(stride_sec=stride_sec))
    assert end.answer.vector == (0.5, 0.5)
    assert end.json == embedded_whole(stride_sec=stride_sec)
    assert list(events_of_answer(embedded_whole(stride_sec=stride_sec))) == events


def test_an_embedding_of_another_length_than_it_says_is_told() -> None:
    broken = embedded_lines(stride_sec=None)
    broken[1]["length"] = 3
    with pytest.raises(InvalidAnswer, match="not one of this project's"):
        list(events_of(encoded(broken)))


def test_an_error_line_is_raised_after_the_events_before_it() -> None:
    failing = [*lines()[:2], {"event": "error", "code": 504, "type": "RequestTimeout", "message": "too long"}]
    events = events_of(encoded(failing))
    assert isinstance(next(events), StreamStart)
    assert isinstance(next(events), StreamWindow)
    with pytest.raises(TimeLimitExceeded, match="too long"):
        next(events)


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"[]",
        b"{}",
        b'{"event": "other"}',
        b'{"event": "window"}',
        b'{"event": "start"}',
        b'{"event": "error"}',
        b"5",
    ],
)
def test_a_line_of_something_else_is_told(line: bytes) -> None:
    with pytest.raises(InvalidAnswer, match="not one of this project's"):
        list(events_of([line]))


def test_an_answer_that_breaks_off_is_told() -> None:
    with pytest.raises(InvalidAnswer, match="ended before its last line"):
        list(events_of(encoded(lines()[:3])))


@pytest.fixture
def client(fake: FakeServer) -> Iterator[VideoClient]:
    with VideoClient(fake.url, fake.url, token="t") as client:
        yield client


def test_the_client_asks_for_lines_and_reads_them(client: VideoClient, fake: FakeServer) -> None:
    fake.content_type = "application/x-ndjson"
    fake.answer = lambda asked: (200, b"".join(line + b"\n" for line in encoded(lines())))
    events = list(client.stream(b"v", model="m", version="1.0", stride_sec=2.0, top_k=1))
    assert events == list(events_of(encoded(lines())))
    (asked,) = fake.asked
    assert asked.path == "/predictions/m/1.0"
    assert {name: asked.headers[name] for name in ("x-stream", "x-format", "x-stride-sec", "x-top-k")} == {
        "x-stream": "true", "x-format": "full", "x-stride-sec": "2.0", "x-top-k": "1",
    }  # fmt: skip


def test_the_client_asks_for_embeddings_in_lines(client: VideoClient, fake: FakeServer) -> None:
    fake.content_type = "application/x-ndjson"
    sent = embedded_lines(stride_sec=None)
    fake.answer = lambda asked: (200, b"".join(line + b"\n" for line in encoded(sent)))
    *_, end = client.stream(b"v", model="m", output="embedding", num_clips=2)
    assert isinstance(end, StreamEmbeddingEnd)
    assert end.answer.length == 2
    (asked,) = fake.asked
    assert {name: asked.headers.get(name) for name in ("x-output", "x-stream", "x-num-clips", "x-top-k")} == {
        "x-output": "embedding", "x-stream": "true", "x-num-clips": "2", "x-top-k": None,
    }  # fmt: skip


def test_a_server_that_does_not_stream_is_read_all_the_same(client: VideoClient, fake: FakeServer) -> None:
    fake.answer = lambda asked: (200, whole())
    assert list(client.stream(b"v", model="m", stride_sec=2.0)) == list(events_of(encoded(lines())))
    fake.answer = lambda asked: (200, {"run": 1.0})
    with pytest.raises(InvalidAnswer):
        list(client.stream(b"v", model="m"))


def test_a_refusal_is_raised_as_elsewhere(client: VideoClient, fake: FakeServer) -> None:
    fake.answer = lambda asked: refusal(422, "EmptyClip", "there is no frame")
    with pytest.raises(EmptyClip, match="there is no frame"):
        list(client.stream(b"v", model="m"))
