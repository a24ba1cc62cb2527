"""Alert rules and the Grafana dashboard, written from the values below.

    python -m deploy.monitoring            write the files
    python -m deploy.monitoring --check    exit 1 where one differs

Files: deploy/prometheus/alerts.yaml (Prometheus' own form), deploy/grafana/dashboard.json, and
deploy/kubernetes/components/monitoring/prometheus-rule.yaml (the operator's).

Metrics called `haproxy_...` come from the gateway, `Video...` and `ts_...` from TorchServe, `kube_...` and
`container_...` from a cluster's own exporters; alerts on the last are silent elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
_BACKENDS = 'proxy=~"predictions|large|grpc"'
REQUESTS_IN_SYSTEM = (
    f"sum(haproxy_backend_current_sessions{{{_BACKENDS}}}) + sum(haproxy_backend_current_queue{{{_BACKENDS}}})"
)
_HEADER = "# Made by `python -m deploy.monitoring`; change deploy/monitoring.py.\n"


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule. `hold` is how long the expression has to be true, as Prometheus writes durations."""

    name: str
    expression: str
    hold: str
    severity: str
    summary: str
    to_do: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph; `unit` is Grafana's name of it."""

    title: str
    unit: str
    expressions: tuple[tuple[str, str], ...]
    """Pairs of legend and expression."""


def _quantile(share: float, metric: str, window: str) -> str:
    return f"histogram_quantile({share}, sum by (le, ModelName) (rate({metric}_bucket[{window}])))"


ALERTS = (
    Alert(
        "VideoServingNoReadyReplica",
        'sum(haproxy_server_status{proxy="predictions",state="UP"}) < 1 or absent(haproxy_server_status)',
        "1m", "critical", "No replica answers predictions.",
        "Look at the log of deploy.supervise and of the worker: a model that does not load says why.",
    ),
    Alert(
        "VideoServingReplicaNotReady",
        'sum by (instance) (haproxy_server_status{proxy="predictions",state="UP"}) < 1',
        "3m", "warning", "The replica {{ $labels.instance }} has not answered predictions for three minutes.",
        "Its liveness probe should have restarted it after one; look at why it does not come up.",
    ),
    Alert(
        "VideoServingServerErrors",
        f'sum(rate(haproxy_backend_http_responses_total{{{_BACKENDS},code="5xx"}}[5m])) > 0.01 * '
        f"sum(rate(haproxy_backend_http_responses_total{{{_BACKENDS}}}[5m]))",
        "5m", "critical", "More than 1 % of the requests fail with 5xx.",
        "503 with a queue means too few replicas, 507 that workers die, 504 that requests take too long.",
    ),
    Alert(
        "VideoServingInternalErrors",
        'sum by (ModelName) (increase(VideoRequestErrors{ErrorType="InternalError"}[10m])) > 0',
        "0m", "warning", "{{ $labels.ModelName }} failed at a request through a defect of its own.",
        "The worker's log has the traceback.",
    ),
    Alert(
        "VideoServingSlow",
        f"{_quantile(0.95, 'VideoTotalTime', '5m')} > 5",
        "10m", "warning", "The slowest twentieth of {{ $labels.ModelName }}'s requests takes more than 5 s.",
        "Compare decoding and inference on the dashboard; set the bound to what clients were promised.",
    ),
    Alert(
        "VideoServingQueue",
        f"sum(haproxy_backend_current_queue{{{_BACKENDS}}}) > 0",
        "5m", "warning", "Requests have waited for a place for five minutes.",
        "More replicas; or the autoscaler has reached its maximum.",
    ),
    Alert(
        "VideoServingMemoryNearLimit",
        'max by (pod) (container_memory_working_set_bytes{container="torchserve"}) > 0.9 * '
        'max by (pod) (kube_pod_container_resource_limits{container="torchserve",resource="memory"})',
        "5m", "warning", "{{ $labels.pod }} uses more than 90 % of its memory limit.",
        "Lower LARGE_BODY or MAX_REQUESTS of the gateway, or raise the limit.",
    ),
    Alert(
        "VideoServingRestarts",
        'increase(kube_pod_container_status_restarts_total{container=~"torchserve|gateway"}[15m]) > 1',
        "0m", "warning", "{{ $labels.pod }} was restarted more than once in 15 minutes.",
        "kubectl describe pod says whether it was memory (OOMKilled) or the liveness probe.",
    ),
    Alert(
        "VideoServingPlanFallbacks",
        "sum by (ModelName) (rate(VideoPlanFallbacks[30m])) > 0.2 * "
        "sum by (ModelName) (rate(VideoTotalTime_count[30m]))",
        "30m", "info", "More than a fifth of {{ $labels.ModelName }}'s videos are decoded twice.",
        "Their packets do not say enough to plan with; the metric's Reason says what is missing.",
    ),
)  # fmt: skip

_WINDOW = "$__rate_interval"
PANELS = (
    Panel("Ready replicas", "short", (("ready", 'sum(haproxy_server_status{proxy="predictions",state="UP"})'),)),
    Panel("Requests in the system", "short", (
        ("with TorchServe", f"sum(haproxy_backend_current_sessions{{{_BACKENDS}}})"),
        ("waiting", f"sum(haproxy_backend_current_queue{{{_BACKENDS}}})"),
    )),
    Panel("Answers by status", "reqps", (
        ("{{code}}", f'sum by (code) (rate(haproxy_frontend_http_responses_total{{proxy="clients"}}[{_WINDOW}]))'),
    )),
    Panel("Requests by backend", "reqps", (
        ("{{proxy}}", f"sum by (proxy) (rate(haproxy_backend_http_requests_total{{{_BACKENDS}}}[{_WINDOW}]))"),
    )),
    Panel("Time of a request in the worker", "s", tuple(
        (f"{share:.0%} {{{{ModelName}}}}", _quantile(share, "VideoTotalTime", _WINDOW)) for share in (0.5, 0.95, 0.99)
    )),
    Panel("Where it goes (95 %)", "s", tuple(
        (what, _quantile(0.95, f"Video{name}Time", _WINDOW))
        for what, name in (("decoding", "Decode"), ("transforms", "Transform"), ("inference", "Inference"))
    )),
    Panel("Refused videos by reason", "reqps", (
        ("{{ErrorType}}", f"sum by (ErrorType) (rate(VideoRequestErrors[{_WINDOW}]))"),
    )),
    Panel("Videos decoded twice by reason", "reqps", (
        ("{{Reason}}", f"sum by (Reason) (rate(VideoPlanFallbacks[{_WINDOW}]))"),
    )),
    Panel("Bytes received", "Bps", (("{{ModelName}}", f"sum by (ModelName) (rate(VideoBytesReceived[{_WINDOW}]))"),)),
    Panel("Frames decoded", "short", (("{{ModelName}}", f"sum by (ModelName) (rate(VideoFramesDecoded[{_WINDOW}]))"),)),
    Panel("Processor", "percent", (("{{instance}}", "avg by (instance) (CPUUtilization)"),)),
    Panel("Memory", "percent", (("{{instance}}", "avg by (instance) (MemoryUtilization)"),)),
)  # fmt: skip


def rules() -> dict[str, Any]:
    """The groups, in Prometheus' form."""
    return {"groups": [{"name": "video-serving", "rules": [_rule(alert) for alert in ALERTS]}]}


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "description": alert.to_do},
    }


def prometheus_rule() -> dict[str, Any]:
    """The same for the Prometheus operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "video-serving"},
        "spec": rules(),
    }


def dashboard() -> dict[str, Any]:
    """Two panels a row, for any Prometheus (a variable chooses it)."""
    return {
        "uid": "video-serving",
        "title": "Video serving",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(ord("A") + index), "datasource": source, "expr": expression, "legendFormat": legend}
        for index, (legend, expression) in enumerate(panel.expressions)
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def files() -> dict[Path, str]:
    """What every file has to hold."""
    return {
        FOLDER / "prometheus" / "alerts.yaml": _HEADER + _yaml(rules()),
        FOLDER / "grafana" / "dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
        FOLDER / "kubernetes/components/monitoring/prometheus-rule.yaml": _HEADER + _yaml(prometheus_rule()),
    }


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=120)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.monitoring", description="Write the alert rules and the dashboard."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is not fresh")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in files().items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(FOLDER.parent)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
