"""What the tests of deploy/ start: a TorchServe under its process 1, a gateway before it, each on free ports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
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
class Listening:
    """Where a gateway finds its TorchServe and process 1."""

    ports: Ports
    ready_port: int


@dataclass(frozen=True)
class Supervised(Listening):
    """A TorchServe under deploy.supervise."""

    process: subprocess.Popen[bytes]
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
        yield Supervised(ports, ready_port, process, directory)
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
def gateway(server: Listening, folder: Path, **variables: str) -> Iterator[Gateway]:
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


class Edge:
    """A running nginx with deploy/machine/nginx.conf."""

    def __init__(self, url: str, folder: Path, port: int) -> None:
        self.url, self._folder, self._port = url, folder, port
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, servers: Sequence[str]) -> None:
        """The site's configuration with these gateways behind it, `127.0.0.1:PORT` or `unix:PATH`."""
        pem = REPOSITORY / "tests" / "support" / "loopback_tls.pem"
        site = (DEPLOY / "machine" / "nginx.conf").read_text()
        site = site.replace("listen 443", f"listen 127.0.0.1:{self._port}")
        lines = "".join(f"    server {each} max_fails=1 fail_timeout=2s;\n" for each in servers)
        site = re.sub(r"^    server 127\.0\.0\.1:8000 .*\n", lines, site, flags=re.MULTILINE)
        (self._folder / "site.conf").write_text(re.sub(r"/etc/video-serving/tls\.\w+", str(pem), site))

    def change(self, servers: Sequence[str]) -> None:
        """Have others behind it from now on; requests under way stay where they are."""
        assert self.process is not None
        self.write(servers)
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def edge(servers: Sequence[str], folder: Path) -> Iterator[Edge]:
    """An nginx before these gateways, with a certificate that clients have no reason to trust."""
    nginx, port = program("nginx", "nginx-light"), free_port()
    running = Edge(f"https://127.0.0.1:{port}", folder, port)
    running.write(servers)
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{each}_temp_path {folder}/{each}; " for each in names)
    user = "user root; " if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; {user}worker_processes 1; pid {folder}/pid; error_log {folder}/edge.log;\n"
        f"events {{}} http {{ access_log off; {paths} include {folder}/site.conf; }}\n"
    )
    running.process = subprocess.Popen([nginx, "-c", str(folder / "nginx.conf")])
    try:
        while running.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
        yield running
    finally:
        running.process.terminate()
        running.process.wait()


def padded(video: bytes, megabytes: float = 0.8) -> bytes:
    """The video (mp4) with a box of so many MB that holds nothing: the same answer."""
    size = round(megabytes * 1e6)
    return video + size.to_bytes(4, "big") + b"free" + bytes(size - 8)
