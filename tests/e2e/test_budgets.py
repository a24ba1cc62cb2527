"""Requests for more than may be had, over a real server: answered in time, beside an honest client, by one worker."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from serving.server import TorchServe
from tests.support.decoding import wait_until
from tests.support.traffic import Answer, Client, LogMark, steady, variant
from tests.support.videos import VideoPlan, make_video

pytestmark = pytest.mark.e2e

MODEL = "bounded"
TIMEOUT_SEC = 6.0
MOST_ANSWER_BYTES = 10_000_000
MOST_LOG_BYTES = 100_000


@pytest.fixture(scope="module")
def bounded(server: TorchServe, x3d_xs_archive: Path) -> Iterator[str]:
    """The model with a shorter time per request, so that a test need not wait a minute for it; all else by default."""
    server.register(variant(x3d_xs_archive, MODEL, settings={"request_timeout_sec": TIMEOUT_SEC}).name)
    yield MODEL
    server.unregister(MODEL)


@pytest.fixture(scope="module")
def long_video() -> bytes:
    return make_video(VideoPlan(num_frames=300, width=64, height=64))


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


Body = Callable[[bytes], tuple[dict[str, str], Any]]


def clips_and_crops(video: bytes) -> tuple[dict[str, str], Any]:
    return {"X-Num-Clips": "4096", "X-Num-Crops": "3"}, video


def tiny_strides(video: bytes) -> tuple[dict[str, str], Any]:
    return {"X-Stride-Sec": "0.00255", "X-Top-K": "400"}, video


def many_clips_in_full(video: bytes) -> tuple[dict[str, str], Any]:
    return {"X-Num-Clips": "4096", "X-Top-K": "400", "X-Format": "full"}, video


def many_empty_instances(video: bytes) -> tuple[dict[str, str], Any]:
    return {}, {"instances": [""] * 200_000}


def many_empty_elements(video: bytes) -> tuple[dict[str, str], Any]:
    return {}, {"inputs": [{"name": "v", "datatype": "BYTES", "data": [""] * 200_000}]}


def many_bad_videos(video: bytes) -> tuple[dict[str, str], Any]:
    return {}, {"instances": ["%"] * 32 + [base64_of(b"no video")] * 32}


def instances_with_strides(video: bytes) -> tuple[dict[str, str], Any]:
    return {}, {"instances": [base64_of(video)] * 60, "parameters": {"stride_sec": 0.0021, "num_crops": 3}}


def an_id_that_cannot_be_encoded(video: bytes) -> tuple[dict[str, str], Any]:
    return {}, {"id": "\ud800", "inputs": [{"name": "v", "datatype": "BYTES", "data": [base64_of(video)]}]}


@pytest.mark.parametrize(
    ("body", "outcomes"),
    [
        (clips_and_crops, {(504, "RequestTimeout")}),
        (many_clips_in_full, {(400, "InvalidOption")}),
        (many_empty_instances, {(400, "InvalidOption")}),
        (many_empty_elements, {(400, "InvalidOption")}),
        (many_bad_videos, {(400, "InvalidEncoding")}),
        (tiny_strides, {(400, "InvalidOption")}),
        # Too much, unless the time is over before the decoder has counted enough of the videos.
        (instances_with_strides, {(400, "InvalidOption"), (504, "RequestTimeout")}),
        (an_id_that_cannot_be_encoded, {(400, "InvalidEncoding")}),
    ],
)
def test_what_asks_for_too_much_beside_an_honest_client(
    server: TorchServe,
    bounded: str,
    h264_video: bytes,
    long_video: bytes,
    body: Body,
    outcomes: set[tuple[int, str]],
) -> None:
    pids = server.worker_pids(bounded)
    honest = Client(server, bounded)
    expected = honest.post(h264_video)
    assert expected.status == 200
    with steady(lambda: honest.post(h264_video), threads=1) as stream:
        answer = send(server, *body(long_video))
        after = honest.post(h264_video)
    assert (answer.status, answer.json()["type"]) in outcomes
    assert stream.failures == []
    assert {(each.status, each.body) for each in [*stream.answers, after]} == {(200, expected.body)}
    assert len(answer.body) < MOST_ANSWER_BYTES
    assert server.worker_pids(bounded) == pids
    logged = LogMark(server)
    again = send(server, *body(long_video))
    assert again.status == answer.status
    wait_until("the request in the log", lambda: "ACCESS_LOG" in logged.since())
    assert len(logged.since().encode()) < MOST_LOG_BYTES


def send(server: TorchServe, headers: dict[str, str], body: Any) -> Answer:
    url = f"{server.inference_url}/predictions/{MODEL}"
    headers = {**server.headers(), **headers}
    if isinstance(body, bytes):
        headers["Content-Type"] = "application/octet-stream"
        answer = requests.post(url, data=body, headers=headers, timeout=60)
    else:
        headers["Content-Type"] = "application/json"
        answer = requests.post(url, data=json.dumps(body), headers=headers, timeout=60)
    return Answer(answer.status_code, answer.content, answer.elapsed.total_seconds())
