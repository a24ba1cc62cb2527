"""What has to hold in the manifests, read as YAML: no program of a cluster is needed. tests/deploy renders them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.supervise import _STOP_SEC, DEFAULT_DRAIN_SEC
from tests.support.paths import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes"
MANIFESTS = sorted([*FOLDER.rglob("*.yaml"), REPOSITORY / "deploy" / "gateway" / "kustomization.yaml"])


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def pod() -> Any:
    return read("base/deployment.yaml")["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(FOLDER.parent)))
def test_files_are_manifests_and_name_files_that_are_there(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert {"apiVersion", "kind"} <= content.keys()
    for key in ("resources", "components"):
        for each in content.get(key, []):
            assert (path.parent / each).exists(), each
    for generator in content.get("configMapGenerator", []):
        for each in generator["files"]:
            assert (path.parent / each).exists(), each


def test_every_manifest_is_used() -> None:
    used = {
        (path.parent / each).resolve()
        for path in MANIFESTS
        if path.name == "kustomization.yaml"
        for each in yaml.safe_load(path.read_text()).get("resources", [])
    }
    assert {path for path in MANIFESTS if path.name != "kustomization.yaml"} <= used


def test_a_rollout_takes_no_replica_away_before_another_one_answers(pod: Any) -> None:
    assert read("base/deployment.yaml")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (gateway,) = pod["initContainers"]
    assert gateway["restartPolicy"] == "Always", "a sidecar, which ends after TorchServe"
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_grace_period_holds_all_that_happens_in_it(pod: Any) -> None:
    before_sec = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= before_sec + DEFAULT_DRAIN_SEC + _STOP_SEC


def test_containers_may_do_nothing_that_they_need_not(pod: Any) -> None:
    for container in [*pod["containers"], *pod["initContainers"]]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["runAsUser"] > 0
        assert "memory" in container["resources"]["limits"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False


def test_selectors_select_the_pods(pod: Any) -> None:
    spec = read("base/deployment.yaml")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    assert read("base/service.yaml")["spec"]["selector"] == labels
    assert read("base/disruption-budget.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert read("base/network-policy.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert read("components/monitoring/pod-monitor.yaml")["spec"]["selector"]["matchLabels"] == labels


def test_open_ports_are_the_gateways(pod: Any) -> None:
    (gateway,) = pod["initContainers"]
    named = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert pod["containers"][0]["ports"] == []
    policy = read("base/network-policy.yaml")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == set(named.values())
    assert policy["egress"] == []
    text = (REPOSITORY / "deploy" / "gateway" / "haproxy.cfg").read_text()
    assert f"*:{named['clients']}" in text
    assert f"*:{named['operations']}" in text


def test_volumes_are_declared(pod: Any) -> None:
    declared = {volume["name"] for volume in pod["volumes"]}
    mounted = {mount["name"] for each in [*pod["containers"], *pod["initContainers"]] for mount in each["volumeMounts"]}
    assert declared == mounted


def test_images_and_replicas_are_the_overlays_business() -> None:
    for overlay in ("cpu", "gpu", "one-machine"):
        content = read(f"overlays/{overlay}/kustomization.yaml")
        assert [image["name"] for image in content["images"]] == ["video-serving"]
        assert content["namespace"] == "video-serving"
