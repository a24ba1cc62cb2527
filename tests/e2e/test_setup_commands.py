"""quickstart, env and the literal `torchserve` commands, run in a copy of the repository with ports of its own."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import _quickstart
from serving.archive_settings import read_archive
from serving.environment import REPOSITORY
from serving.install import REQUIREMENTS, installed
from serving.server import Server, stop_processes
from tests.support.checkout import Checkout, copy_checkout

pytestmark = pytest.mark.e2e


@pytest.fixture
def checkout(torchserve_installed: None, tmp_path: Path) -> Iterator[Checkout]:
    if not installed(REQUIREMENTS / "base.txt"):
        pytest.skip("this environment was not made by ./scripts/test, so quickstart would install into it")
    copy = copy_checkout(tmp_path / "checkout")
    yield copy
    stop_processes(copy.processes())


def json_answer(output: str) -> dict[str, float]:
    """The JSON object that quickstart printed."""
    found = re.search(r"^\{$.*?^\}$", output, re.MULTILINE | re.DOTALL)
    assert found is not None, output
    answer: dict[str, float] = json.loads(found[0])
    return answer


def test_quickstart_answers_then_reuses_what_is_there_then_stops_all(checkout: Checkout) -> None:
    first = checkout.run("./scripts/quickstart", "--offline")
    assert first.returncode == 0, first.stdout + first.stderr
    assert " instead, " in first.stdout  # nothing published is cached there, and one line says what is served
    answer = json_answer(first.stdout)
    assert len(answer) == 5
    assert list(answer.values()) == sorted(answer.values(), reverse=True)

    second = checkout.run("./scripts/quickstart", "--offline")
    assert second.returncode == 0, second.stdout + second.stderr
    assert json_answer(second.stdout) == answer
    assert "Packaging" not in second.stdout
    assert "Starting" not in second.stdout

    curl = re.search(r"^  (curl .*)$", second.stdout, re.MULTILINE)
    assert curl is not None
    repeated = checkout.run("bash", "-c", f"cd / && {curl[1]} --silent --show-error")
    assert json.loads(repeated.stdout) == answer, repeated.stderr

    stopped = checkout.run("./scripts/quickstart", "--stop")
    assert stopped.stdout == "TorchServe has stopped.\n"
    assert checkout.processes() == []
    assert not (checkout.root / "key_file.json").exists()
    assert checkout.run("./scripts/quickstart", "--stop").stdout == "TorchServe is not running.\n"


def test_the_literal_commands_after_sourcing_env(checkout: Checkout, x3d_xs_archive: Path, h264_video: bytes) -> None:
    shutil.copy(x3d_xs_archive, checkout.root / "model_store")
    # A PYTHONPATH that names the checkout would shadow the archive's own code.
    env = {"PYTHONPATH": str(checkout.root), "TS_INFERENCE_ADDRESS": "http://127.0.0.1:9"}
    log = checkout.root / "console.log"
    start = f"source scripts/env && torchserve --start --models x3d_xs.mar > {log} 2>&1 < /dev/null"
    assert checkout.run("bash", "-c", start, env=env).returncode == 0
    server = Server(checkout.root, checkout.ports)
    waiting = "source scripts/env && python -m scripts.models wait x3d_xs"
    assert checkout.run("bash", "-c", waiting, env=env).stdout == "x3d_xs is ready\n"
    assert server.is_ready("x3d_xs")

    request = urllib.request.Request(
        f"{server.inference_url}/predictions/x3d_xs",
        data=h264_video,
        headers={"Content-Type": "video/mp4", "X-Top-K": "400", **server.headers()},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        scores: dict[str, float] = json.load(answer)
    assert len(scores) == 400
    assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
    logged = (checkout.root / "logs" / "model_log.log").read_text()
    assert f"MODEL_LOG - request {answer.headers['x-request-id']}: 200 in " in logged
    assert "_LOG - " not in log.read_text()  # the terminal has warnings alone

    for api in ("inference", "management"):
        printed = checkout.run("bash", "-c", f"source scripts/env && cd / && key {api}")
        assert printed.stdout == server.headers(api)["Authorization"].removeprefix("Bearer ") + "\n", printed.stderr

    stop = checkout.run("bash", "-c", "source scripts/env && torchserve --stop", env=env)
    assert "TorchServe has stopped." in stop.stdout
    deadline = time.monotonic() + 30  # the launcher does not wait for the server that it tells to end
    while checkout.processes():
        assert time.monotonic() < deadline, f"still running: {checkout.processes()}"
        time.sleep(0.2)


def test_quickstart_names_a_port_that_another_program_holds(checkout: Checkout) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", checkout.ports.management))
        other.listen()
        refused = checkout.run("./scripts/quickstart", "--offline")
    assert refused.returncode == 1
    assert f"port {checkout.ports.management} of 127.0.0.1 is in use by another program" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_quickstart_makes_random_weights_where_asked_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_quickstart, "MODEL_STORE", tmp_path)
    assert _quickstart.have_archive("camera_motion", weights="random", offline=True) == "camera_motion"
    assert "RANDOM weights" in capsys.readouterr().out
    archive = read_archive(tmp_path / "camera_motion.mar")
    assert archive.info.weights.kind == "random"
    _quickstart.have_archive("camera_motion", weights="random", offline=True)
    assert "has camera_motion.mar already, and keeps it" in capsys.readouterr().out


def test_quickstart_refuses_an_unknown_model_in_one_line(checkout: Checkout) -> None:
    refused = checkout.run("./scripts/quickstart", "--offline", "--model", "nonesuch")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "nonesuch" in refused.stderr
    assert "x3d_s" in refused.stderr
    assert checkout.processes() == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_env_sets_what_torchserve_needs_from_any_folder(checkout: Checkout, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = f"cd / && source {checkout.root}/scripts/env && env && ! key"
    done = checkout.run(shell, "-c", script, env={"PYTHONPATH": "/elsewhere", "TS_CONFIG_FILE": "/elsewhere"})
    assert done.returncode == 0, done.stderr
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert "PYTHONPATH" not in variables
    assert variables["TS_CONFIG_FILE"] == str(checkout.root / "config.properties")
    assert variables["TEMP"] == variables["TMPDIR"] == str(checkout.root / ".serving")
    assert Path(variables["JAVA_HOME"], "bin", "java").is_file()
    assert variables["PATH"].split(":")[0] == str(REPOSITORY / ".venv" / "bin")
    assert "there is no key file" in done.stderr
