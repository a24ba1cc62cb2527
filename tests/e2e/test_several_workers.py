"""Several light workers of one model on a real server: streamed answers, upgrades under load, a killed worker."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from serving.server import TorchServe
from tests.support.grpc_stubs import load_stubs
from tests.support.traffic import Client, steady, variant
from video_action_client import StreamEnd, StreamSegment, StreamStart, StreamWindow, Timeline
from video_action_client.errors import EmptyClip, UnsupportedVideo

pytestmark = pytest.mark.e2e

MODEL = "several"
WORKERS = 2
SETTINGS = {"minWorkers": WORKERS, "maxWorkers": WORKERS, "batchSize": 1}
UPGRADES = 3


@pytest.fixture(scope="module")
def several(server: TorchServe, x3d_xs_archive: Path) -> Iterator[str]:
    archive = variant(x3d_xs_archive, MODEL, settings=SETTINGS)
    server.register(archive.name, workers=WORKERS)
    yield MODEL
    with contextlib.suppress(Exception):
        server.unregister(MODEL)


def test_lines_come_one_by_one_and_hold_the_full_answer(server: TorchServe, several: str, h264_video: bytes) -> None:
    headers = {**server.headers(), "Content-Type": "application/octet-stream", "X-Stride-Sec": "0.5", "X-Top-K": "3"}
    url = f"{server.inference_url}/predictions/{several}"
    full = requests.post(url, data=h264_video, headers=headers, timeout=60).json()
    with requests.post(
        url, data=h264_video, headers={**headers, "Accept": "application/x-ndjson"}, timeout=60, stream=True
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.iter_lines()]
    named: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        named.setdefault(line.pop("event"), []).append(line)
    (start,), (end,) = named["start"], named["end"]
    assert [window.pop("index") for window in named["window"]] == list(range(start["windows"]))
    assert named["window"] == full["timeline"]
    assert named["segment"] == full["segments"]
    assert (start["sampling"], end["predictions"]) == (full["sampling"], full["predictions"])
    late = {name: end[name] for name in ("frames_decoded", "plan_fallback", "warnings")}
    assert {**start["video"], **late} == full["video"]


def test_the_client_streams(server: TorchServe, several: str, h264_video: bytes) -> None:
    with server.client() as client:
        whole = client.timeline(h264_video, model=several, stride_sec=0.5)
        start, *events, end = client.stream(h264_video, model=several, stride_sec=0.5)
        assert isinstance(start, StreamStart)
        assert isinstance(end, StreamEnd)
        assert isinstance(end.answer, Timeline)
        assert tuple(event.clip for event in events if isinstance(event, StreamWindow)) == whole.windows
        assert tuple(event.segment for event in events if isinstance(event, StreamSegment)) == whole.segments
        assert end.answer.predictions == whole.predictions
        # What is wrong before the first window is an ordinary refusal.
        with pytest.raises(UnsupportedVideo):
            list(client.stream(b"no video at all", model=several))
        with pytest.raises(EmptyClip):
            list(client.stream(h264_video, model=several, start_sec=3600.0))


def test_a_client_that_leaves_a_stream_leaves_the_worker_well(
    server: TorchServe, several: str, h264_video: bytes
) -> None:
    pids = server.worker_pids(several)
    with server.client() as client:
        expected = client.classify(h264_video, model=several)
        for _ in range(2 * WORKERS):
            events = client.stream(h264_video, model=several, stride_sec=0.02)
            assert isinstance(next(events), StreamStart)
            events.close()
        assert client.classify(h264_video, model=several).predictions == expected.predictions
    assert server.worker_pids(several) == pids


def test_streaming_is_refused_over_grpc_and_in_bodies_of_several(
    server: TorchServe, several: str, h264_video: bytes
) -> None:
    client = Client(server, several)
    (answer,) = client.grpc_all([h264_video], stream="true")
    assert (answer.status, answer.json()["type"]) == (400, "InvalidOption")
    assert "over HTTP alone" in answer.json()["message"]
    body = {"instances": [{"data": base64.b64encode(h264_video).decode()}], "stream": True}
    response = requests.post(
        f"{server.inference_url}/v1/models/{several}:predict", json=body, headers=server.headers(), timeout=60
    )
    assert response.status_code == 400
    assert "one video" in response.json()["message"]
    assert client.post(h264_video).status == 200


def test_workers_see_each_other(server: TorchServe, several: str, h264_video: bytes) -> None:
    """`describe` is answered by one of them, and tells what the others do."""
    client = Client(server, several)
    with server.client() as management, steady(lambda: client.post(h264_video, num_clips="20"), threads=1) as stream:
        deadline = time.monotonic() + 60
        seen = 0
        while not seen and time.monotonic() < deadline:
            seen = (management.describe(several).metadata or {})["other_busy_workers"]
    assert seen == 1
    assert {answer.status for answer in stream.answers} == {200}


def test_a_worker_that_is_killed_costs_its_own_request(server: TorchServe, several: str, h264_video: bytes) -> None:
    client = Client(server, several)
    before = server.worker_pids(several)
    with steady(lambda: client.post(h264_video, num_clips="10"), threads=WORKERS) as stream:
        time.sleep(0.5)
        os.kill(before[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(set(server.worker_pids(several)) - {before[0]}) < WORKERS:
            assert time.monotonic() < deadline, "the worker was not replaced"
            time.sleep(0.1)
    assert stream.failures == []
    failed = [answer.status for answer in stream.answers if answer.status != 200]
    assert failed in ([], [500], [507]), "TorchServe's own answers to a request whose worker died"
    assert client.post(h264_video).status == 200
    assert before[1] in server.worker_pids(several)


def test_no_documented_call_hangs_the_model(server: TorchServe, several: str, h264_video: bytes) -> None:
    """More of each than there are workers: what hung one would hang the next request in the end."""
    stubs, metadata = load_stubs(), [("authorization", server.headers()["Authorization"])]
    with server.client() as management, grpc.insecure_channel(f"127.0.0.1:{server.grpc_inference_port}") as channel:
        stub = stubs.inference_grpc.InferenceAPIsServiceStub(channel)

        def request(**more: str) -> Any:
            return stubs.inference.PredictionsRequest(model_name=several, input={"data": h264_video}, **more)

        for _ in range(2 * WORKERS):
            assert management.describe(several).metadata is not None
            with contextlib.suppress(grpc.RpcError):
                list(stub.StreamPredictions2(iter([request(sequence_id="a")]), metadata=metadata, timeout=20))
            assert list(stub.StreamPredictions(request(), metadata=metadata, timeout=60))
            stub.Predictions.future(request(), metadata=metadata, timeout=20).cancel()
            stub.StreamPredictions(request(), metadata=metadata, timeout=20).cancel()
    client = Client(server, several)
    assert [client.post(h264_video).status for _ in range(4 * WORKERS)] == [200] * (4 * WORKERS)


def test_upgrades_under_load_lose_no_request(
    server: TorchServe, several: str, x3d_xs_archive: Path, h264_video: bytes
) -> None:
    client = Client(server, several)
    versions = [f"{2 + number}.0" for number in range(UPGRADES)]
    archives = [variant(x3d_xs_archive, MODEL, version=version, settings=SETTINGS) for version in versions]
    with server.client() as management, steady(lambda: client.post(h264_video, format="full"), threads=3) as stream:
        for archive, version in zip(archives, versions, strict=True):
            assert management.upgrade(several, archive.name) == version
            assert [info.version for info in server.versions(several)] == [version]
    assert stream.failures == []
    assert {answer.status for answer in stream.answers} == {200}
    served = [answer.json()["version"] for answer in stream.answers]
    assert set(served) >= set(versions[:-1])
    assert len(server.worker_pids(several)) == WORKERS
