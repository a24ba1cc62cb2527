"""Rules and dashboard through Prometheus' own programs, and asked of a real one after real traffic."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from deploy.monitoring import ALERTS, PANELS, REQUESTS_IN_SYSTEM
from serving.environment import Ports
from tests.support.deployment import DEPLOY, Gateway, Listening, free_port, gateway, program, wait_for_status

pytestmark = pytest.mark.slow
PANEL_EXPRESSIONS = [(panel.title, expression) for panel in PANELS for _, expression in panel.expressions]
# What camera_motion does not do with a sound video, and so has no series for: nothing is decoded twice.
WITHOUT_SERIES = {"Videos decoded twice by reason"}


def test_promtool_accepts_the_alerts() -> None:
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "rules", str(DEPLOY / "prometheus" / "alerts.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_promtool_accepts_the_dashboards_expressions(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression) in enumerate(PANEL_EXPRESSIONS)
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    up = 'haproxy_server_status{proxy="predictions",state="UP",instance="a"}'
    errors = 'VideoRequestErrors{ModelName="m",ErrorType="InternalError"}'
    queue = 'haproxy_backend_current_queue{proxy="predictions"}'
    alerts = {alert.name: alert for alert in ALERTS}

    def expected(name: str, minutes: int, **labels: str) -> dict[str, object]:
        alert = alerts[name]
        summary = alert.summary
        for label, value in labels.items():
            summary = summary.replace("{{ $labels." + label + " }}", value)
        return {
            "eval_time": f"{minutes}m",
            "alertname": name,
            "exp_alerts": [
                {
                    "exp_labels": {"severity": alert.severity, **labels},
                    "exp_annotations": {"summary": summary, "description": alert.to_do},
                }
            ],
        }

    tests = {
        "rule_files": [str(DEPLOY / "prometheus" / "alerts.yaml")],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "30s",
                "input_series": [
                    {"series": up, "values": "1x20 0x20"},
                    {"series": errors, "values": "0x20 1x20"},
                    {"series": queue, "values": "0x10 3x30"},
                ],
                "alert_rule_test": [
                    {"eval_time": "9m", "alertname": "VideoServingNoReadyReplica", "exp_alerts": []},
                    expected("VideoServingNoReadyReplica", 13),
                    expected("VideoServingReplicaNotReady", 15, instance="a"),
                    {"eval_time": "9m", "alertname": "VideoServingInternalErrors", "exp_alerts": []},
                    expected("VideoServingInternalErrors", 12, ModelName="m"),
                    {"eval_time": "8m", "alertname": "VideoServingQueue", "exp_alerts": []},
                    expected("VideoServingQueue", 12),
                ],
            }
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump(tests))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def prometheus(before_it: Gateway, h264_video: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that has seen answers and refusals of the gateway's replica."""
    binary, folder, port = program("prometheus", "prometheus"), tmp_path_factory.mktemp("prometheus"), free_port()
    scrapes = [
        {
            "job_name": path,
            "metrics_path": path,
            "static_configs": [{"targets": [f"127.0.0.1:{before_it.operations_port}"]}],
        }
        for path in ("/metrics", "/metrics/torchserve")
    ]
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": scrapes}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        wait_for_status(f"http://127.0.0.1:{port}/-/ready", 200)
        for _ in range(8):
            for body in (h264_video, b"no video"):
                url = f"{before_it.url}/predictions/camera_motion"
                requests.post(url, data=body, headers={"Authorization": "Bearer alices-key"}, timeout=120)
            time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def series(url: str, expression: str) -> list[object]:
    answer = requests.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30).json()
    assert answer["status"] == "success", answer
    found: list[object] = answer["data"]["result"]
    return found


def test_an_alert_arrives_in_alertmanager(tmp_path: Path) -> None:
    """A gateway whose TorchServe is not there, and the rules as they are: the alert comes after its minute."""
    alertmanager, binary = (
        program("prometheus-alertmanager", "prometheus-alertmanager"),
        program("prometheus", "prometheus"),
    )
    manager_port, port, nobody = free_port(), free_port(), Ports.free()
    (tmp_path / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    with gateway(Listening(nobody, free_port()), tmp_path) as gate, ExitStack() as stack:
        target = {"static_configs": [{"targets": [f"127.0.0.1:{gate.operations_port}"]}]}
        manager = {"static_configs": [{"targets": [f"127.0.0.1:{manager_port}"]}]}
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(DEPLOY / "prometheus" / "alerts.yaml")],
            "alerting": {"alertmanagers": [manager]},
            "scrape_configs": [{"job_name": "gateway", **target}],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        commands = (
            [alertmanager, f"--config.file={tmp_path}/alertmanager.yml", f"--storage.path={tmp_path}/manager",
             f"--web.listen-address=127.0.0.1:{manager_port}", "--cluster.listen-address=", "--log.level=error"],
            [binary, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        )  # fmt: skip
        for command in commands:
            process = subprocess.Popen(command)
            stack.callback(process.wait)
            stack.callback(process.kill)
        wait_for_status(f"http://127.0.0.1:{manager_port}/-/ready", 200)
        deadline = time.monotonic() + 300
        alerts: list[dict[str, Any]] = []
        while not alerts:
            assert time.monotonic() < deadline, "no alert came"
            time.sleep(1)
            alerts = requests.get(f"http://127.0.0.1:{manager_port}/api/v2/alerts", timeout=30).json()
    (alert,) = (each for each in alerts if each["labels"]["alertname"] == "VideoServingNoReadyReplica")
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == "No replica answers predictions."
    assert alert["status"]["state"] == "active"


@pytest.mark.e2e
@pytest.mark.parametrize(("title", "expression"), PANEL_EXPRESSIONS)
def test_a_panel_shows_something(prometheus: str, title: str, expression: str) -> None:
    found = series(prometheus, expression.replace("$__rate_interval", "1m"))
    assert bool(found) is (title not in WITHOUT_SERIES)


@pytest.mark.e2e
def test_the_autoscalers_query_has_one_value(prometheus: str) -> None:
    assert len(series(prometheus, REQUESTS_IN_SYSTEM)) == 1
