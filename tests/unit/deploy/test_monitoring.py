"""Alert rules and dashboard: fresh, and about metrics that are exported under those names."""

from __future__ import annotations

import re

import pytest
import yaml

from deploy import monitoring
from tests.support.paths import REPOSITORY

OURS = {
    entry["name"]
    for kinds in (yaml.safe_load((REPOSITORY / "metrics.yaml").read_text()),)
    for section in ("ts_metrics", "model_metrics")
    for metrics in kinds[section].values()
    for entry in metrics
}
EXPRESSIONS = [
    *((alert.name, alert.expression) for alert in monitoring.ALERTS),
    *((panel.title, expression) for panel in monitoring.PANELS for _, expression in panel.expressions),
]


def test_the_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert monitoring.main(["--check"]) == 0, "run `python -m deploy.monitoring`: " + capsys.readouterr().out


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS)
def test_expressions_name_metrics_that_are_exported(name: str, expression: str) -> None:
    plain = re.sub(r'"[^"]*"', "", expression)
    names = set(re.findall(r"\b([A-Z]\w+|[a-z]+_\w+)\b(?=[{\[)]|$| \w)", plain))
    metrics = names - {"histogram_quantile", "__rate_interval"}
    for metric in metrics - {"ModelName", "ErrorType", "Reason"}:
        ours = metric in OURS or re.sub(r"_(bucket|count|sum)$", "", metric) in OURS
        assert ours or metric.startswith(("haproxy_", "kube_", "container_")), metric


def test_alerts_are_told_apart_and_say_what_to_do() -> None:
    names = [alert.name for alert in monitoring.ALERTS]
    assert len(set(names)) == len(names) >= 8
    for alert in monitoring.ALERTS:
        assert alert.severity in ("critical", "warning", "info")
        assert alert.summary.endswith(".")
        assert alert.to_do.endswith(".")


def test_panels_do_not_overlap() -> None:
    panels = monitoring.dashboard()["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len({panel["id"] for panel in panels}) == len(monitoring.PANELS)
