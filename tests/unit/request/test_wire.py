"""TorchServe rows to requests, and answers to bodies. What arrives was recorded from TorchServe 0.12."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import InvalidEncoding, InvalidOption, MissingVideo, RequestError, UnsupportedVideo, VideoTooLarge
from handlers.limits import Limits
from handlers.request.options import VideoRequest
from handlers.request.wire import Envelope, parse_row, render_reply

VIDEO = b"\x00\x00\x00\x18ftypmp42\xff\xfe"
TEXT = base64.b64encode(VIDEO).decode()
LIMITS = Limits(max_video_bytes=1000, max_windows=20)
BINARY = {"Content-Type": "video/mp4", "body": {"content-type": "video/mp4"}}
JSON = {"Content-Type": "application/json", "body": {"content-type": "application/json"}}
FORM = {"Content-Type": "multipart/form-data; boundary=x", "data": {"content-type": ""}, "top_k": {"content-type": ""}}


def parse(row: Mapping[str, object], headers: Mapping[str, object] = BINARY) -> Envelope:
    return parse_row(row, headers, num_classes=400, limits=LIMITS)


def only(row: Mapping[str, object], headers: Mapping[str, object] = BINARY) -> VideoRequest:
    envelope = parse(row, headers)
    assert envelope.form == "plain"
    (request,) = envelope.requests
    assert isinstance(request, VideoRequest)
    return request


def fails(kind: type[RequestError], row: Mapping[str, object], headers: Mapping[str, object] = BINARY) -> str:
    with pytest.raises(kind) as caught:
        parse(row, headers)
    assert type(caught.value) is kind
    return caught.value.message


def test_raw_body() -> None:
    assert only({"body": bytearray(VIDEO)}).payload == VIDEO
    assert type(only({"body": bytearray(VIDEO)}).payload) is bytes


@pytest.mark.parametrize("field", ["data", "body", "video"])
def test_multipart_and_grpc_fields(field: str) -> None:
    request = only({"top_k": bytearray(b"3"), field: bytearray(VIDEO)}, FORM)
    assert (request.payload, request.options.top_k) == (VIDEO, 3)
    assert only({field: bytearray(VIDEO)}, {field: {"content-type": ""}}).payload == VIDEO


@pytest.mark.parametrize("field", ["data", "body", "video", "b64"])
def test_json(field: str) -> None:
    assert only({"body": {field: TEXT, "top_k": 3}}, JSON).payload == VIDEO
    assert only({"body": {field: TEXT, "top_k": 3}}, JSON).options.top_k == 3


def test_json_that_torchserve_left_as_bytes() -> None:
    body = bytearray(json.dumps({"data": TEXT}).encode())
    assert only({"body": body}, {"content-type": "Application/JSON; charset=utf-8"}).payload == VIDEO
    assert only({"body": body}, {"Content-Type": "application/vnd.api+json"}).payload == VIDEO


def test_json_part_of_a_form() -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x", "data": {"content-type": "application/json"}}
    assert only({"data": {"data": TEXT, "top_k": 2}, "top_k": b"9"}, headers).options.top_k == 2


def test_text_is_base64_in_json_and_a_file_elsewhere() -> None:
    assert only({"body": TEXT}, JSON).payload == VIDEO
    assert only({"body": TEXT}, {"body": {"content-type": "text/plain"}}).payload == TEXT.encode()
    assert only({"body": "\ud800"}, {"body": {"content-type": "text/plain"}}).payload == b"\xed\xa0\x80"


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "\n".join(TEXT[at : at + 4] for at in range(0, len(TEXT), 4)) + "\r\n",
        f"data:video/mp4;base64,{TEXT}",
        f"DATA:;BASE64,{TEXT}",
        f"data:video/mp4;codecs=avc1;base64,\n{TEXT}",
    ],
)
def test_base64_and_data_urls(text: str) -> None:
    assert only({"body": {"data": text}}, JSON).payload == VIDEO


@pytest.mark.parametrize(
    "text", ["A", "AAA", "AAA=A", "%%%%", "AAAA====", "AA-_", "é" * 4, "data:video/mp4,xyz", "data:x"]
)
def test_broken_base64(text: str) -> None:
    assert "base64" in fails(InvalidEncoding, {"body": {"data": text}}, JSON)


@pytest.mark.parametrize("value", [5, 1.5, True, [TEXT], {"data": TEXT}, {"b64": TEXT, "x": 1}])
def test_a_video_must_be_text_in_json(value: object) -> None:
    assert "must be base64 text, got" in fails(InvalidEncoding, {"body": {"data": value}}, JSON)


def test_missing_video() -> None:
    for row, headers in (
        ({}, BINARY),
        ({"body": bytearray()}, BINARY),
        ({"body": bytearray()}, JSON),
        ({"body": None}, JSON),
        ({"body": {}}, JSON),
        ({"body": {"data": None}}, JSON),
        ({"body": {"data": ""}}, JSON),
        ({"body": {"data": "data:;base64,"}}, JSON),
        ({"top_k": b"3"}, FORM),
        ({"body": {"instances": []}}, JSON),
        ({"body": {"inputs": []}}, JSON),
    ):
        fails(MissingVideo, row, headers)


def test_too_large() -> None:
    assert fails(VideoTooLarge, {"body": bytearray(1001)}) == "the video has 1001 bytes; at most 1000 are allowed"
    fails(VideoTooLarge, {"body": {"data": base64.b64encode(bytes(1001)).decode()}}, JSON)
    assert len(only({"body": {"data": base64.b64encode(bytes(1000)).decode()}}, JSON).payload) == 1000


def test_the_video_twice() -> None:
    assert "as data and video" in fails(InvalidOption, {"data": b"x", "video": b"x"}, FORM)
    assert "as data and b64" in fails(InvalidOption, {"body": {"data": TEXT, "b64": TEXT}}, JSON)


def test_invalid_json_and_odd_bodies() -> None:
    fails(InvalidEncoding, {"body": bytearray(b"{")}, JSON)
    fails(InvalidEncoding, {"body": bytearray(b"[" * 100_000)}, JSON)
    fails(InvalidEncoding, {"body": [1]}, JSON)
    assert "curl -T" in fails(InvalidEncoding, {}, {"Content-Type": "application/x-www-form-urlencoded"})


def test_nearest_to_the_video_counts() -> None:
    headers = {**JSON, "x-top-k": "9", "X-Num-Crops": "3", "X-Format": "list"}
    options = only({"top_k": b"8", "format": b"full", "body": {"data": TEXT, "top_k": 7}}, headers).options
    assert (options.top_k, options.format, options.sampling.num_crops) == (7, "full", 3)


def test_unknown_options() -> None:
    assert "unknown option 'topk'" in fails(InvalidOption, {"topk": b"1", "body": VIDEO})
    assert "and the video as one of data, body, video" in fails(InvalidOption, {"body": {"data": TEXT, "x": 1}}, JSON)


def test_kserve_v1() -> None:
    body = {
        "instances": [TEXT, {"data": TEXT, "top_k": 1}, {"b64": TEXT}],
        "parameters": {"top_k": 2},
        "average": "score",
    }
    envelope = parse({"body": body}, {**JSON, "X-Top-K": "9"})
    assert envelope.form == "kserve_v1"
    requests = [request for request in envelope.requests if isinstance(request, VideoRequest)]
    assert [request.options.top_k for request in requests] == [2, 1, 2]
    assert {request.options.average for request in requests} == {"score"}
    assert all(request.payload == VIDEO for request in requests)


def test_a_bad_instance_is_an_error_in_its_place() -> None:
    envelope = parse({"body": {"instances": [TEXT, "%", {"data": TEXT, "top_k": 0}, 5, {}]}}, JSON)
    kinds = [type(request) for request in envelope.requests]
    assert kinds == [VideoRequest, InvalidEncoding, InvalidOption, InvalidEncoding, MissingVideo]


def test_open_inference_protocol() -> None:
    body = {
        "id": "x",
        "parameters": {"top_k": 2},
        "inputs": [
            {"name": "average", "datatype": "BYTES", "shape": [1], "data": ["score"]},
            {"name": "a", "datatype": "BYTES", "shape": [2, 1], "data": [[TEXT], [TEXT]]},
            {"name": "b", "datatype": "BYTES", "data": TEXT, "parameters": {"content_type": "base64", "top_k": 1}},
        ],
    }
    envelope = parse({"body": body}, JSON)
    assert (envelope.form, envelope.id) == ("oip_v2", "x")
    requests = [request for request in envelope.requests if isinstance(request, VideoRequest)]
    assert [request.options.top_k for request in requests] == [2, 2, 1]
    assert {request.options.average for request in requests} == {"score"}


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({}, InvalidEncoding),
        ([5], InvalidEncoding),
        ([{"name": "a", "datatype": "FP32", "data": [1]}], InvalidEncoding),
        ([{"name": "a", "datatype": "BYTES", "shape": [2], "data": [TEXT]}], InvalidEncoding),
        ([{"name": "a", "datatype": "BYTES", "shape": [-1], "data": [TEXT]}], InvalidEncoding),
        ([{"name": "a", "datatype": "BYTES", "shape": "x", "data": [TEXT]}], InvalidEncoding),
        ([{"name": "top_k", "datatype": "INT32", "shape": [1], "data": [3]}], MissingVideo),
        ([{"name": "top_k", "data": [3, 4]}], InvalidOption),
        ([{"name": "a", "datatype": "BYTES", "data": []}], MissingVideo),
        ([{"name": ["a"], "datatype": "BYTES", "data": [TEXT], "parameters": {"x": 1}}], InvalidOption),
        ([{"name": "a", "datatype": "BYTES", "data": [TEXT], "parameters": 5}], InvalidOption),
    ],
)
def test_bad_tensors(inputs: object, kind: type[RequestError]) -> None:
    fails(kind, {"body": {"inputs": inputs}}, JSON)


def reply(envelope: Envelope, *answers: Any) -> tuple[HTTPStatus, Any]:
    rendered = render_reply(envelope, answers, model="m", version="2.0")
    return rendered.status, json.loads(rendered.body)


def test_replies() -> None:
    error = UnsupportedVideo("no video")
    plain, v1 = Envelope("plain", (error,)), Envelope("kserve_v1", (error, error))
    assert reply(plain, {"run": 1.0}) == (200, {"run": 1.0})
    assert reply(plain, error) == (415, {"code": 415, "type": "UnsupportedVideo", "message": "no video"})
    assert reply(v1, {"run": 1.0}, error) == (200, {"predictions": [{"run": 1.0}, error.body()]})
    assert reply(v1, error, MissingVideo("none")) == (415, error.body())
    output = {"name": "predictions", "datatype": "BYTES", "shape": [1], "data": ['{"run": 1.0}']}
    named = {"model_name": "m", "model_version": "2.0"}
    assert reply(Envelope("oip_v2", (error,), id="7"), {"run": 1.0}) == (200, {**named, "id": "7", "outputs": [output]})
    assert reply(Envelope("oip_v2", (error,)), {"run": 1.0}) == (200, {**named, "outputs": [output]})


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(TEXT)
_keys = st.sampled_from(
    [
        "data",
        "body",
        "video",
        "b64",
        "top_k",
        "instances",
        "inputs",
        "parameters",
        "id",
        "name",
        "datatype",
        "shape",
        "x",
    ]
)
_json = st.recursive(
    _scalars | st.just("BYTES"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)
_values = _json | st.binary(max_size=20).map(bytearray)


@given(
    st.dictionaries(_keys, _values, max_size=3), st.sampled_from([BINARY, JSON, FORM, {}, {"body": "x", "data": "y"}])
)
def test_any_row_is_parsed_or_refused(row: dict[str, object], headers: dict[str, object]) -> None:
    try:
        envelope = parse(row, headers)
    except RequestError:
        return
    assert envelope.requests
    assert all(isinstance(request, VideoRequest | RequestError) for request in envelope.requests)
    assert all(request.payload for request in envelope.requests if isinstance(request, VideoRequest))
