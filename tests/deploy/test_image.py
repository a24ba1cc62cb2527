"""The image for CPUs as it runs in production: read-only, without capabilities and network, against the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.deployment import Supervised, program

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
MAX_BYTES = 900_000_000
ASK = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], data=sys.stdin.buffer.read() or None, method=(sys.argv[2:] or [None])[0])
sys.stdout.buffer.write(urllib.request.urlopen(request, timeout=60).read())
"""
LIST = """
import json, pathlib
files = [file for file in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
print(json.dumps([[int(file.parent.name), file.read_bytes().replace(bytes(1), b" ").decode()] for file in files]))
"""


class Container:
    """A running container without network: asked from inside."""

    def __init__(self, podman: str, name: str) -> None:
        self.podman, self.name = podman, name

    def run(self, *command: str, body: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.podman, "exec", "-i", self.name, *command], input=body, capture_output=True)

    def ask(self, url: str, body: bytes = b"") -> bytes | None:
        """The answer; None where it is an error or nobody answers."""
        done = self.run("python", "-c", ASK, url, body=body)
        return done.stdout if done.returncode == 0 else None


@contextmanager
def running_container(image: str, store: Path, *options: str) -> Iterator[Container]:
    podman, name = program("podman", "podman"), f"video-serving-test-{os.getpid()}-{time.monotonic_ns()}"
    command = [podman, "run", "--detach", "--name", name, "--read-only", "--cap-drop=ALL", "--network=none",
               "--security-opt=no-new-privileges", "--memory=2g", "--pids-limit=512", *options,
               "--tmpfs=/serving:rw,size=512m,mode=1777", f"--volume={store}:/models:ro", image]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    try:
        running = Container(podman, name)
        deadline = time.monotonic() + 120
        while running.ask("http://127.0.0.1:8083/ready") is None:
            logs = subprocess.run([podman, "logs", name], capture_output=True, text=True)
            assert time.monotonic() < deadline, logs.stdout + logs.stderr
            time.sleep(0.1)
        yield running
    finally:
        subprocess.run([podman, "rm", "--force", "--time", "0", name], capture_output=True)


@pytest.fixture(scope="module")
def container(image: str, embedded_store: Path) -> Iterator[Container]:
    with running_container(image, embedded_store) as running:
        yield running


def test_it_is_small_and_runs_as_nobody(image: str) -> None:
    done = subprocess.run([program("podman", "podman"), "inspect", image], capture_output=True, text=True, check=True)
    (content,) = json.loads(done.stdout)
    assert content["Size"] <= MAX_BYTES
    assert content["User"] == "10001:10001"


def test_it_answers_as_the_checkout(container: Container, replica: Supervised, h264_video: bytes) -> None:
    path = "predictions/camera_motion"
    url = f"http://127.0.0.1:{replica.ports.inference}/{path}"
    expected = requests.post(url, data=h264_video, headers={"Content-Type": "video/mp4"}, timeout=60)
    assert expected.status_code == 200
    code = ASK.replace("or None,", "or None, headers={'Content-Type': 'video/mp4'},")
    done = container.run("python", "-c", code, f"http://127.0.0.1:8080/{path}", body=h264_video)
    assert done.stdout == expected.content, done.stderr


def test_nothing_but_one_folder_can_be_written_to(container: Container) -> None:
    for path in ("/x", "/app/x", "/models/x", "/opt/serving/x", "/etc/x"):
        assert container.run("touch", path).returncode != 0, path
    assert container.run("touch", "/serving/x").returncode == 0


def test_it_has_no_rights(container: Container) -> None:
    status = container.run("cat", "/proc/self/status").stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_its_java_process_starts_from_the_recorded_classes(container: Container) -> None:
    (java,) = (each for each in processes(container) if "org.pytorch.serve.ModelServer" in each[1])
    assert "/torchserve.jsa" in container.run("cat", f"/proc/{java[0]}/maps").stdout.decode()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is all there is")
def test_a_quota_of_one_core_means_one_thread_and_one_decoder(image: str, embedded_store: Path) -> None:
    with running_container(image, embedded_store, "--cpus=1") as limited:
        described = limited.ask("http://127.0.0.1:8081/models/camera_motion?customized=true")
        assert described is not None
        (version,) = json.loads(described)
        assert version["customizedMetadata"]["threads"] == 1
        assert sum("handlers.decode.worker" in command for _, command in processes(limited)) == 1


def processes(container: Container) -> list[tuple[int, str]]:
    """Process id and command line of all that run in the container."""
    done = container.run("python", "-c", LIST)
    return [(pid, command) for pid, command in json.loads(done.stdout)]


def test_a_worker_can_be_taken_away(container: Container) -> None:
    """TorchServe ends it with a program that small images lack."""
    before = workers(container)
    for count in (len(before) + 1, len(before)):
        query = f"min_worker={count}&max_worker={count}&synchronous=true"
        done = container.run("python", "-c", ASK, f"http://127.0.0.1:8081/models/camera_motion?{query}", "PUT")
        assert done.returncode == 0, done.stderr.decode()
        assert len(workers(container)) == count


def workers(container: Container) -> set[int]:
    """Process ids of TorchServe's workers."""
    return {pid for pid, command in processes(container) if "model_service_worker" in command}


def test_it_stops_with_status_0(container: Container) -> None:
    """The last test of this container."""
    subprocess.run([container.podman, "stop", "--time", "100", container.name], check=True, capture_output=True)
    command = [container.podman, "inspect", "--format", "{{.State.ExitCode}}", container.name]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "0"
    logs = subprocess.run([container.podman, "logs", container.name], capture_output=True, text=True)
    assert "stopping TorchServe with 0 connections" in logs.stdout + logs.stderr
