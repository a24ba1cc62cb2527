"""Options as values: every kind of value in every option has a defined outcome."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import InvalidOption
from handlers.limits import Limits
from handlers.request.option_table import MAX_SECONDS, OPTIONS
from handlers.request.options import Given, RequestOptions, given_by_headers, given_by_name, parse_options
from handlers.video.sampling import Sampling

LIMITS = Limits(max_windows=100)
CLASSES = 400


def parse(values: Mapping[str, object], *, num_classes: int = CLASSES) -> RequestOptions:
    return parse_options(given_by_name(values, others=""), num_classes=num_classes, limits=LIMITS)


def outcome(values: Mapping[str, object]) -> RequestOptions | InvalidOption:
    try:
        return parse(values)
    except InvalidOption as error:
        return error


def message(values: Mapping[str, object]) -> str:
    with pytest.raises(InvalidOption) as caught:
        parse(values)
    return caught.value.message


def test_defaults() -> None:
    assert parse({}) == RequestOptions(top_k=5, sampling=Sampling(), average="prob", format="dict")
    assert parse({}, num_classes=3).top_k == 3
    assert parse({"stride_sec": 1}).format == "full"
    assert parse({"stride_sec": 1, "format": "list"}).format == "list"


def test_every_option_has_its_place() -> None:
    options = parse({"top_k": 7, "start_sec": 1.5, "end_sec": 4, "num_clips": 10, "num_crops": 3, "average": "score"})
    assert options.sampling == Sampling(start_sec=1.5, end_sec=4.0, num_clips=10, num_crops=3)
    assert (options.top_k, options.average) == (7, "score")


@pytest.mark.parametrize("value", [3, 3.0, "3", b"3", bytearray(b"3"), " 3 ", "+3", "03"])
def test_integers_as_json_and_as_text(value: object) -> None:
    assert parse({"top_k": value}).top_k == 3


@pytest.mark.parametrize("value", [2, 2.0, "2", "2.0", "2.", "20e-1", b"2", " 2 ", "+2"])
def test_seconds_as_json_and_as_text(value: object) -> None:
    assert parse({"start_sec": value}).sampling.start_sec == 2.0


@pytest.mark.parametrize("value", [0.25, "0.25", ".25", b"25e-2"])
def test_a_threshold_is_a_share(value: object) -> None:
    assert parse({"threshold": value}).threshold == 0.25


@pytest.mark.parametrize("value", [-0.1, 1.01, "half", float("nan")])
def test_other_thresholds_are_refused(value: object) -> None:
    assert message({"threshold": value}).startswith("threshold must be a number from 0 to 1")


@pytest.mark.parametrize("name", OPTIONS)
def test_null_is_not_given(name: str) -> None:
    assert parse({name: None}) == parse({})


BAD_NUMBERS: list[object] = [
    "",
    " ",
    b"",
    "x",
    "1x",
    "0x10",
    "1_0",
    "٣",
    "nan",
    "inf",
    "-inf",
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    "true",
    [],
    [1],
    {},
    b"\xff",
    -1,
    "-1",
    "1e999",
    10**400,
    10**9000,
    "9" * 5000,
]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=range(len(BAD_NUMBERS)))
@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.kind in ("integer", "number")])
def test_bad_numbers(name: str, value: object) -> None:
    text = message({name: value})
    assert text.startswith(f"{name} must be ")
    assert ", got " in text
    assert len(text) < 250


@pytest.mark.parametrize(
    ("value", "stream"), [(True, True), ("true", True), (b" TRUE ", True), (False, False), ("False", False)]
)
def test_switches_as_json_and_as_text(value: object, stream: bool) -> None:
    options = parse({"stream": value})
    assert options.stream is stream
    assert options.format == ("full" if stream else "dict")


@pytest.mark.parametrize("value", ["", "yes", 1, 0, 1.0, [], {}, b"\xff", math.nan])
def test_bad_switches(value: object) -> None:
    assert message({"stream": value}).startswith("stream must be true or false, got ")


@pytest.mark.parametrize("format", ["dict", "list"])
def test_lines_are_those_of_the_full_format(format: str) -> None:
    assert "leave format out, or give full" in message({"stream": True, "format": format})
    assert parse({"stream": False, "format": format}).format == format


@pytest.mark.parametrize(
    "accept", ["application/x-ndjson", "text/html, Application/X-NDJSON;q=0.9", "*/*,application/x-ndjson"]
)
def test_a_client_that_accepts_lines_gets_them(accept: str) -> None:
    assert given_by_headers({"aCCept": accept})["stream"].value is True
    assert given_by_headers({"Accept": accept, "X-Stream": "false"})["stream"].value == "false"
    assert given_by_headers({"X-Stream": "false", "Accept": accept})["stream"].value == "false"


@pytest.mark.parametrize("accept", ["", "application/json", "*/*", "application/x-ndjsonx", b"application/x-ndjson", 1])
def test_other_clients_do_not(accept: object) -> None:
    assert given_by_headers({"Accept": accept}) == {}


@pytest.mark.parametrize("value", [0, 0.5, "0", "5.0", "5.5", 5.5, 401, "1e1", 10**30])
def test_bad_top_k(value: object) -> None:
    assert message({"top_k": value}).startswith("top_k must be a whole number from 1 to 400, got ")


@pytest.mark.parametrize("value", [0, 2, 4, "2", "left"])
def test_bad_num_crops(value: object) -> None:
    assert message({"num_crops": value}).startswith("num_crops must be one of 1, 3, got ")


@pytest.mark.parametrize("value", [0, 101])
def test_num_clips_is_bounded_by_the_limit(value: int) -> None:
    assert message({"num_clips": value}) == f"num_clips must be a whole number from 1 to 100, got {value}"


@pytest.mark.parametrize("name", ["average", "format"])
@pytest.mark.parametrize("value", ["", "PROB", "Dict", "xml", 1, True, [], b"\xff"])
def test_bad_choices(name: str, value: object) -> None:
    assert message({name: value}).startswith(f"{name} must be one of ")


@pytest.mark.parametrize("name", ["end_sec", "stride_sec"])
@pytest.mark.parametrize("value", [0, -0.0, MAX_SECONDS * 2])
def test_times_above_zero(name: str, value: float) -> None:
    assert message({name: value}).startswith(f"{name} must be a number of seconds above 0 and up to 1000000000, got ")


def test_minus_zero_is_zero() -> None:
    start = parse({"start_sec": -0.0}).sampling.start_sec
    assert math.copysign(1, start) == 1


def test_options_that_exclude_each_other() -> None:
    assert message({"start_sec": 3, "end_sec": 3}) == (
        "end_sec must be greater than start_sec, got start_sec 3 and end_sec 3"
    )
    assert message({"stride_sec": 1, "num_clips": 2}).startswith("stride_sec and num_clips exclude each other")
    assert parse({"stride_sec": 1, "num_clips": 1}).sampling.stride_sec == 1


def test_unknown_option_names_the_allowed() -> None:
    text = message({"topk": 1})
    assert text.startswith("unknown option 'topk'; allowed: top_k, start_sec, end_sec, num_clips, num_crops, ")
    assert len(message({"k" * 10_000: 1})) < 300


def test_headers_in_any_case_and_others_ignored() -> None:
    found = given_by_headers({"x-TOP-k": "3", "X-Start-Sec": "1", "X-Other": "5", "Authorization": "secret"})
    assert set(found) == {"top_k", "start_sec"}
    assert parse_options(found, num_classes=CLASSES, limits=LIMITS).top_k == 3


def test_a_header_in_two_spellings_is_refused() -> None:
    with pytest.raises(InvalidOption, match="the header X-Top-K is given more than once"):
        given_by_headers({"X-Top-K": "3", "x-top-k": "3"})


@pytest.mark.parametrize("name", OPTIONS)
def test_header_values_are_never_repeated(name: str) -> None:
    header = OPTIONS[name].header
    with pytest.raises(InvalidOption) as caught:
        parse_options(given_by_headers({header: "sesame"}), num_classes=CLASSES, limits=LIMITS)
    assert "sesame" not in caught.value.message
    with pytest.raises(InvalidOption) as caught:
        parse_options(given_by_headers({"X-Start-Sec": "77.5", "X-End-Sec": "7.5"}), num_classes=CLASSES, limits=LIMITS)
    assert "7.5" not in caught.value.message


_numbers = st.integers() | st.integers(-1, 401) | st.floats() | st.floats(-1, 20)
_plain = st.none() | st.booleans() | _numbers | _numbers.map(str) | st.text(max_size=60) | st.binary(max_size=60)
_anything = _plain | st.sampled_from(["prob", "score", "dict", "list", "full"]) | st.lists(_plain, max_size=2)


@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)), _anything, max_size=8))
def test_any_values_parse_or_are_refused_in_one_sentence(values: dict[str, Any]) -> None:
    options = outcome(values)
    if isinstance(options, InvalidOption):
        assert len(options.message) < 400
        assert "\n" not in options.message
        json.dumps(options.body())
        return
    sampling = options.sampling
    assert 1 <= options.top_k <= CLASSES
    assert 0 <= sampling.start_sec <= MAX_SECONDS
    assert sampling.end_sec is None or sampling.start_sec < sampling.end_sec <= MAX_SECONDS
    assert 1 <= sampling.num_clips <= LIMITS.max_windows
    assert sampling.num_crops in (1, 3)
    assert sampling.stride_sec is None or 0 < sampling.stride_sec <= MAX_SECONDS
    assert options.average in ("prob", "score")
    assert options.format in ("dict", "list", "full")
    assert type(options.top_k) is int
    assert type(sampling.start_sec) is float


@given(st.integers(1, CLASSES), st.floats(0, MAX_SECONDS), st.integers(1, 100), st.sampled_from([1, 3]))
def test_text_and_json_mean_the_same(top_k: int, start_sec: float, num_clips: int, num_crops: int) -> None:
    values = {"top_k": top_k, "start_sec": start_sec, "num_clips": num_clips, "num_crops": num_crops}
    as_text = {name: str(value) for name, value in values.items()}
    as_bytes = {name: bytearray(text.encode()) for name, text in as_text.items()}
    headers = {OPTIONS[name].header.swapcase(): text for name, text in as_text.items()}
    parsed = parse(values)
    assert parse(as_text) == parsed
    assert parse(as_bytes) == parsed
    assert parse_options(given_by_headers(headers), num_classes=CLASSES, limits=LIMITS) == parsed


def test_shown_values_are_short() -> None:
    for value in ("x" * 10**6, bytearray(b"x" * 10**6), 10**9000, [0] * 10**6, {"a": "x" * 10**6}):
        assert len(Given(value).shown()) < 60
