"""What the tests of deploy/ start: a TorchServe under its process 1, a gateway before it, each on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from serving.environment import Ports, read_properties
from serving.server import stop_processes
from tests.support.paths import REPOSITORY

DEPLOY = REPOSITORY / "deploy"


def program(name: str, package: str) -> str:
    """The program's path; skips where it is not installed."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def status_of(url: str, *, timeout_sec: float = 10.0) -> int:
    """The status of a GET; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_sec) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def wait_for_status(url: str, status: int, *, timeout_sec: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_sec
    while (found := status_of(url)) != status:
        assert time.monotonic() < deadline, f"{url} answers {found} and not {status} after {timeout_sec:g} s"
        time.sleep(0.1)


@dataclass(frozen=True)
class Supervised:
    """A TorchServe under deploy.supervise."""

    process: subprocess.Popen[bytes]
    ports: Ports
    ready_port: int
    directory: Path

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.ready_port}/ready"

    def said(self) -> str:
        return (self.directory / "said").read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL to the Java process, its workers and process 1."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        for each in (*family, self.process):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()


@contextmanager
def supervised(store: Path, directory: Path, *, drain_sec: float = 60.0) -> Iterator[Supervised]:
    """All archives of the store, served with the image's settings on other ports. Not ready yet."""
    directory.mkdir(parents=True)
    ports, ready_port = Ports.free(), free_port()
    settings = {key: value.replace("/app/deploy/", f"{DEPLOY}/").replace("/app/", f"{REPOSITORY}/")
                for key, value in read_properties(DEPLOY / "config.properties").items()}  # fmt: skip
    config = directory / "config.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in {**settings, **ports.settings()}.items()))
    options = {"--config": config, "--model-store": store, "--directory": directory, "--ready-port": ready_port}
    command = [sys.executable, "-m", "deploy.supervise", "--drain-sec", str(drain_sec)]
    command += [str(each) for option in options.items() for each in option]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (directory / "said").open("wb") as said:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=said, stderr=subprocess.STDOUT)
    try:
        yield Supervised(process, ports, ready_port, directory)
    finally:
        if process.poll() is None:
            stop_processes([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
            process.wait()


@dataclass(frozen=True)
class Gateway:
    """A running HAProxy with deploy/gateway/haproxy.cfg."""

    process: subprocess.Popen[bytes]
    port: int
    operations_port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def operations_url(self) -> str:
        return f"http://127.0.0.1:{self.operations_port}"


@contextmanager
def gateway(server: Supervised, folder: Path, **variables: str) -> Iterator[Gateway]:
    """The gateway of that server, with the keys `alices-key` and `bobs-key`."""
    haproxy, keys = program("haproxy", "haproxy"), folder / "keys"
    keys.write_text("alices-key alice\nbobs-key bob\n")
    port, operations = free_port(), free_port()
    env = {
        "KEYS": str(keys),
        "BIND": f"127.0.0.1:{port}",
        "OPS_BIND": f"127.0.0.1:{operations}",
        "TS_HTTP": str(server.ports.inference),
        "TS_GRPC": str(server.ports.grpc_inference),
        "TS_METRICS": str(server.ports.metrics),
        "TS_READY": str(server.ready_port),
        **variables,
    }
    log = folder / "gateway.log"
    with log.open("wb") as output:
        command = [haproxy, "-db", "-f", str(DEPLOY / "gateway" / "haproxy.cfg")]
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for_answer(f"http://127.0.0.1:{operations}/healthz", process, log)
        yield Gateway(process, port, operations, log)
    finally:
        process.kill()
        process.wait()


def wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while status_of(url) == 0:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
