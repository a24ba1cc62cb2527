"""Bodies of every form with hostile values in any place, through the whole handler: each gets an answer or a refusal.

FUZZ_SECONDS says how long the long run takes.
"""

from __future__ import annotations

import base64
import copy
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ts.context import Context

from handlers.errors import REQUEST_ERRORS, RequestError
from handlers.request.answer import VideoScores, WindowScores
from handlers.request.budgets import planned_windows
from handlers.request.option_table import OPTIONS
from handlers.request.options import VideoRequest
from handlers.single_pathway_handler import SinglePathwayHandler
from handlers.video.sampling import Window
from tests.support.fake_classifier import EXPLANATION, LABELS, REPORT, FakeClassifier, call, rows

FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
STATUSES = {200, *(int(error.status) for error in REQUEST_ERRORS.values())}
HONEST = "good 2"


class FuzzClassifier(FakeClassifier):
    """Scores for whatever came through; every payload is a video of as many windows as its options ask for."""

    def score(self, pending: Sequence[VideoRequest | RequestError]) -> list[VideoScores | RequestError]:
        return [one if isinstance(one, RequestError) else self._all_windows(one) for one in pending]

    def _all_windows(self, request: VideoRequest) -> VideoScores:
        assert request.payload
        count = min(planned_windows(request.options.sampling), 20)
        logits = np.full((request.options.sampling.num_crops, len(LABELS)), 1.0, dtype=np.float32)
        logits[:, len(request.payload) % len(LABELS)] = 3.0
        windows = tuple(
            WindowScores(Window(float(index), index + 1.0), logits, features=logits) for index in range(count)
        )
        return VideoScores(windows, REPORT, inference_ms=5.0, total_ms=10.0, explanation=EXPLANATION)


# Valid bodies ---------------------------------------------------------------------------------------------------------

_text = st.binary(min_size=1, max_size=12).map(lambda content: base64.b64encode(content).decode())
_encoded = _text | _text.map(lambda text: f"data:video/mp4;base64,{text}") | _text.map(lambda text: f" {text}\n")
_values: dict[str, st.SearchStrategy[Any]] = {
    "top_k": st.integers(1, 3) | st.sampled_from(["2", 2.0]),
    "start_sec": st.floats(0, 10),
    "end_sec": st.floats(11, 100),
    "num_clips": st.integers(1, 9),
    "num_crops": st.sampled_from([1, 3]),
    "stride_sec": st.floats(0.1, 9),
    "average": st.sampled_from(["prob", "score"]),
    "format": st.sampled_from(["dict", "list", "full"]),
    "output": st.sampled_from(["scores", "embedding"]),
    "threshold": st.floats(0, 1),
}
_options = st.fixed_dictionaries({}, optional=_values)
_video = _encoded | st.builds(lambda text, options: {"data": text, **options}, _encoded, _options)
_video |= _encoded.map(lambda text: {"b64": text}) | _encoded.map(lambda text: {"video": {"b64": text}})
_name = st.sampled_from(["video", "a", *OPTIONS])
_tensor = st.fixed_dictionaries(
    {
        "name": _name,
        "datatype": st.just("BYTES"),
        "data": st.lists(_encoded | st.lists(_encoded, max_size=3), max_size=3),
    },
    optional={"shape": st.lists(st.integers(0, 3), max_size=2), "parameters": _options},
)
_instances = st.fixed_dictionaries({"instances": st.lists(_video, max_size=4)}, optional={"parameters": _options})
_inputs = st.fixed_dictionaries(
    {"inputs": st.lists(_tensor, max_size=3)}, optional={"id": st.text(max_size=9), "parameters": _options}
)
_json = _video | _instances | _inputs
_fields = st.builds(lambda payload, options: {"data": payload, **options}, st.binary(max_size=20), _options)

# Hostile values -------------------------------------------------------------------------------------------------------


def _deep(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1.5, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf, 10**400, -(10**400), 10**4000,
    "", " ", "\ud800", "a\udfff\ud800", "\0", "\r\nX: 1", "é" * 50, "=" * 9, "A" * 5, "x" * 5000, "data:",
    "data:;base64,",
    "data:,", "data:;base64,\ud800", "BYTES", "FP32", "nan", "1e999", "9" * 5000, "__class__", "{}", "[",
    b"", b"\xff\xfe", bytearray(b"\0" * 50), [], {}, [[]], [None], {"": ""}, {"\ud800": "\ud800"}, {"b64": "\ud800"},
    [""] * 70, ["\ud800"] * 65, [[""] * 40] * 2, [10**4000] * 500, {"data": None}, {"instances": []}, {"inputs": [[]]},
    _deep(100, lambda inner: [inner]), _deep(100, lambda inner: {"data": inner}), set(), object(), 1j, range(3),
]  # fmt: skip
NAMES = [*OPTIONS, "data", "body", "video", "b64", "instances", "inputs", "parameters", "id", "name", "datatype",
         "shape", "outputs", "", "\ud800", "x" * 500, "X-Top-K", "content_type"]  # fmt: skip
_hostile = st.sampled_from(HOSTILE) | st.text(max_size=9) | st.integers() | st.floats() | st.binary(max_size=9)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in the body."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


@st.composite
def damaged(draw: st.DrawFn, bodies: st.SearchStrategy[Any]) -> Any:
    """A valid body in which up to three places are replaced, removed, doubled, renamed or added to."""
    holder = {"body": copy.deepcopy(draw(bodies))}
    for _ in range(draw(st.integers(0, 3))):
        container, key = draw(st.sampled_from(list(_places(holder))))
        change = draw(st.sampled_from(["replace", "remove", "double", "rename", "add"]))
        if change == "replace" or container is holder:
            container[key] = copy.deepcopy(draw(_hostile))
        elif change == "remove":
            del container[key]
        elif change == "double" and isinstance(container, list):
            container.extend(container[key : key + 1] * draw(st.sampled_from([1, 2, 70])))
        elif change == "rename" and isinstance(container, dict):
            container[draw(st.sampled_from(NAMES))] = container.pop(key)
        elif isinstance(container, dict):
            container[draw(st.sampled_from(NAMES))] = copy.deepcopy(draw(_hostile))
    return holder["body"]


_headers = st.dictionaries(
    st.sampled_from(
        [option.header for option in OPTIONS.values()] + ["x-top-k", "explain", "describe", "Content-Type"]
    ),
    st.sampled_from(["3", "0", "True", "\ud800", "", "application/json", "text/plain", "multipart/form-data", "1e999"]),
    max_size=2,
)
_fielded = damaged(_fields).filter(lambda fields: isinstance(fields, dict))
_row: st.SearchStrategy[tuple[dict[str, Any], dict[str, str]]] = st.one_of(
    st.builds(lambda body: ({"body": body}, {"Content-Type": "application/json"}), damaged(_json)),
    st.builds(lambda fields: (fields, {"Content-Type": "multipart/form-data; boundary=x"}), _fielded),
    st.builds(lambda fields: (fields, {}), _fielded),  # gRPC
    st.builds(lambda body: ({"body": bytearray(body)}, {"Content-Type": "application/json"}), st.binary(max_size=40)),
)


def check(handler: Any, row: dict[str, Any], own: dict[str, str], headers: dict[str, str]) -> None:
    """The row is answered in JSON, by itself: the rows around it get the answers that they get without it."""
    data, around = rows(HONEST, HONEST)
    first, found, last = call(
        handler, [data[0], row, data[1]], [around[0], {"explain": "False", **own, **headers} if own else {}, around[1]]
    )
    assert first == last
    assert (first[0], list(first[1])) == (200, ["jump", "run", "sit"])
    status, body = found
    assert status in STATUSES
    if status != HTTPStatus.OK:
        assert set(body) == {"code", "type", "message"}
        assert body["code"] == status
        assert body["type"] != "InternalError", body
        assert body["message"].isprintable()
        assert len(body["message"]) < 500
    json.dumps(body, allow_nan=False)


@pytest.fixture(scope="module")
def fuzzed() -> Any:
    """A handler of its own, whose metrics write nothing."""
    logging.getLogger("ts").setLevel(logging.CRITICAL)

    class Metrics:
        request_ids: Any = None

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    handler: Any = SinglePathwayHandler()
    manifest = {"model": {"modelName": "x3d_xs", "modelVersion": "2.0"}}
    handler.context = Context("clips", "/nowhere", manifest, 8, None, "0.12.0", metrics=Metrics(), model_yaml_config={})
    handler.classifier = FuzzClassifier()
    handler.model_name, handler.model_version = "clips", "2.0"
    return handler


def test_any_body_is_answered_or_refused(fuzzed: Any) -> None:
    _run(fuzzed, examples=300)


@pytest.mark.slow
def test_any_body_is_answered_or_refused_for_long(fuzzed: Any) -> None:
    end = time.monotonic() + FUZZ_SECONDS
    while time.monotonic() < end:
        _run(fuzzed, examples=500)


def _run(handler: Any, *, examples: int) -> None:
    @settings(max_examples=examples, database=None)
    @given(_row, _headers)
    def run(row: tuple[dict[str, Any], dict[str, str]], headers: dict[str, str]) -> None:
        check(handler, *row, headers)

    run()
