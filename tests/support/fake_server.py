"""A loopback HTTP server that answers as scripted and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


Answer = tuple[int, Any]
Answerer = Callable[[Asked], Answer]

KeyFile = Callable[..., Path]
"""The fixture `write_keys`: writes a key file as TorchServe does, and says where."""


@dataclass
class FakeServer:
    """`answer` gives status and JSON value (or bytes as they are) for each request; `asked` are those that came."""

    answer: Answerer = lambda asked: (200, {})
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    content_type: str = "application/json"


def refusal(code: int, type: str, message: str = "no") -> Answer:
    return code, {"code": code, "type": type, "message": message}


def described(version: str, status: str = "READY") -> dict[str, Any]:
    """TorchServe's description of version `version` of the model `m`, whose one worker has that status."""
    return {
        "modelName": "m", "modelVersion": version, "modelUrl": f"m{version}.mar", "minWorkers": 1, "maxWorkers": 1,
        "batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 120,
        "workers": [{"id": "9000", "status": status, "pid": 7, "gpu": False}],
    }  # fmt: skip


def serving_one(version: str) -> Answerer:
    """The model `m` in that version, served once it has been registered, with a worker that is ready."""
    registered = False

    def answer(asked: Asked) -> Answer:
        nonlocal registered
        if asked.method != "GET":
            registered = asked.method != "DELETE"
            return 200, {"status": "done"}
        if asked.path.startswith("/models/m"):
            return 200, [described(version)]
        return 200, {"models": [{"modelName": "m"}] if registered else []}

    return answer


def in_turn(*answers: Answer) -> Answerer:
    """One answer after the other; the last one for ever."""
    left = list(answers)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def running_fake() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            fake.asked.append(asked)
            status, value = fake.answer(asked)
            if status == 0:  # hang up without an answer
                self.close_connection = True
                return
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", fake.content_type if status == 200 else "application/json")
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.handle_any()

        def do_POST(self) -> None:
            self.handle_any()

        def do_PUT(self) -> None:
            self.handle_any()

        def do_DELETE(self) -> None:
            self.handle_any()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hung up is part of a test."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
