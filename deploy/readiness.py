"""Whether this TorchServe's models answer, found out by asking them.

TorchServe's `/ping` says "Healthy" before a worker has loaded its model, and for ever when it cannot. The description
of a model says what its workers are, but still READY when the frontend's thread of a worker has died. So a tiny video
is classified now and then, too: a model is ready while a worker is READY and that answer comes. Where it does not come
in time, the worker's use of the processor decides whether it is busy with others' videos or dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from serving.environment import Ports
from serving.tiny_clip import tiny_clip

_PERIOD_SEC = 1.0
_LOADING_PERIOD_SEC = 0.2  # while no worker has loaded: the replica serves that much earlier
_PREDICTION_PERIOD_SEC = 5.0
_PREDICTION_TIMEOUT_SEC = 5.0
_BUSY_SHARE = 0.05  # of one core, over the whole timeout: a worker that decodes or computes uses one or more
_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_STARTING = "TorchServe does not answer yet"


class Readiness:
    """The state of one server on loopback that asks for no key; `problem` is None while all of its models answer."""

    def __init__(
        self,
        ports: Ports,
        *,
        video: Callable[[], bytes] = tiny_clip,
        processes: Path = Path("/proc"),
        prediction_timeout_sec: float = _PREDICTION_TIMEOUT_SEC,
    ) -> None:
        self._management = f"http://127.0.0.1:{ports.management}"
        self._inference = f"http://127.0.0.1:{ports.inference}"
        self._video, self._processes = video, processes
        self._timeout_sec = prediction_timeout_sec
        self._answered: dict[str, float] = {}
        self._loading = True
        self.problem: str | None = _STARTING

    def serve(self, port: int) -> ThreadingHTTPServer:
        """Look every second in a thread, and more often while models load.

        Answers `GET /ready` on that loopback port with 200 or 503.
        """
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()
        return server

    def _watch(self) -> None:
        body = self._video()
        while True:
            self.look(body)
            time.sleep(_LOADING_PERIOD_SEC if self._loading else _PERIOD_SEC)

    def look(self, body: bytes) -> None:
        """Ask all models once and set `problem` to the first one's, as a sentence."""
        self._loading = True
        try:
            names = [each["modelName"] for each in self._managed("/models?limit=1000")["models"]]
            problems = [self._problem_of(name, body) for name in names]
            self.problem = next((each for each in problems if each), None if names else "no model is registered")
        except (OSError, ValueError, KeyError) as error:
            self.problem = f"TorchServe does not answer: {type(error).__name__}"

    def _problem_of(self, name: str, body: bytes) -> str | None:
        workers = [each for version in self._managed(f"/models/{name}") for each in version["workers"]]
        pids = [each["pid"] for each in workers if each["status"] == "READY"]
        if not pids:
            self._answered.pop(name, None)
            return f"no worker of {name} is ready"
        self._loading = False
        if time.monotonic() < self._answered.get(name, -_PREDICTION_PERIOD_SEC) + _PREDICTION_PERIOD_SEC:
            return None
        before = cpu_seconds(pids, self._processes)
        request = urllib.request.Request(
            f"{self._inference}/predictions/{name}", data=body, headers={"Content-Type": "video/mp4"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_sec) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            # A model of other people may refuse the video, and a full queue is no sickness: both were answered.
            if error.code >= 500 and error.code != 503:
                self._answered.pop(name, None)
                return f"{name} answers a prediction with {error.code}"
        except OSError:
            used = cpu_seconds(pids, self._processes) - before
            if used < _BUSY_SHARE * self._timeout_sec:
                self._answered.pop(name, None)
                return f"{name} does not answer a prediction, and its workers do nothing"
        self._answered[name] = time.monotonic()
        return None

    def _managed(self, path: str) -> Any:
        with urllib.request.urlopen(self._management + path, timeout=self._timeout_sec) as answer:
            return json.load(answer)


def cpu_seconds(pids: Iterable[int], processes: Path = Path("/proc")) -> float:
    """Processor seconds that these processes and their living children have used; ended ones count as none."""
    wanted, total = set(pids), 0
    for folder in processes.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in brackets may hold blanks; after it: state, parent, ..., user and system ticks (proc(5)).
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if {int(folder.name), int(fields[1])} & wanted:
                    total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SEC


def _handler(readiness: Readiness) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            problem = readiness.problem if self.path == "/ready" else "ask for /ready"
            text = f"{problem or 'ready'}\n".encode()
            with contextlib.suppress(ConnectionError):  # who asked has gone: a check that took too long
                self.send_response(503 if problem else 200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Probes every second are not worth a line each."""

    return Handler
