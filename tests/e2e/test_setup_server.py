"""config.properties, metrics.yaml and the server helper, against a real TorchServe with a handler of a few lines."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import psutil
import pytest
import requests

from serving.environment import CONFIG, read_properties
from serving.server import ServerError, TorchServe
from tests.support.archives import tiny_archive
from tests.support.grpc_stubs import load_stubs
from video_action_client.errors import ModelNotFound, ServerBusy, error_in

pytestmark = pytest.mark.e2e

PROBE = """
import os
from ts.metrics.metric_type_enum import MetricTypes
class Probe:
    def initialize(self, context):
        pass
    def handle(self, rows, context):
        model = ["probe", "1.0", "Model"]
        metrics = context.metrics
        metrics.get_metric("VideoTotalTime_bucket", MetricTypes.COUNTER).add_or_update(1, [*model, "+Inf"])
        for stage in ("Decode", "Transform", "Inference"):
            metrics.get_metric(f"Video{stage}Time", MetricTypes.HISTOGRAM).add_or_update(0.02, model)
        metrics.get_metric("VideoFramesDecoded", MetricTypes.COUNTER).add_or_update(13, model)
        metrics.get_metric("VideoBytesReceived", MetricTypes.COUNTER).add_or_update(len(rows[0]["body"]), model)
        metrics.get_metric("VideoRequestErrors", MetricTypes.COUNTER).add_or_update(1, [*model, "EmptyClip"])
        return [{"environment": sorted(os.environ), "bytes": len(row["body"])} for row in rows]
"""
SLEEPY = """
import time
class Sleepy:
    def initialize(self, context):
        pass
    def handle(self, rows, context):
        time.sleep(0.5)
        return ["{}" for row in rows]
"""
BROKEN = """
class Broken:
    def initialize(self, context):
        raise RuntimeError("the package nonesuch is missing")
    def handle(self, rows, context):
        return rows
"""


@pytest.fixture(scope="module")
def probe(torchserve_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    store = tmp_path_factory.mktemp("store")
    tiny_archive(store, "probe", PROBE)
    secrets = {"HF_TOKEN": "x", "aws_secret_access_key": "x", "MY_API_KEY": "x", "DB_PASSWORD": "x", "HARMLESS": "x"}
    with TorchServe(store, ["probe.mar"], env=secrets) as running:
        yield running


def post(server: TorchServe, body: bytes, headers: dict[str, str]) -> dict[str, object]:
    request = urllib.request.Request(
        f"{server.inference_url}/predictions/probe",
        data=body,
        headers={"Content-Type": "application/octet-stream", **headers},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        parsed: dict[str, object] = json.load(answer)
    return parsed


def test_listens_on_loopback_alone(probe: TorchServe) -> None:
    listening = [c.laddr for c in psutil.Process(probe.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    ports = probe.ports
    assert {address.port for address in listening} == {
        ports.inference,
        ports.management,
        ports.metrics,
        ports.grpc_inference,
        ports.grpc_management,
    }


def test_needs_a_key(probe: TorchServe) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(probe, b"video", {})
    assert refusal.value.code == 400
    assert json.load(refusal.value)["type"] == "InvalidKeyException"


def test_the_routes_without_a_key_are_those_that_the_pages_name(probe: TorchServe) -> None:
    """docs/operations.md and docs/security.md."""
    asked = [("GET", "/api-description"), ("OPTIONS", "/"), ("GET", "/ping"), ("GET", "/metrics"), ("GET", "/token"),
             ("GET", "/models"), ("OPTIONS", "/models"), ("POST", "/predictions/probe"), ("GET", "/v2")]  # fmt: skip
    addresses = {"inference": probe.inference_url, "management": probe.management_url, "metrics": probe.metrics_url}
    answered = {
        (name, method, path)
        for name, address in addresses.items()
        for method, path in asked
        if requests.request(method, address + path, timeout=30).status_code == 200
    }
    open_everywhere = {(name, *question) for name in addresses for question in asked[:2]}
    assert answered == open_everywhere | {("metrics", "GET", "/metrics")}


def test_a_key_lasts_as_long_as_the_settings_say(probe: TorchServe) -> None:
    minutes = float(read_properties(CONFIG)["token_expiration_min"])
    written = datetime.fromtimestamp(probe.key_file.stat().st_mtime, UTC)
    text = json.loads(probe.key_file.read_text())["management"]["expiration time"]
    ends = datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    assert abs((ends - written).total_seconds() - 60 * minutes) < 60


def test_hides_secrets_from_workers(probe: TorchServe) -> None:
    environment = post(probe, b"video", probe.headers())["environment"]
    assert isinstance(environment, list)
    assert "HARMLESS" in environment
    assert not {"HF_TOKEN", "aws_secret_access_key", "MY_API_KEY", "DB_PASSWORD"} & set(environment)


def test_takes_a_request_of_100_mib_over_http_and_grpc(probe: TorchServe) -> None:
    size = 100 * 2**20
    assert post(probe, bytes(size), probe.headers())["bytes"] == size
    stubs = load_stubs()
    limits = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{probe.grpc_inference_port}", options=limits) as channel:
        stub = stubs.inference_grpc.InferenceAPIsServiceStub(channel)
        request = stubs.inference.PredictionsRequest(model_name="probe", input={"body": bytes(size)})
        metadata = [("authorization", probe.headers()["Authorization"])]
        answer = stub.Predictions(request, metadata=metadata, timeout=60)
    assert json.loads(answer.prediction)["bytes"] == size


def test_refuses_more_than_200_mib(probe: TorchServe) -> None:
    # Either 413, or a connection closed while the body is still being sent, which is an URLError without a code.
    with pytest.raises(urllib.error.URLError) as refusal:
        post(probe, bytes(200 * 2**20 + 2**16), probe.headers())
    assert getattr(refusal.value, "code", 413) == 413
    assert post(probe, b"video", probe.headers())["bytes"] == 5


def test_registers_from_the_model_store_alone(probe: TorchServe, tmp_path: Path) -> None:
    outside = tiny_archive(tmp_path, "outside", PROBE)
    for url in ("http://127.0.0.1:9/outside.mar", outside.as_uri(), str(outside), f"../{tmp_path.name}/outside.mar"):
        with probe.client() as client, pytest.raises(ModelNotFound) as refusal:
            client.register(url)
        assert refusal.value.status == 404
        with pytest.raises(ServerError):
            probe.register(url)
    probe.register("probe.mar", name="again")
    assert set(probe.models()) == {"probe", "again"}
    assert probe.worker_pids("again")[0] != probe.worker_pids("probe")[0]
    probe.unregister("again")
    assert probe.models() == ["probe"]


def test_exports_the_video_metrics(probe: TorchServe) -> None:
    post(probe, b"video", probe.headers())
    model = 'ModelName="probe",ModelVersion="1.0",Level="Model",'
    wanted = [rf'Video{stage}Time_bucket{{{model}.*le="0.025",}} [1-9]' for stage in
              ("Decode", "Transform", "Inference")]  # fmt: skip
    wanted += [rf'VideoTotalTime_bucket{{{model}le="\+Inf",Hostname="[^"]+",}} [1-9]']
    wanted += [f"VideoFramesDecoded{{{model}", f"VideoBytesReceived{{{model}"]
    wanted += [f'VideoRequestErrors{{{model}ErrorType="EmptyClip",']
    wanted += ["# HELP VideoTotalTime_count Torchserve prometheus counter metric with unit: answered videos\n"]
    deadline = time.monotonic() + 10  # a worker's metrics arrive with its log lines, a moment after the answer
    while missing := [line for line in wanted if not re.search(line, probe.metrics_text())]:
        assert time.monotonic() < deadline, f"not on the metrics port: {missing}"
        time.sleep(0.1)


def test_a_full_queue_is_answered_at_once_and_the_client_says_what_it_means(probe: TorchServe) -> None:
    tiny_archive(probe.model_store, "sleepy", SLEEPY, settings="jobQueueSize: 1\n")
    probe.register("sleepy.mar")
    url = f"{probe.inference_url}/predictions/sleepy"
    headers = {"Content-Type": "application/octet-stream", **probe.headers()}
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: requests.post(url, data=b"v", headers=headers, timeout=60), range(8)))
        busy = [answer for answer in answers if answer.status_code == 503]
        assert busy
        assert len(busy) < 8
        assert "Retry-After" not in busy[0].headers  # docs/operations.md says so
        error = error_in(busy[0].content)
        assert isinstance(error, ServerBusy)
        assert error.message.startswith("the model's queue is full, or none of its workers runs: try again")
    finally:
        probe.unregister("sleepy")


def test_renews_an_expired_key(probe: TorchServe) -> None:
    keys = json.loads(probe.key_file.read_text())
    old = keys["inference"]["key"]
    keys["inference"]["expiration time"] = "2020-01-01T00:00:00.000000000Z"
    probe.key_file.write_text(json.dumps(keys))
    assert post(probe, b"video", probe.headers())["bytes"] == 5
    assert json.loads(probe.key_file.read_text())["inference"]["key"] != old


def test_a_worker_that_cannot_load_is_reported_at_once_and_nothing_stays(
    torchserve_installed: None, tmp_path: Path
) -> None:
    tiny_archive(tmp_path, "broken", BROKEN)
    server = TorchServe(tmp_path, ["broken.mar"])
    try:
        with pytest.raises(ServerError, match="ended while loading: RuntimeError: the package nonesuch is missing"):
            server.start()
        pids = [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]
    finally:
        server.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not server.directory.exists()


def test_stop_ends_every_process(torchserve_installed: None, tmp_path: Path) -> None:
    tiny_archive(tmp_path, "probe", PROBE)
    with TorchServe(tmp_path, ["probe.mar"]) as server:
        pids = {server.pid, *server.worker_pids("probe")}
        assert all(psutil.pid_exists(pid) for pid in pids)
        assert os.getpid() not in pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
