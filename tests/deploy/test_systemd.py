"""The units of deploy/machine under a real systemd, installed as docs/deployment.md says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.support.deployment import DEPLOY
from tests.support.service_manager import INSTALLED, ServiceManager, service_manager

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SERVER, GATEWAY = "video-serving.service", "video-serving-gateway.service"
ASK = """
import json, sys, urllib.request
headers = {"Authorization": "Bearer alices-key", "Content-Type": "video/mp4", **json.loads(sys.argv[2])}
request = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read() or None, headers)
try:
    with urllib.request.urlopen(request, timeout=120) as answer:
        print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
except OSError as error:
    print(json.dumps([0, str(error)]))
"""
PREDICT = "http://127.0.0.1:8000/predictions/camera_motion"
LONG = {"X-Num-Clips": "30", "X-Num-Crops": "3"}


@pytest.fixture(scope="module")
def machine(embedded_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceManager]:
    """Both units started, and ready."""
    folder = tmp_path_factory.mktemp("machine")
    with service_manager(folder) as running:
        running.run("mkdir", "-p", "/etc/video-serving", "/var/lib/video-serving/models")
        archive = embedded_store / "camera_motion.mar"
        put(running, f"/var/lib/video-serving/models/{archive.name}", archive.read_bytes())
        put(running, "/etc/video-serving/keys", b"alices-key alice\n")
        running.run("chmod", "600", "/etc/video-serving/keys")
        settings = (DEPLOY / "config.properties").read_text().replace("/app/", f"{INSTALLED}/")
        put(running, "/etc/video-serving/config.properties", settings.encode())
        for unit in (SERVER, GATEWAY):
            running.run("cp", f"{INSTALLED}/deploy/machine/{unit}", "/etc/systemd/system/")
        running.run("systemctl", "daemon-reload")
        running.run("systemctl", "enable", "--now", SERVER, GATEWAY)
        await_ready(running)
        yield running


def put(machine: ServiceManager, path: str, content: bytes) -> None:
    machine.run("dd", f"of={path}", "status=none", body=content)


def ask(
    machine: ServiceManager, url: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, str]:
    """Status and body; 0 where nobody answers."""
    command = [f"{INSTALLED}/.venv/bin/python", "-c", ASK, url, json.dumps(dict(headers))]
    status, text = json.loads(machine.run(*command, body=body))
    return int(status), str(text)


def await_ready(machine: ServiceManager) -> None:
    deadline = time.monotonic() + 120
    while ask(machine, "http://127.0.0.1:8404/healthz")[0] != 200:
        assert time.monotonic() < deadline, machine.log(SERVER) + machine.log(GATEWAY)
        time.sleep(0.2)


def test_the_units_answer_as_a_user_of_their_own(machine: ServiceManager, h264_video: bytes) -> None:
    status, answer = ask(machine, PREDICT, h264_video)
    assert status == 200, answer
    assert len(json.loads(answer)) == 5
    for unit in (SERVER, GATEWAY):
        found = machine.properties(unit)
        assert found["ActiveState"] == "active"
        owner = machine.run("stat", "--format=%u", f"/proc/{found['MainPID']}").strip()
        assert 61184 <= int(owner) <= 65519, "systemd's range of dynamic users"


def test_a_server_that_dies_comes_back(machine: ServiceManager, h264_video: bytes) -> None:
    before = machine.properties(SERVER)["MainPID"]
    machine.run("kill", "-KILL", before)
    deadline = time.monotonic() + 60
    while machine.properties(SERVER)["MainPID"] in (before, "0"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    await_ready(machine)
    assert machine.properties(SERVER)["NRestarts"] == "1"
    assert ask(machine, PREDICT, h264_video)[0] == 200


def test_a_stop_waits_for_requests_under_way(machine: ServiceManager, h264_video: bytes) -> None:
    with ThreadPoolExecutor(3) as pool:
        requests = [pool.submit(ask, machine, PREDICT, h264_video, LONG) for _ in range(3)]
        time.sleep(1.0)
        early = [request.result() for request in requests if request.done()]
        assert early == [], "they must be under way when the stop comes"
        machine.run("systemctl", "stop", SERVER)
        assert [request.result()[0] for request in requests] == [200, 200, 200]
    assert "stopping: " in machine.log(SERVER)
    found = machine.properties(SERVER)
    assert (found["ActiveState"], found["Result"], found["ExecMainStatus"]) == ("inactive", "success", "0")
    assert ask(machine, PREDICT, h264_video)[0] == 503
    machine.run("systemctl", "start", SERVER)
    await_ready(machine)
    assert ask(machine, PREDICT, h264_video)[0] == 200
