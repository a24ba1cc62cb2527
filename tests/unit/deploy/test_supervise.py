"""Process 1 with real children that answer slowly, fork and end: what it waits for, and what it returns."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from deploy.connections import established
from deploy.supervise import main
from serving.environment import Ports
from tests.support.paths import REPOSITORY

# Like TorchServe: what is started waits for its child, which is what serves.
SERVER = """
import http.server, os, sys, time
if os.fork():
    os.wait()
    raise SystemExit
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open("asked", "w").close()
        while self.path == "/held" and not os.path.exists("released"):
            time.sleep(0.02)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answered")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
RUN = """
import sys
from pathlib import Path
from deploy.supervise import Supervisor
port, drain_sec, quiet_sec, *command = sys.argv[1:]
supervisor = Supervisor(command, env={}, cwd=Path.cwd(), ports=[int(port)])
sys.exit(supervisor.run(drain_sec=float(drain_sec), quiet_sec=float(quiet_sec)))
"""


def wait_for(condition: object, *, timeout_sec: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_sec
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def supervised(folder: Path, port: int, drain_sec: float, *command: str) -> Iterator[subprocess.Popen[str]]:
    arguments = [sys.executable, "-c", RUN, str(port), str(drain_sec), "0.2", *command]
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'clients'}"}
    process = subprocess.Popen(arguments, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.returncode is None else []
        process.kill()
        for each in family:  # they hold the pipe open
            with suppress(psutil.Error):
                each.kill()
        process.communicate()


def ask(port: int, path: str, answers: list[bytes]) -> threading.Thread:
    """`/held` is answered once there is a file `released`, any other path at once."""

    def run() -> None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            answers.append(answer.read())

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_request_under_way_is_answered_before_the_server_stops(tmp_path: Path) -> None:
    port = Ports.free().inference
    answers: list[bytes] = []
    with supervised(tmp_path, port, 60, sys.executable, "-c", SERVER, str(port)) as process:
        wait_for(lambda: listens(port))
        thread = ask(port, "/held", answers)
        wait_for((tmp_path / "asked").exists)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "stopping: 1 connections" in process.stderr.readline()
        ask(port, "/", answers).join()  # requests that come while it drains are served, too
        assert answers == [b"answered"]
        (tmp_path / "released").touch()
        _, said = process.communicate(timeout=60)
        thread.join()
        assert answers == [b"answered"] * 2
        assert process.returncode == 0
        assert "stopping TorchServe with 0 connections" in said
        assert not listens(port)


def test_a_request_that_takes_longer_than_the_drain_is_cut_off(tmp_path: Path) -> None:
    port = Ports.free().inference
    answers: list[bytes] = []
    with supervised(tmp_path, port, 0.5, sys.executable, "-c", SERVER, str(port)) as process:
        wait_for(lambda: listens(port))
        thread = ask(port, "/held", answers)
        wait_for((tmp_path / "asked").exists)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        thread.join()
        assert (process.returncode, answers) == (0, [])
        assert "with 1 connections: the time is over" in said


@pytest.mark.parametrize(("status", "expected"), [(0, 1), (3, 3)])
def test_an_end_that_nobody_asked_for_is_a_failure(tmp_path: Path, status: int, expected: int) -> None:
    with supervised(tmp_path, 1, 60, sys.executable, "-c", f"raise SystemExit({status})") as process:
        _, said = process.communicate(timeout=60)
        assert process.returncode == expected
        assert f"ended by itself with status {status}" in said


def test_orphans_are_waited_for(tmp_path: Path) -> None:
    """A decoding process whose worker was killed must not stay as a zombie for as long as the container runs."""
    code = "import os,time\nif os.fork() == 0:\n  if os.fork() == 0: time.sleep(.2); os._exit(0)\n  os._exit(0)\n"
    code += "os.wait(); open('forked', 'w').close(); time.sleep(3600)"
    with supervised(tmp_path, 1, 0, sys.executable, "-c", code) as process:
        wait_for((tmp_path / "forked").exists)
        parent = psutil.Process(process.pid)
        wait_for(lambda: len(parent.children()) == 1)


def test_connections_are_counted_at_the_servers_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert established([port]) == 0
        with socket.create_connection(("127.0.0.1", port)):  # waits to be accepted
            assert established([port]) == 1
            accepted, _ = server.accept()
            assert established([port]) == 1
            accepted.close()
        assert established([port]) == 0


def test_connections_over_ipv6_and_of_other_ports(tmp_path: Path) -> None:
    head = "  sl  local_address rem_address   st tx_queue\n"
    (tmp_path / "tcp").write_text(head + "   0: 0100007F:1F90 0100007F:D2A0 01 0:0\n   1: 0100007F:1F91 0:0 01 0:0\n")
    (tmp_path / "tcp6").write_text(head + f"   0: {'0' * 32}:1F90 {'0' * 32}:0000 0A 0:0\n   1: 0:1F90 0:1 01 0:0\n")
    assert established([8080], tables=tmp_path) == 2


def test_the_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for option in ("--models", "--config", "--model-store", "--directory", "--drain-sec", "--ready-port"):
        assert option in text
