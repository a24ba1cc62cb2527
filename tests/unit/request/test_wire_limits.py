"""What a body may ask for: how many videos, views and predictions, what text it may hold, and what memory it costs."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torchvision.models.video import R3D_18_Weights

from handlers.errors import InvalidEncoding, InvalidOption, RequestError, RequestTimeout, UnsupportedVideo
from handlers.limits import Limits
from handlers.request.answer import VideoScores, WindowScores, render
from handlers.request.budgets import Demand, check_demand
from handlers.request.options import RequestOptions
from handlers.request.wire import Envelope, parse_row, render_reply, to_json
from handlers.specs import get_spec
from handlers.video.sampling import Sampling, VideoReport, Window

TEXT = base64.b64encode(b"\x00\x00\x00\x18ftypmp42\xff\xfe").decode()
JSON = {"Content-Type": "application/json", "body": {"content-type": "application/json"}}
REPORT = VideoReport(
    duration_sec=1.0, width=8, height=8, fps=30.0, codec="h264", frames_decoded=1, decode_ms=1.0, transform_ms=1.0
)
LIMITS = Limits(max_windows=20, max_videos=5, max_views=30, max_predictions=100)


def parse(body: object, limits: Limits = LIMITS) -> Envelope:
    return parse_row({"body": body}, JSON, num_classes=400, limits=limits)


def refused(body: object, kind: type[RequestError] = InvalidOption, limits: Limits = LIMITS) -> str:
    with pytest.raises(kind) as caught:
        parse(body, limits)
    return caught.value.message


def tensor(*data: object, **more: object) -> dict[str, object]:
    return {"name": "video", "datatype": "BYTES", "data": list(data), **more}


def test_videos_are_counted_before_any_is_looked_at() -> None:
    words = "this body holds 6 videos; at most 5 are allowed in one"
    assert refused({"instances": [TEXT] * 6}) == words
    assert refused({"instances": ["", None, 5, {}, [], "%"], "no_such_option": 1}) == words
    assert refused({"inputs": [tensor(TEXT, [TEXT, TEXT]), tensor(*[""] * 3)]}) == words
    assert refused({"inputs": [tensor(TEXT)] * 6}) == words
    assert refused({"inputs": [None] * 6}) == words
    assert len(parse({"instances": [TEXT] * 5}).requests) == 5
    options = [{"name": "top_k", "data": [1]}, {"name": "average", "data": ["score"]}]
    assert len(parse({"inputs": [*options, tensor(*[TEXT] * 5)]}).requests) == 5


def test_a_long_list_is_refused_without_work_for_its_elements() -> None:
    body = {"instances": [""] * 200_000}
    tracemalloc.start()
    try:
        assert "holds 200000 videos; at most 64" in refused(body, limits=Limits())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000  # an error for each would take 40 MB


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": TEXT, "num_clips": 11, "num_crops": 3}, "33 views in all; at most 30"),
        ({"instances": [TEXT] * 2, "num_clips": 16}, "32 views in all; at most 30"),
        ({"instances": [{"data": TEXT, "num_clips": 20}, {"data": TEXT, "num_clips": 4, "num_crops": 3}]}, "32 views"),
        ({"inputs": [tensor(TEXT, TEXT)], "num_clips": 16}, "32 views"),
        ({"data": TEXT, "num_clips": 2, "top_k": 51, "format": "full"}, "102 predictions in all; at most 100"),
        ({"instances": [TEXT] * 3, "top_k": 34}, "102 predictions in all; at most 100"),
        ({"data": TEXT, "stride_sec": 1, "top_k": 101}, "101 predictions in all; at most 100"),
    ],
)
def test_what_all_videos_of_a_body_ask_for_is_bounded(body: dict[str, Any], message: str) -> None:
    assert refused(body).startswith(f"this body asks for {message}")


@pytest.mark.parametrize(
    "body",
    [
        {"data": TEXT, "num_clips": 10, "num_crops": 3},
        {"instances": [TEXT] * 3, "num_clips": 10},
        {"data": TEXT, "num_clips": 20, "top_k": 100, "format": "list"},  # one list of predictions for all clips
        {"instances": [TEXT] * 5, "stride_sec": 0.01},  # how many windows these are is known when they are read
    ],
)
def test_up_to_the_bounds_all_is_taken(body: dict[str, Any]) -> None:
    assert not [each for each in parse(body).requests if isinstance(each, RequestError)]


def test_the_defaults_admit_a_long_timeline() -> None:
    """An hour at one-second strides, with three crops or with the default number of labels."""
    limits = Limits()
    assert limits.max_views >= 3600 * 3
    assert limits.max_predictions >= 3600 * 5
    assert parse({"data": TEXT, "num_clips": limits.max_windows, "num_crops": 3}, limits).requests


@pytest.mark.parametrize("given", ["\ud800", "a\udfff", "\udc00\ud800"])
def test_an_id_that_cannot_be_encoded_is_refused(given: str) -> None:
    message = refused({"id": given, "inputs": [tensor(TEXT)]}, InvalidEncoding)
    assert message.startswith("id holds a character that UTF-8 cannot encode")
    assert message.encode()


def test_an_id_is_repeated_unless_it_is_long() -> None:
    assert parse({"id": "é\U0001f600", "inputs": [tensor(TEXT)]}).id == "é\U0001f600"
    assert parse({"id": "x" * 1000, "inputs": [tensor(TEXT)]}).id == "x" * 1000
    assert "1001 characters; at most 1000" in refused({"id": "x" * 1001, "inputs": [tensor(TEXT)]}, InvalidEncoding)


def test_a_label_that_cannot_be_encoded_is_escaped() -> None:
    encoded = to_json({"\ud800 é": 1.0})
    assert encoded == '{"\\ud800 é": 1.0}'.encode()
    assert json.loads(encoded) == {"\ud800 é": 1.0}
    envelope = Envelope("oip_v2", (UnsupportedVideo("x"),), id="1")
    body = json.loads(render_reply(envelope, [{"\ud800": 1.0}], model="m", version="1").body)
    assert json.loads(body["outputs"][0]["data"][0]) == {"\ud800": 1.0}


def test_a_request_whose_time_is_over_fails_as_a_whole() -> None:
    late = RequestTimeout("too slow")
    envelope = Envelope("kserve_v1", (late, late, late))
    reply = render_reply(envelope, [UnsupportedVideo("x"), {"run": 1.0}, late], model="m", version="1")
    assert (reply.status, json.loads(reply.body)["type"]) == (504, "RequestTimeout")


def test_a_shape_of_huge_numbers_is_not_multiplied() -> None:
    shape = [10**4000] * 20_000  # their product has 80 million digits
    assert "its data has 1 elements" in refused({"inputs": [tensor(TEXT, shape=shape)]}, InvalidEncoding)


@pytest.mark.parametrize("blank", ["\n", " ", "\r\n", "\t", " \n\f\v"])
@pytest.mark.parametrize("every", [1, 4, 76])
def test_base64_with_blanks_takes_memory_in_proportion(blank: str, every: int) -> None:
    video = bytes(range(256)) * 3_000
    text = base64.b64encode(video).decode()
    text = blank.join(text[at : at + every] for at in range(0, len(text), every))
    tracemalloc.start()
    try:
        (request,) = parse({"data": text}).requests
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not isinstance(request, RequestError)
    assert request.payload == video
    assert peak < 3 * len(text)  # text.split() took up to 25 times as much


def test_the_size_is_checked_before_anything_is_copied() -> None:
    text = "A A A A " * 250_000
    tracemalloc.start()
    try:
        assert len(refused({"data": text}, RequestError, Limits(max_video_bytes=1000))) < 200
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("blank", ["\xa0", "\u2028", "\x1c", "\0"])
def test_only_ascii_blanks_are_allowed(blank: str) -> None:
    refused({"data": TEXT + blank}, InvalidEncoding)


@pytest.mark.parametrize(("videos", "windows", "top_k"), [(1, 125, 400), (1, 4096, 12), (3, 4096, 4), (64, 192, 4)])
def test_the_largest_answer_that_is_allowed_is_below_10_mb(videos: int, windows: int, top_k: int) -> None:
    """With Kinetics' labels, a segment for each window, and in the form that escapes its quotes."""
    labels = R3D_18_Weights.KINETICS400_V1.meta["categories"]
    options = RequestOptions(top_k=top_k, sampling=Sampling(stride_sec=0.001), format="full")
    check_demand([Demand(options, windows)] * videos, Limits())
    scores = VideoScores(
        tuple(WindowScores(Window(k / 1000, k / 1000 + 1.6), _peak(k % 2)) for k in range(windows)), REPORT, 1.0, 1.0
    )
    answer = render(scores, options, labels, model="x3d_xs", version="1.0", spec=get_spec("x3d_xs"))
    assert isinstance(answer, dict)
    assert len(answer["segments"]) == windows
    envelope = Envelope("oip_v2", (UnsupportedVideo("x"),) * videos, id="x" * 1000)
    body = render_reply(envelope, [answer] * videos, model="x3d_xs", version="1.0").body
    assert 4_000_000 < len(body) < 10_000_000


def _peak(label: int) -> NDArray[np.float32]:
    """One view's logits, all different, so that every score has all of its digits."""
    logits = np.linspace(-1.0, 1.0, 400, dtype=np.float32)[None]
    logits[0, label] = 9.0
    return logits
