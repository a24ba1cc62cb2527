"""Several light workers of one model on a real server: streamed answers, upgrades under load, a killed worker."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from serving.server import TorchServe
from tests.support.corpus import HUGE, ONE_PER_CODEC, videos
from tests.support.decoding import wait_until
from tests.support.grpc_stubs import load_stubs
from tests.support.traffic import Client, resident_bytes, steady, variant
from video_action_client import StreamEnd, StreamSegment, StreamStart, StreamWindow, Timeline
from video_action_client.errors import ApiError, EmptyClip, UnsupportedVideo

pytestmark = pytest.mark.e2e

MODEL = "several"
WORKERS = 2
SETTINGS = {"minWorkers": WORKERS, "maxWorkers": WORKERS, "batchSize": 1}
STREAMED_FILES = 20
MIXED = int(os.environ.get("MIXED", "2000"))
"""Requests of the mixed run; MIXED=10000 makes it longer still."""
_MOST_GROWTH_MB = 60


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


@pytest.mark.corpus
def test_the_lines_of_real_and_made_files_add_up(server: TorchServe, several: str, corpus: Path) -> None:
    """One file per codec and container, and more: the same windows, segments, labels and times as `full`."""
    files = [corpus / name for name in (*ONE_PER_CODEC, *videos(readable=True)) if name not in HUGE]
    compared, events_seen = 0, 0
    with server.client() as client:
        for file in dict.fromkeys(files):
            if compared == STREAMED_FILES:
                break
            options: dict[str, Any] = {"stride_sec": 1.0 if file.parent.name == "real" else 0.25, "end_sec": 12.0}
            try:
                whole = client.timeline(file, model=several, **options)
            except ApiError as refused:
                with pytest.raises(type(refused)):
                    list(client.stream(file, model=several, **options))
                continue
            start, *events, end = client.stream(file, model=several, **options)
            assert isinstance(start, StreamStart)
            assert isinstance(end, StreamEnd)
            windows = tuple(event.clip for event in events if isinstance(event, StreamWindow))
            segments = tuple(event.segment for event in events if isinstance(event, StreamSegment))
            assert (windows, segments) == (whole.windows, whole.segments), file.name
            assert start.windows == len(windows) or (whole.video.warnings and start.windows > len(windows)), file.name
            assert end.answer.predictions == whole.predictions, file.name
            assert end.answer.sampling == whole.sampling, file.name
            compared, events_seen = compared + 1, events_seen + len(events)
    assert compared == STREAMED_FILES
    assert events_seen > 2 * STREAMED_FILES


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


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_piles_up_over_many_mixed_requests(
    server: TorchServe, several: str, h264_video: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quick ones, timelines, streams that are left, broken files, gRPC: memory and answers after them."""
    client, pids = Client(server, several), server.worker_pids(several)
    expected = client.post(h264_video).body
    statuses: Counter[int] = Counter()

    def ask(number: int) -> int:
        kind = number % 10
        if kind == 0:
            return client.post(h264_video, stride_sec="0.1").status
        if kind == 1:
            with (
                server.client() as streaming,
                contextlib.closing(streaming.stream(h264_video, model=several, stride_sec=0.1)) as events,
            ):
                next(events)
            return 200
        if kind == 2:
            return client.post(b"not a video" * 100).status
        if kind == 3:
            return client.post(h264_video[: 1000 + number % 3000]).status
        if kind == 4:
            return client.post(h264_video, num_clips="10", num_crops="3").status
        if kind == 5:
            return client.grpc_all([h264_video])[0].status
        answer = client.post(h264_video)
        assert answer.status != 200 or answer.body == expected
        return answer.status

    def run(numbers: range) -> None:
        with ThreadPoolExecutor(6) as pool:
            statuses.update(pool.map(ask, numbers))

    run(range(MIXED // 5))
    before = resident_bytes(pids)
    run(range(MIXED // 5, MIXED))
    wait_until("a process that was being replaced is gone", lambda: client.post(h264_video).status == 200)
    after = resident_bytes(pids)
    with capsys.disabled():
        print(f"\n{MIXED} requests: {dict(statuses)}; {before / 2**20:.0f} MiB, then {after / 2**20:.0f} MiB")
    assert set(statuses) <= {200, 415, 422}
    assert server.worker_pids(several) == pids
    assert after - before < _MOST_GROWTH_MB * 2**20
    assert client.post(h264_video).body == expected


@pytest.mark.parametrize("upgrades", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_upgrades_under_load_lose_no_request(
    server: TorchServe, several: str, x3d_xs_archive: Path, h264_video: bytes, upgrades: int
) -> None:
    client = Client(server, several)
    (now,) = [info.version for info in server.versions(several)]
    versions = [f"{int(float(now)) + 1 + number}.0" for number in range(upgrades)]
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
