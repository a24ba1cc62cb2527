"""What goes over the wire, against a real TorchServe: routes, input forms, options, answers, errors, gRPC, metrics."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests

from serving.server import TorchServe
from tests.support.grpc_stubs import load_stubs
from tests.support.videos import VideoPlan, make_video

MODEL = "x3d_xs"
ROUTES = (f"/predictions/{MODEL}", f"/predictions/{MODEL}/1.0", f"/models/{MODEL}/invoke", f"/{MODEL}/predict")


class Api:
    """Calls to the server's inference port."""

    def __init__(self, server: TorchServe) -> None:
        self.server = server

    def post(self, path: str = ROUTES[0], *, headers: dict[str, str] | None = None, **body: Any) -> requests.Response:
        url = self.server.inference_url + path
        return requests.post(url, headers={**self.server.headers(), **(headers or {})}, timeout=60, **body)

    def scores(self, payload: bytes, path: str = ROUTES[0], **options: object) -> Any:
        answer = self.post(path, json={"data": _base64(payload), **options})
        assert answer.status_code == 200, answer.text
        return answer.json()


class Grpc:
    """gRPC calls with the token that HTTP calls use."""

    def __init__(self, server: TorchServe) -> None:
        self._stubs = load_stubs()
        self._server = server
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_inference_port}")
        self._stub = self._stubs.inference_grpc.InferenceAPIsServiceStub(self.channel)

    def _arguments(self, fields: dict[str, bytes]) -> tuple[Any, tuple[tuple[str, str], ...]]:
        request = self._stubs.inference.PredictionsRequest(model_name=MODEL, input=fields)
        return request, (("authorization", self._server.headers()["Authorization"]), ("protocol", "gRPC"))

    def predict(self, **fields: bytes) -> Any:
        request, metadata = self._arguments(fields)
        return json.loads(self._stub.Predictions(request, metadata=metadata, timeout=60).prediction)

    def stream(self, **fields: bytes) -> list[Any]:
        request, metadata = self._arguments(fields)
        answers = self._stub.StreamPredictions(request, metadata=metadata, timeout=60)
        return [json.loads(answer.prediction) for answer in answers]


@pytest.fixture(scope="module")
def api(server: TorchServe) -> Api:
    return Api(server)


@pytest.fixture(scope="module")
def rpc(server: TorchServe) -> Iterator[Grpc]:
    client = Grpc(server)
    yield client
    client.channel.close()


@pytest.fixture(scope="module")
def expected(api: Api, h264_video: bytes) -> Any:
    """The plain answer, as every other way of asking must give it."""
    return api.scores(h264_video)


def _base64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def _error(answer: requests.Response, status: int, kind: str) -> str:
    """Checks the error's shape and gives its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"code", "type", "message"}
    assert (body["code"], body["type"]) == (status, kind)
    message: str = body["message"]
    assert "\n" not in message
    return message


def test_five_labels_descending_as_json(api: Api, h264_video: bytes) -> None:
    answer = api.post(data=h264_video, headers={"Content-Type": "video/mp4"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    scores = list(answer.json().values())
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert all(isinstance(score, float) for score in scores)


def test_all_scores_sum_to_one(api: Api, h264_video: bytes) -> None:
    scores = api.scores(h264_video, top_k=400)
    assert len(scores) == 400
    assert sum(scores.values()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("route", ROUTES)
def test_raw_body_on_every_route(api: Api, h264_video: bytes, expected: Any, route: str) -> None:
    for headers in ({}, {"Content-Type": "video/mp4"}, {"Content-Type": "application/octet-stream"}):
        assert api.post(route, data=h264_video, headers=headers).json() == expected


def test_put(server: TorchServe, h264_video: bytes, expected: Any) -> None:
    url = server.inference_url + ROUTES[0]
    assert requests.put(url, data=h264_video, headers=server.headers(), timeout=60).json() == expected


@pytest.mark.parametrize("field", ["data", "body", "video"])
@pytest.mark.parametrize("kind", [None, "video/mp4", "text/plain"])
def test_multipart(api: Api, h264_video: bytes, expected: Any, field: str, kind: str | None) -> None:
    file = (None, h264_video) if kind is None else ("clip.mp4", h264_video, kind)
    files: dict[str, Any] = {field: file, "top_k": (None, "2")}
    assert api.post(files=files).json() == dict(list(expected.items())[:2])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
def test_json(api: Api, h264_video: bytes, expected: Any, route: str, kind: str) -> None:
    for body in (
        {"data": _base64(h264_video)},
        {"data": "data:video/mp4;base64," + _base64(h264_video)},
        {"video": {"b64": _base64(h264_video)}, "top_k": "5"},
        _base64(h264_video),
    ):
        assert api.post(route, data=json.dumps(body), headers={"Content-Type": kind}).json() == expected


def test_kserve_v1(api: Api, h264_video: bytes, expected: Any) -> None:
    text = _base64(h264_video)
    path = f"/v1/models/{MODEL}:predict"
    answer = api.post(path, json={"instances": [text, {"data": text, "top_k": 1}], "parameters": {"top_k": 2}})
    assert answer.status_code == 200
    ranked = list(expected.items())
    assert answer.json() == {"predictions": [dict(ranked[:2]), dict(ranked[:1])]}


def test_kserve_v1_bad_among_good(api: Api, h264_video: bytes, expected: Any) -> None:
    path = f"/v1/models/{MODEL}:predict"
    answer = api.post(path, json={"instances": [_base64(b"no video"), _base64(h264_video), "%"]})
    assert answer.status_code == 200
    first, second, third = answer.json()["predictions"]
    assert (first["code"], first["type"]) == (415, "UnsupportedVideo")
    assert second == expected
    assert (third["code"], third["type"]) == (400, "InvalidEncoding")
    _error(api.post(path, json={"instances": [_base64(b"no video"), "%"]}), 415, "UnsupportedVideo")


def test_open_inference_protocol(api: Api, h264_video: bytes, expected: Any) -> None:
    body = {
        "id": "a1",
        "inputs": [{"name": "video", "shape": [1], "datatype": "BYTES", "data": [_base64(h264_video)]}],
        "parameters": {"format": "dict"},
    }
    answer = api.post(f"/v2/models/{MODEL}/infer", json=body)
    assert answer.status_code == 200
    content = answer.json()
    assert (content["model_name"], content["model_version"], content["id"]) == (MODEL, "1.0", "a1")
    (output,) = content["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("predictions", "BYTES", [1])
    assert json.loads(output["data"][0]) == expected


def test_options_by_query_header_and_field(api: Api, h264_video: bytes) -> None:
    """What is nearest to the video counts: field or key, then query, then header."""
    header = {"X-TOP-k": "4", "Content-Type": "video/mp4"}
    assert len(api.post(data=h264_video, headers=header).json()) == 4
    assert len(api.post(f"/models/{MODEL}/invoke?top_k=3", data=h264_video, headers=header).json()) == 3
    json_body = {"data": _base64(h264_video), "top_k": 2}
    answer = api.post(f"/models/{MODEL}/invoke?top_k=3", json=json_body, headers={"X-Top-K": "4"})
    assert len(answer.json()) == 2


def test_formats(api: Api, h264_video: bytes, expected: Any) -> None:
    listed = api.scores(h264_video, format="list")
    assert {entry["label"]: entry["score"] for entry in listed} == expected
    assert all(isinstance(entry["class_id"], int) for entry in listed)
    full = api.scores(h264_video, format="full")
    assert full["predictions"] == listed
    assert (full["model"], full["version"]) == (MODEL, "1.0")
    assert set(full["timing_ms"]) == {"decode", "transform", "inference", "total"}
    assert "timeline" not in full
    assert full["clips"][0]["predictions"] == listed
    video = full["video"]
    assert (video["width"], video["height"], video["fps"], video["codec"]) == (320, 240, 30.0, "h264")
    assert video["duration_sec"] == pytest.approx(2.0)
    assert video["frames_decoded"] > 0


def test_an_embedding_in_every_form(api: Api, rpc: Grpc, h264_video: bytes) -> None:
    embedding = api.scores(h264_video, output="embedding")
    assert list(embedding) == ["embedding", "length"]
    assert embedding["length"] == len(embedding["embedding"]) == 2048
    assert all(isinstance(number, float) for number in embedding["embedding"])
    headers = {"X-Output": "embedding"}
    assert api.post(data=h264_video, headers=headers).json() == embedding
    assert api.post(files={"data": h264_video}, data={"output": "embedding"}).json() == embedding
    assert api.post(f"/models/{MODEL}/invoke?output=embedding", data=h264_video).json() == embedding
    body = {"instances": [_base64(h264_video)], "parameters": {"output": "embedding"}}
    assert api.post(f"/v1/models/{MODEL}:predict", json=body).json() == {"predictions": [embedding]}
    tensor = {"name": "data", "datatype": "BYTES", "shape": [1], "data": [_base64(h264_video)]}
    answer = api.post(f"/v2/models/{MODEL}/infer", json={"inputs": [tensor], "parameters": {"output": "embedding"}})
    assert json.loads(answer.json()["outputs"][0]["data"][0]) == embedding
    assert rpc.predict(data=h264_video, output=b"embedding") == embedding
    assert api.post(data=h264_video, headers={"X-Output": "features"}).json()["message"].startswith("output must be")
    lines = api.post(data=h264_video, headers={**headers, "Accept": "application/x-ndjson", "X-Stride-Sec": "0.2"})
    events = [json.loads(line) for line in lines.text.splitlines()]
    assert [event["event"] for event in events] == ["start", "window", "window", "window", "end"]
    assert events[1]["embedding"] == embedding["embedding"]
    assert events[-1]["length"] == 2048


def test_timeline(api: Api) -> None:
    video = make_video(VideoPlan(num_frames=150, width=64, height=64))
    full = api.scores(video, stride_sec=0.8, top_k=1)
    starts = [window["start_sec"] for window in full["timeline"]]
    assert starts == pytest.approx([0.0, 0.8, 1.6, 2.4, 3.2])
    assert full["segments"][0]["start_sec"] == 0.0
    assert full["segments"][-1]["end_sec"] == pytest.approx(4.8)
    assert full["sampling"]["stride_sec"] == 0.8


def test_views_are_averaged(api: Api, h264_video: bytes) -> None:
    full = api.scores(h264_video, num_clips=3, num_crops=3, format="full", top_k=400)
    by_clip = [{p["class_id"]: p["score"] for p in clip["predictions"]} for clip in full["clips"]]
    assert len(by_clip) == 3
    for prediction in full["predictions"][:5]:
        mean = sum(clip[prediction["class_id"]] for clip in by_clip) / 3
        assert prediction["score"] == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k must be a whole number from 1 to 400, got 0"),
        ({"top_k": 401}, "top_k must be a whole number from 1 to 400, got 401"),
        ({"top_k": True}, "top_k must be a whole number from 1 to 400, got True"),
        ({"start_sec": -1}, "start_sec must be a number of seconds from 0"),
        ({"start_sec": 2, "end_sec": 1}, "end_sec must be greater than start_sec, got start_sec 2 and end_sec 1"),
        ({"num_crops": 2}, "num_crops must be one of 1, 3, got 2"),
        ({"stride_sec": 1, "num_clips": 2}, "stride_sec and num_clips exclude each other"),
        ({"format": "xml"}, "format must be one of dict, list, full, got 'xml'"),
        ({"topk": 3}, "unknown option 'topk'; allowed: top_k, start_sec"),
    ],
)
def test_bad_options(api: Api, h264_video: bytes, options: dict[str, Any], message: str) -> None:
    answer = api.post(json={"data": _base64(h264_video), **options})
    assert message in _error(answer, 400, "InvalidOption")


def test_no_header_value_comes_back(api: Api, h264_video: bytes) -> None:
    answer = api.post(data=h264_video, headers={"X-Top-K": "sesame", "Content-Type": "video/mp4"})
    assert "sesame" not in _error(answer, 400, "InvalidOption")
    assert "Bearer" not in answer.text


def test_missing_and_broken(api: Api) -> None:
    _error(api.post(data=b""), 400, "MissingVideo")
    _error(api.post(json={"top_k": 3}), 400, "MissingVideo")
    _error(api.post(json={"data": ""}), 400, "MissingVideo")
    _error(api.post(files={"top_k": (None, "3")}), 400, "MissingVideo")
    _error(api.post(json={"data": "AAA"}), 400, "InvalidEncoding")
    _error(api.post(json={"data": 5}), 400, "InvalidEncoding")
    _error(api.post(data=b"{", headers={"Content-Type": "application/json"}), 400, "InvalidEncoding")
    _error(api.post(data=b"just text", headers={"Content-Type": "text/plain"}), 415, "UnsupportedVideo")
    _error(api.post(f"/v1/models/{MODEL}:predict", json={"instances": []}), 400, "MissingVideo")
    _error(api.post(f"/v2/models/{MODEL}/infer", json={"inputs": {}}), 400, "InvalidEncoding")


def test_a_form_says_how_to_send_a_video(api: Api) -> None:
    answer = api.post(data={"data": "AAAA"})
    assert "curl -T" in _error(answer, 400, "InvalidEncoding")


def test_past_the_end(api: Api, h264_video: bytes) -> None:
    message = _error(api.post(json={"data": _base64(h264_video), "start_sec": 60}), 422, "EmptyClip")
    assert "60" in message


def test_a_strangers_describe_and_explain_headers_touch_only_their_row(
    server: TorchServe, api: Api, h264_video: bytes, expected: Any
) -> None:
    pids = server.worker_pids(MODEL)
    described = api.post(data=h264_video, headers={"describe": "True", "Content-Type": "video/mp4"})
    assert described.json()["model"] == MODEL
    best = max(expected, key=expected.get)
    explained = api.post(f"/explanations/{MODEL}", data=h264_video)
    assert (explained.status_code, explained.json()["label"]) == (200, best)
    assert explained.json()["score"] == pytest.approx(expected[best], abs=1e-5)
    other = api.post(f"/explanations/{MODEL}", data=h264_video, headers={"X-Target": "17", "X-Image": "true"}).json()
    assert other["class_id"] == 17
    assert base64.b64decode(other["image"]).startswith(b"\x89PNG")
    for target in ("no such label", "400", "-1"):
        wrong = api.post(f"/explanations/{MODEL}", data=h264_video, headers={"X-Target": target})
        _error(wrong, 400, "InvalidOption")
    _error(api.post(data=h264_video, headers={"X-Target": "17"}), 400, "InvalidOption")
    assert api.post(data=h264_video).json() == expected
    assert server.worker_pids(MODEL) == pids


def test_description(server: TorchServe) -> None:
    url = f"{server.management_url}/models/{MODEL}?customized=true"
    (entry,) = requests.get(url, headers=server.headers("management"), timeout=60).json()
    known = entry["customizedMetadata"]
    known = json.loads(known) if isinstance(known, str) else known
    assert known["spec"]["name"] == MODEL
    assert known["num_labels"] == 400
    assert known["weights"]["kind"] == "random"
    assert len(known["weights"]["sha256"]) == 64
    assert known["limits"]["max_video_bytes"] > 0
    assert {"runtime", "precision", "device", "package_version"} <= set(known)


def test_grpc(rpc: Grpc, h264_video: bytes, expected: Any) -> None:
    assert rpc.predict(data=h264_video) == expected
    assert len(rpc.predict(video=h264_video, top_k=b"3")) == 3
    assert rpc.predict(data=b"no video")["type"] == "UnsupportedVideo"
    assert rpc.predict(data=h264_video, top_k=b"\xff")["type"] == "InvalidOption"
    assert rpc.predict()["type"] == "MissingVideo"


def test_grpc_stream_answers_once_and_keeps_the_worker(
    server: TorchServe, rpc: Grpc, h264_video: bytes, expected: Any
) -> None:
    pids = server.worker_pids(MODEL)
    assert rpc.stream(data=h264_video) == [expected]
    assert rpc.predict(data=h264_video) == expected
    assert server.worker_pids(MODEL) == pids


def test_metrics(server: TorchServe, api: Api, h264_video: bytes) -> None:
    api.scores(h264_video)
    api.post(data=b"no video")
    deadline = time.monotonic() + 10
    wanted = (
        "VideoDecodeTime_count",
        "VideoTransformTime_count",
        "VideoInferenceTime_count",
        'VideoTotalTime_bucket{ModelName="x3d_xs",ModelVersion="1.0",Level="Model",le="120.0"',
        'VideoTotalTime_bucket{ModelName="x3d_xs",ModelVersion="1.0",Level="Model",le="+Inf"',
        "VideoTotalTime_sum",
        "VideoTotalTime_count",
        "VideoRequestsUnderWay_count",
        "VideoFramesDecoded",
        "VideoBytesReceived",
        'VideoRequestErrors{ModelName="x3d_xs",ModelVersion="1.0",Level="Model",ErrorType="UnsupportedVideo"',
    )
    missing = list(wanted)
    while missing and time.monotonic() < deadline:
        values = _values_of(server.metrics_text(), MODEL)
        missing = [name for name in wanted if not any(line.startswith(name) for line in values)]
        time.sleep(0.2)
    assert missing == []
    assert all(value >= 0 for value in values.values())


def _values_of(text: str, model: str) -> dict[str, float]:
    """Metric with its labels -> value, of one model; the server may serve others, too."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if f'ModelName="{model}"' in line]
    return {name: float(value) for name, value in lines}


def test_nothing_of_the_request_is_logged(server: TorchServe, api: Api) -> None:
    api.post(json={"data": "AAA", "start_sec": "confidential"}, headers={"X-End-Sec": "secret-header"})
    log = server.log_text()
    assert "confidential" not in log
    assert "secret-header" not in log
    assert server.headers()["Authorization"].split()[1] not in log
