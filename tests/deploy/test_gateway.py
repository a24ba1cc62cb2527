"""The gateway before a real TorchServe: keys, paths, limits, HTTP and gRPC on one port, readiness, a drain."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.support.archives import tiny_archive
from tests.support.deployment import (
    DEPLOY,
    Gateway,
    Supervised,
    edge,
    gateway,
    padded,
    program,
    supervised,
    wait_for_status,
)
from tests.support.paths import REPOSITORY
from video_action_client import GrpcVideoClient, VideoClient

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ALICE = {"Authorization": "Bearer alices-key"}


def predict(gate: Gateway, body: bytes, **headers: str) -> requests.Response:
    return requests.post(f"{gate.url}/predictions/camera_motion", data=body, headers={**ALICE, **headers}, timeout=120)


@pytest.mark.parametrize("tls", [False, True])
def test_the_configuration_is_valid(tmp_path: Path, tls: bool) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key client\n")
    certificate = REPOSITORY / "tests" / "support" / "loopback_tls.pem"
    env = {"KEYS": str(keys)} | ({"TLS": str(certificate)} if tls else {})
    command = [program("haproxy", "haproxy"), "-c", "-f", str(DEPLOY / "gateway" / "haproxy.cfg")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, "WARNING" in done.stderr + done.stdout) == (0, False), done.stderr


def test_answers_are_those_of_the_server_itself(before_it: Gateway, replica: Supervised, h264_video: bytes) -> None:
    url = f"http://127.0.0.1:{replica.ports.inference}/predictions/camera_motion"
    direct = requests.post(url, data=h264_video, headers={"Content-Type": "video/mp4"}, timeout=120)
    through = predict(before_it, h264_video, **{"Content-Type": "video/mp4"})
    assert (through.status_code, through.content) == (200, direct.content)


@pytest.mark.parametrize("header", [None, "Bearer ", "Bearer alices-ke", "Bearer alices-key alice", "Basic YTpi"])
def test_without_a_key_nothing_is_answered(before_it: Gateway, header: str | None) -> None:
    headers = {"Authorization": header} if header is not None else {}
    for path in ("/predictions/camera_motion", "/ping", "/models", "/"):
        answer = requests.post(before_it.url + path, data=b"x", headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    "path", ["/models", "/models/camera_motion", "/metrics", "/predictions", "/predictions/a/b/c", "/workflows/x",
             "/predictions/../models", "/predictions/%2e%2e/models", "//models", "/v1/models/m:predict",
             "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels"]
)  # fmt: skip
def test_other_paths_are_not_there(before_it: Gateway, path: str) -> None:
    request = requests.Request("GET", before_it.url, headers=ALICE).prepare()
    request.url = before_it.url + path  # as it stands, without a client's cleaning
    with requests.Session() as session:
        assert session.send(request, timeout=30).status_code == 404


def test_methods_are_those_of_the_path(before_it: Gateway) -> None:
    for method, path in (("DELETE", "/predictions/camera_motion"), ("POST", "/ping"), ("PUT", "/api-description")):
        assert requests.request(method, before_it.url + path, headers=ALICE, timeout=30).status_code == 405
    assert requests.get(f"{before_it.url}/api-description", headers=ALICE, timeout=30).status_code == 200


def test_bodies_are_bounded(before_it: Gateway, h264_video: bytes) -> None:
    answer = predict(before_it, b"\0" * 4_000_001)
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "RequestTooLarge")
    large = h264_video + b"\0\0\0\x08free" * 200_000  # boxes of nothing: a large video with the same answer
    assert predict(before_it, large).content == predict(before_it, h264_video).content


def test_a_body_of_unknown_size_is_answered(before_it: Gateway, h264_video: bytes) -> None:
    url = f"{before_it.url}/predictions/camera_motion"
    answer = requests.post(url, data=iter([h264_video]), headers=ALICE, timeout=120)
    assert answer.status_code == 200, answer.text


def test_one_client_gets_its_share(replica: Supervised, tmp_path: Path, h264_video: bytes) -> None:
    with gateway(replica, tmp_path, MAX_PER_CLIENT="1") as gate:
        wait_for_status(f"{gate.operations_url}/healthz", 200)
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: predict(gate, h264_video).status_code, range(16)))
        assert set(statuses) == {200, 429}
        bob = {"Authorization": "Bearer bobs-key"}
        assert requests.get(f"{gate.url}/ping", headers=bob, timeout=30).status_code == 200


def test_large_json_is_refused(replica: Supervised, tmp_path: Path) -> None:
    with gateway(replica, tmp_path) as gate:
        answer = predict(gate, b" " * 20_000_001, **{"Content-Type": "application/json"})
        assert (answer.status_code, "the video itself" in answer.text) == (413, True)


def test_the_clients_work_with_a_key(before_it: Gateway, h264_video: bytes) -> None:
    with VideoClient(before_it.url, token="bobs-key") as client:
        over_http = client.classify(h264_video, model="camera_motion")
        assert client.ready()
    with GrpcVideoClient(f"127.0.0.1:{before_it.port}", token="bobs-key") as client:
        over_grpc = client.classify(h264_video, model="camera_motion")
    assert over_http.top == over_grpc.top


def test_the_log_names_the_client_and_never_the_key(before_it: Gateway, h264_video: bytes) -> None:
    predict(before_it, h264_video, **{"X-Request-Id": 'of-mine"; DROP\tTABLE'})
    predict(before_it, b"no video")
    time.sleep(0.5)
    log = before_it.log.read_text()
    assert '"alice" "POST /predictions/camera_motion HTTP/1.1" 200' in log
    assert "of-mineDROPTABLE" in log
    assert "-key" not in log


def test_operations_tell_state_and_metrics_without_a_key(before_it: Gateway) -> None:
    metrics = requests.get(f"{before_it.operations_url}/metrics", timeout=30).text
    for name in ("haproxy_backend_current_sessions", "haproxy_backend_current_queue", "haproxy_server_status"):
        assert f'{name}{{proxy="predictions"' in metrics
    own = requests.get(f"{before_it.operations_url}/metrics/torchserve", timeout=30).text
    assert "ts_inference_requests_total" in own
    assert requests.get(f"{before_it.operations_url}/stats", timeout=30).status_code == 404


def test_a_worker_that_stands_still_takes_the_replica_out_within_15_seconds(
    embedded_store: Path, tmp_path: Path, h264_video: bytes
) -> None:
    """The worker is stopped, not ended: TorchServe keeps calling it READY."""
    with supervised(embedded_store, tmp_path / "serving") as server, gateway(server, tmp_path) as gate:
        assert requests.get(f"{gate.url}/ping", headers=ALICE, timeout=30).status_code == 503
        wait_for_status(f"{gate.operations_url}/healthz", 200)
        described = requests.get(f"http://127.0.0.1:{server.ports.management}/models/camera_motion", timeout=30).json()
        (worker,) = described[0]["workers"]
        os.kill(worker["pid"], signal.SIGSTOP)
        try:
            wait_for_status(f"{gate.operations_url}/healthz", 503, timeout_sec=15)
            assert requests.get(f"{gate.url}/ping", headers=ALICE, timeout=30).status_code == 503
        finally:
            os.kill(worker["pid"], signal.SIGCONT)
        wait_for_status(f"{gate.operations_url}/healthz", 200)


def test_a_model_that_cannot_load_is_never_ready(tmp_path: Path) -> None:
    broken = "class Broken:\n    def initialize(self, context): raise RuntimeError('no')\n"
    tiny_archive(tmp_path / "store", "broken", broken + "    def handle(self, data, context): return []\n")
    with supervised(tmp_path / "store", tmp_path / "serving") as server, gateway(server, tmp_path) as gate:
        wait_for_status(f"http://127.0.0.1:{server.ports.inference}/ping", 200)  # what TorchServe says of it
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert requests.get(f"{gate.operations_url}/healthz", timeout=30).status_code == 503
            time.sleep(0.5)


def test_a_stop_under_load_loses_no_request(embedded_store: Path, tmp_path: Path, h264_video: bytes) -> None:
    """In the kubelet's order: clients learn of it some time after TorchServe does, and the gateway ends last."""
    with supervised(embedded_store, tmp_path / "serving") as server, gateway(server, tmp_path) as gate:
        wait_for_status(f"{gate.operations_url}/healthz", 200)
        stopping = threading.Event()
        answered: list[int] = []

        def ask() -> None:
            while not stopping.is_set():
                answered.append(predict(gate, padded(h264_video)).status_code)

        with ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(ask) for _ in range(6)]
            while len(answered) < 12 and not any(client.done() for client in clients):
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(1)
            stopping.set()
            for client in clients:
                client.result()
        assert answered == [200] * len(answered)
        assert server.process.wait(60) == 0
        gate.process.send_signal(signal.SIGUSR1)
        assert gate.process.wait(60) == 0
        assert "stopping TorchServe with 0 connections" in server.said()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_replicas_behind_the_edge_are_restarted_and_killed_without_a_loss(
    embedded_store: Path, replica: Supervised, before_it: Gateway, tmp_path: Path, h264_video: bytes
) -> None:
    """One stays; the other is drained, comes back, and is killed, with its gateway. Bodies of 0.8 MB."""
    body, stopping = padded(h264_video), threading.Event()
    answered: list[int] = []
    with ExitStack() as stack:

        def start(name: str) -> tuple[Supervised, Gateway]:
            (tmp_path / name).mkdir()
            server = stack.enter_context(supervised(embedded_store, tmp_path / name / "serving"))
            gate = stack.enter_context(gateway(server, tmp_path / name))
            wait_for_status(f"{gate.operations_url}/healthz", 200)
            return server, gate

        first, second = start("first"), start("second")
        url = stack.enter_context(
            edge([f"127.0.0.1:{gate.port}" for gate in (before_it, first[1], second[1])], tmp_path)
        ).url

        def ask() -> None:
            while not stopping.is_set():
                answer = requests.post(
                    f"{url}/predictions/camera_motion", data=body, headers=ALICE, timeout=120, verify=False
                )
                answered.append(answer.status_code)

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(ask) for _ in range(4)]
            try:
                wait_until(lambda: len(answered) >= 20, clients)
                first[0].process.send_signal(signal.SIGTERM)
                assert first[0].process.wait(120) == 0
                first[1].process.send_signal(signal.SIGUSR1)
                before = len(answered)
                wait_until(lambda: len(answered) >= before + 20, clients)
                second[1].process.kill()
                second[0].kill()
                before = len(answered)
                wait_until(lambda: len(answered) >= before + 20, clients)
            finally:
                stopping.set()
            for client in clients:
                client.result()
    assert answered == [200] * len(answered)


def wait_until(condition: Callable[[], bool], clients: list[Future[None]]) -> None:
    """Until it holds; ends early where a client has failed."""
    while not condition() and not any(client.done() for client in clients):
        time.sleep(0.02)
