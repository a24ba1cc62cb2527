"""Requests to a running server, alone and many at a time, and archives with other settings than the packaged ones."""

from __future__ import annotations

import json
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import requests

from serving.server import Server, TorchServe
from tests.support.grpc_stubs import load_stubs

TIMEOUT_SEC = 120.0
ONE_WORKER: Mapping[str, object] = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8}
"""Settings of a model whose requests all meet in one worker."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request; `status` is the HTTP status (of gRPC: the body's code)."""

    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends videos to one model. A session per thread: connections are kept open."""

    def __init__(self, server: Server, model: str, *, version: str | None = None, **headers: str) -> None:
        self._server = server
        self._url = f"{server.inference_url}/predictions/{model}" + (f"/{version}" if version else "")
        self._headers = {"Content-Type": "application/octet-stream", **headers}
        self._local = threading.local()
        self.model, self.version = model, version

    def post(self, video: bytes, **options: str) -> Answer:
        """POST the bytes; options travel as headers, `top_k="3"` as X-Top-K."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        headers = {**self._headers, **self._server.headers()}
        headers |= {f"X-{name.replace('_', '-')}": value for name, value in options.items()}
        started = time.monotonic()
        answer = self._local.session.post(self._url, data=video, headers=headers, timeout=TIMEOUT_SEC)
        return Answer(answer.status_code, answer.content, time.monotonic() - started)

    def post_all(self, videos: Sequence[bytes], *, threads: int, **options: str) -> list[Answer]:
        """Every video, in order, `threads` at a time."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda video: self.post(video, **options), videos))

    def grpc_all(self, videos: Sequence[bytes], **options: str) -> list[Answer]:
        """Every video at once over gRPC."""
        stubs = load_stubs()
        metadata = [("authorization", self._server.headers()["Authorization"])]
        fields = {name: value.encode() for name, value in options.items()}
        with grpc.insecure_channel(f"127.0.0.1:{self._server.grpc_inference_port}") as channel:
            stub = stubs.inference_grpc.InferenceAPIsServiceStub(channel)
            calls = [
                stub.Predictions.future(
                    stubs.inference.PredictionsRequest(model_name=self.model, input={"data": video, **fields}),
                    metadata=metadata,
                    timeout=TIMEOUT_SEC,
                )
                for video in videos
            ]
            bodies = [bytes(call.result().prediction) for call in calls]
        return [Answer(_code(body), body, 0.0) for body in bodies]


def _code(body: bytes) -> int:
    content = json.loads(body)
    return int(content["code"]) if isinstance(content, dict) and set(content) == {"code", "type", "message"} else 200


@dataclass(slots=True)
class Stream:
    """Answers to requests that go on in the background."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextmanager
def steady(send: Callable[[], Answer], *, threads: int) -> Iterator[Stream]:
    """Requests without a pause from `threads` threads, for as long as the context lasts."""
    stream, stop = Stream(), threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                stream.answers.append(send())
            except Exception as error:  # noqa: BLE001  whatever it is, the test wants to see it
                stream.failures.append(repr(error))

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield stream
    finally:
        stop.set()
        for worker in workers:
            worker.join()


class LogMark:
    """What the server and its workers have logged since this was made."""

    def __init__(self, server: TorchServe) -> None:
        self._sizes = {path: path.stat().st_size for path in (server.directory / "logs").glob("*")}
        self._folder = server.directory / "logs"

    def since(self) -> str:
        texts = []
        for path in self._folder.glob("*"):
            with path.open("rb") as file:
                file.seek(self._sizes.get(path, 0))
                texts.append(file.read().decode(errors="replace"))
        return "\n".join(texts)


def variant(archive: Path, name: str, *, version: str = "1.0", settings: Mapping[str, object] | None = None) -> Path:
    """A copy of the archive, under another name, with other values in its model-config.yaml."""
    path = archive.with_name(f"{name}.mar" if version == "1.0" else f"{name}_{version}.mar")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as copy:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "MAR-INF/MANIFEST.json":
                manifest = json.loads(content)
                manifest["model"].update(modelName=name, modelVersion=version)
                content = json.dumps(manifest).encode()
            elif entry.filename == "model-config.yaml":
                content = _with_settings(content.decode(), settings or {}).encode()
            copy.writestr(entry, content)
    return path


def change_settings(archive: Path, settings: Mapping[str, object]) -> None:
    """Other values in the archive's own model-config.yaml."""
    with zipfile.ZipFile(archive) as whole:
        content = [(entry, whole.read(entry)) for entry in whole.infolist()]
    with zipfile.ZipFile(archive, "w") as changed:
        for entry, data in content:
            is_config = entry.filename == "model-config.yaml"
            changed.writestr(entry, _with_settings(data.decode(), settings).encode() if is_config else data)


def _with_settings(text: str, settings: Mapping[str, object]) -> str:
    for key, value in settings.items():
        text, count = re.subn(rf"^(\s*{key}:) *\S+", rf"\1 {value}", text, flags=re.MULTILINE)
        assert count == 1, f"{key} is in model-config.yaml {count} times"
    return text


def process_tree(pids: Sequence[int]) -> frozenset[int]:
    """These processes and all that they started."""
    processes = [psutil.Process(pid) for pid in pids]
    return frozenset(pids) | {child.pid for process in processes for child in process.children(recursive=True)}


def resident_bytes(pids: Sequence[int]) -> int:
    """Resident memory of these processes and of all that they started."""
    processes = [psutil.Process(pid) for pid in pids]
    family = [*processes, *(child for process in processes for child in process.children(recursive=True))]
    return sum(int(process.memory_info().rss) for process in family)
