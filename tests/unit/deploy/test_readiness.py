"""What readiness says of a server that loads, works, is busy, is dead: a real HTTP server plays TorchServe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.readiness import Readiness, cpu_seconds
from serving.environment import Ports


class FakeTorchServe:
    """Both ports in one; `workers` is what the description says, `status` what a prediction gets (0: no answer)."""

    def __init__(self) -> None:
        self.workers: list[dict[str, object]] = [{"status": "READY", "pid": os.getpid()}]
        self.models = ["m"]
        self.status, self.predictions = 200, 0
        self.released = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                models = {"models": [{"modelName": name} for name in fake.models]}
                self._send(200, models if "?" in self.path else [{"workers": fake.workers}])

            def do_POST(self) -> None:
                fake.predictions += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                if fake.status:
                    self._send(fake.status, {})
                else:
                    fake.released.wait(60)

            def _send(self, status: int, content: object) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def readiness(self) -> Readiness:
        ports = Ports(inference=self.port, management=self.port)
        return Readiness(ports, video=lambda: b"tiny", prediction_timeout_sec=1.0)


@pytest.fixture
def fake() -> Iterator[FakeTorchServe]:
    server = FakeTorchServe()
    yield server
    server.released.set()
    server.server.shutdown()
    server.server.server_close()


def problem(readiness: Readiness) -> str | None:
    readiness.look(b"tiny")
    return readiness.problem


def test_ready_is_who_has_a_worker_that_answers(fake: FakeTorchServe) -> None:
    readiness = fake.readiness()
    assert readiness.problem is not None
    assert problem(readiness) is None
    assert problem(readiness) is None
    assert fake.predictions == 1, "an answer is good for some seconds"


def test_a_worker_that_loads_is_not_ready(fake: FakeTorchServe) -> None:
    fake.workers = [{"status": "UNLOADING", "pid": 5}]
    readiness = fake.readiness()
    assert problem(readiness) == "no worker of m is ready"
    fake.workers = [{"status": "UNLOADING", "pid": 5}, {"status": "READY", "pid": 6}]
    assert problem(readiness) is None


@pytest.mark.parametrize(("status", "expected"), [(422, None), (503, None), (500, "500"), (507, "507")])
def test_what_answers_mean(fake: FakeTorchServe, status: int, expected: str | None) -> None:
    fake.status = status
    found = problem(fake.readiness())
    assert found == (f"m answers a prediction with {expected}" if expected else None)


def test_who_loads_is_asked_more_often(fake: FakeTorchServe, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    fake.workers = [{"status": "UNLOADING", "pid": 5}]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        fake.workers = [{"status": "READY", "pid": os.getpid()}]
        if len(pauses) == 2:
            raise SystemExit

    monkeypatch.setattr("deploy.readiness.time.sleep", sleep)
    with pytest.raises(SystemExit):
        fake.readiness()._watch()
    assert pauses[0] < pauses[1] == 1.0


def test_no_answer_from_an_idle_worker_is_death(fake: FakeTorchServe) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        fake.workers, fake.status = [{"status": "READY", "pid": sleeper.pid}], 0
        assert problem(fake.readiness()) == "m does not answer a prediction, and its workers do nothing"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_no_answer_from_a_busy_worker_is_patience(fake: FakeTorchServe) -> None:
    """A decoding process, the worker's child, is what is busy."""
    code = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        while cpu_seconds([parent.pid]) < 0.5:
            pass
        fake.workers, fake.status = [{"status": "READY", "pid": parent.pid}], 0
        assert problem(fake.readiness()) is None
    finally:
        os.killpg(parent.pid, 9)
        parent.wait()


def test_a_server_that_is_away_or_empty(fake: FakeTorchServe) -> None:
    fake.models = []
    assert problem(fake.readiness()) == "no model is registered"
    nowhere = Readiness(Ports.free(), video=lambda: b"")
    assert str(problem(nowhere)).startswith("TorchServe does not answer")


def test_the_state_is_told_over_http(fake: FakeTorchServe) -> None:
    readiness = fake.readiness()
    server = readiness.serve(0)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        while readiness.problem:
            pass
        with urllib.request.urlopen(f"{url}/ready", timeout=30) as answer:
            assert answer.read() == b"ready\n"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/other", timeout=30)
        assert refused.value.code == 503
        refused.value.close()
    finally:
        server.shutdown()
        server.server_close()
