"""The clients' sense of success and failure, against a server of a few lines; and the worker's memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import psutil
import pytest

from benchmarks.memory import PeakSampler, high_water_mb, resident_mb
from benchmarks.timed_clients import HttpClient, Reply


class Answering(BaseHTTPRequestHandler):
    """Answers by the model's name; keeps what it was asked."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.seen.append({"path": self.path, "body": body, "headers": headers})
        good = self.path.endswith("/good")
        content = b'{"yoga": 0.9, "archery": 0.1}' if good else b'{"code": 503, "message": "no"}'
        self.send_response(200 if good else 503)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def client() -> Iterator[HttpClient]:
    Answering.seen.clear()
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ports = SimpleNamespace(inference=server.server_port)
        fake: Any = SimpleNamespace(ports=ports, headers=lambda api: {"Authorization": "Bearer key"})
        with HttpClient(fake) as connected:
            yield connected
        server.shutdown()


def test_an_answer_has_labels_and_a_time(client: HttpClient) -> None:
    reply = client.ask("good", b"video", {"num_clips": "10"})
    assert (reply.labels, reply.error) == (["yoga", "archery"], None)
    assert reply.milliseconds > 0
    (seen,) = Answering.seen
    assert (seen["path"], seen["body"]) == ("/predictions/good", b"video")
    assert seen["headers"]["authorization"] == "Bearer key"
    assert seen["headers"]["x-num-clips"] == "10"


def test_an_error_is_an_error_and_the_connection_goes_on(client: HttpClient) -> None:
    assert client.ask("bad", b"video").error == 'HTTP 503: {"code": 503, "message": "no"}'
    assert client.ask("good", b"video").error is None


def test_a_server_that_is_gone_is_an_error() -> None:
    gone: Any = SimpleNamespace(ports=SimpleNamespace(inference=1), headers=lambda api: {})
    with HttpClient(gone) as client:
        reply = client.ask("good", b"video")
    assert reply.error is not None
    assert reply.error.startswith("ConnectionRefusedError")


def test_only_dict_answers_have_labels() -> None:
    assert Reply(1.0, [{"label": "yoga"}]).labels == []


HOLD = """
import sys
data = bytearray(64 * 10**6)
print('ready', flush=True)
sys.stdin.read(1)
del data
sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process that holds 64 MB until it is told to let go."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_resident_and_peak_memory(holder: subprocess.Popen[str]) -> None:
    processes = [psutil.Process(holder.pid)]
    with PeakSampler(processes) as sampler:
        held = resident_mb(processes)
    assert 64 < held < 100
    assert sampler.peak_mb == pytest.approx(held, abs=2)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system tells no high-water mark")
def test_the_high_water_mark_outlasts_the_peak(holder: subprocess.Popen[str]) -> None:
    processes = [psutil.Process(holder.pid)]
    assert holder.stdin is not None
    holder.stdin.write("x")
    holder.stdin.flush()
    for _ in range(200):
        if resident_mb(processes) < 40:
            break
        threading.Event().wait(0.01)
    assert resident_mb(processes) < 40
    assert (high_water_mb(processes) or 0.0) > 64


def test_ended_processes_hold_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""], stdin=subprocess.DEVNULL)
    ended = psutil.Process(process.pid)
    process.wait()
    assert resident_mb([ended]) == 0
    assert high_water_mb([ended]) is None
