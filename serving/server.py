"""A real TorchServe on loopback ports: started, asked, stopped. Used by quickstart, tests, benchmarks and the demo.

    with TorchServe(Path("model_store"), ["x3d_s.mar"]) as server:
        requests.post(f"{server.inference_url}/predictions/x3d_s", data=..., headers=server.headers())

Everything that a server writes (keys, logs, temporary files, sockets) stays in its own `directory`, so that any number
of them can run side by side. Imports neither torch nor TorchServe.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from serving.environment import (
    CONFIG,
    Ports,
    ServerError,
    read_properties,
    serving_environment,
    with_absolute_log_config,
)
from video_action_client import ClientError, ModelInfo, VideoClient
from video_action_client.keys import Api

__all__ = ["Ports", "Server", "ServerError", "TorchServe", "stop_processes"]

_POLL_SEC = 0.1
_STOP_TIMEOUT_SEC = 30.0
_WORKER_DIED = re.compile(
    r"Backend worker (?:monitoring thread interrupted or backend worker )?process died", re.IGNORECASE
)
_LAST_WORDS = "MODEL_LOG - Backend worker process died"
_TRACEBACK_TIMEOUT_SEC = 3.0


class Server:
    """A running TorchServe: where it listens, its keys and logs, and clients for it."""

    def __init__(self, directory: Path, ports: Ports) -> None:
        self.directory = directory
        self.ports = ports

    @property
    def inference_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.inference}"

    @property
    def management_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.management}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.metrics}"

    @property
    def grpc_inference_port(self) -> int:
        return self.ports.grpc_inference

    @property
    def grpc_management_port(self) -> int:
        return self.ports.grpc_management

    @property
    def key_file(self) -> Path:
        return self.directory / "key_file.json"

    def client(self) -> VideoClient:
        """A client with this server's addresses and key file, for predictions and management."""
        return VideoClient(self.inference_url, self.management_url, key_file=self.key_file)

    def headers(self, api: Api = "inference") -> dict[str, str]:
        """The `Authorization` header for that API: its key as the key file has it now, renewed if it has expired."""
        with self.client() as client:
            return {"Authorization": f"Bearer {client.key(api)}"}

    def is_up(self) -> bool:
        """Whether the inference port answers as TorchServe does. Needs no key."""
        url = f"{self.inference_url}/api-description"
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=5) as answer:
            return "TorchServe" in str(json.load(answer).get("info", {}).get("title", ""))
        return False

    def register(self, archive: str, *, name: str | None = None, workers: int = 1) -> None:
        """Register an archive of the model store and wait until its workers are ready."""
        with self._managing() as client:
            client.register(archive, model=name, workers=workers)

    def unregister(self, model: str, version: str | None = None) -> None:
        """Remove a version at once; requests that it has are lost."""
        with self._managing() as client:
            client.unregister(model, version, drain_sec=0)

    def models(self) -> list[str]:
        """Names of the registered models."""
        return sorted({info.name for info in self.versions()})

    def versions(self, model: str | None = None) -> list[ModelInfo]:
        """Every version of the model, or of all models."""
        with self._managing() as client:
            return [info for info in client.models() if model in (None, info.name)]

    def worker_pids(self, model: str) -> list[int]:
        """Process ids of the model's running workers, all versions."""
        return [worker.pid for info in self.versions(model) for worker in info.workers if worker.pid > 0]

    def is_ready(self, model: str) -> bool:
        """Whether at least one worker of the model's default version can take a request."""
        with contextlib.suppress(ClientError), self.client() as client:
            return client.ready(model=model)
        return False

    @contextlib.contextmanager
    def _managing(self) -> Iterator[VideoClient]:
        """A client whose errors are ServerErrors."""
        with self.client() as client:
            try:
                yield client
            except ClientError as error:
                raise ServerError(error.message) from None

    def metrics_text(self) -> str:
        """The metrics port's answer, Prometheus format."""
        request = urllib.request.Request(f"{self.metrics_url}/metrics", headers=self.headers("management"))
        with urllib.request.urlopen(request, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def log_text(self) -> str:
        """Everything logged so far: the console, then the workers' own log."""
        files = (self.directory / "logs" / "console.log", self.directory / "logs" / "model_log.log")
        return "\n".join(file.read_text(errors="replace") for file in files if file.is_file())

    def wait_ready(self, models: Sequence[str], *, process: psutil.Process | None, timeout_sec: float) -> None:
        """Return when the server answers and every model has a ready worker.

        Raises ServerError when `process`, the server's, ends first, when a worker dies while loading, or in time.
        """
        deadline = time.monotonic() + timeout_sec
        waiting = list(models)
        while True:
            if self.is_up() and self.key_file.is_file():
                waiting = [model for model in waiting if not self.is_ready(model)]
                if not waiting:
                    return
            if process is not None and not _runs(process):
                raise ServerError(f"TorchServe ended while starting\n{self._tail()}")
            if _WORKER_DIED.search(self.log_text()):
                raise ServerError(f"a worker of {', '.join(waiting)} ended while loading: {self._worker_error()}")
            if time.monotonic() > deadline:
                what = ", ".join(waiting) or "TorchServe"
                raise ServerError(f"{what} is not ready after {timeout_sec:g} s\n{self._tail()}")
            time.sleep(_POLL_SEC)

    def _worker_error(self) -> str:
        """The exception that kept a worker from loading, without the log's prefix.

        TorchServe notices a worker's death on its socket and reads what it printed in another thread: the lines may
        come a moment later, the one that says that it died last.
        """
        deadline = time.monotonic() + _TRACEBACK_TIMEOUT_SEC
        while _LAST_WORDS not in (text := self.log_text()) and time.monotonic() < deadline:
            time.sleep(_POLL_SEC)
        found = re.findall(
            r"MODEL_LOG - ([\w.]*(?:Error|Exception|Invalid\w*|Un\w+): .*)", text.partition(_LAST_WORDS)[0]
        )
        return found[-1] if found else f"see the log\n{self._tail()}"

    def _tail(self, lines: int = 15) -> str:
        """The last lines of the most useful log: the worker's own, else the console's."""
        for name in ("model_log.log", "console.log"):
            file = self.directory / "logs" / name
            if file.is_file() and (text := file.read_text(errors="replace").strip()):
                return "\n".join(text.splitlines()[-lines:])
        return "(nothing was logged)"


class TorchServe(Server):
    """A server of our own, stopped on exit with every process that it started.

    `models` are as `torchserve --models` takes them: `x3d_s.mar` or `name=file.mar`, files of `model_store`.
    `settings` are added to, or replace, those of `config`; `env` likewise for the environment. `ports` are free ones
    unless given. `directory` is a temporary one, removed on exit, unless given.
    """

    def __init__(
        self,
        model_store: Path,
        models: Sequence[str] = (),
        *,
        settings: Mapping[str, str] | None = None,
        config: Path = CONFIG,
        ports: Ports | None = None,
        directory: Path | None = None,
        env: Mapping[str, str] | None = None,
        ready_timeout_sec: float = 180.0,
    ) -> None:
        self._owned = directory is None
        # Short on purpose: see _MAX_TEMP_LENGTH.
        super().__init__(directory or Path(tempfile.mkdtemp(prefix="torchserve-", dir="/tmp")), ports or Ports.free())
        self.model_store = model_store.resolve()
        self._models = list(models)
        self._settings = {**read_properties(config), "model_store": str(self.model_store), **self.ports.settings()}
        self._settings["metrics_config"] = str(config.parent / self._settings.get("metrics_config", "metrics.yaml"))
        self._settings["vmargs"] = with_absolute_log_config(self._settings.get("vmargs", ""), config.parent)
        self._settings.update(settings or {})
        self._env = dict(env or {})
        self._ready_timeout_sec = ready_timeout_sec
        self._launcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the JVM."""
        for process in _family(self._launcher.pid if self._launcher else None):
            with contextlib.suppress(psutil.Error):
                if "org.pytorch.serve.ModelServer" in process.cmdline():
                    return int(process.pid)
        raise ServerError("TorchServe is not running")

    def start(self) -> None:
        """Start and wait until every named model is ready."""
        config = self.directory / "config.properties"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text("".join(f"{key}={value}\n" for key, value in self._settings.items()))
        env = serving_environment(self.directory, config) | self._env
        command = self._command(env)
        with (self.directory / "logs" / "console.log").open("wb") as console:
            self._launcher = subprocess.Popen(
                command, cwd=self.directory, env=env, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
            )
        names = [self._registered_name(model) for model in self._models]
        self.wait_ready(names, process=psutil.Process(self._launcher.pid), timeout_sec=self._ready_timeout_sec)

    def _command(self, env: Mapping[str, str]) -> list[str]:
        """What runs the server in the foreground; `env` is the environment that it gets."""
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots"]
        return [*command, "--models", *self._models] if self._models else command

    def _registered_name(self, model: str) -> str:
        """The name under which `--models MODEL` registers: before the `=`, else the one inside the archive."""
        name, _, _ = model.rpartition("=")
        if name:
            return name
        with zipfile.ZipFile(self.model_store / model) as archive:
            return str(json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelName"])

    def stop(self) -> None:
        """Stop the server and all its workers, and remove its folder if it is ours. Does nothing the second time."""
        if self._launcher is not None:
            stop_processes(_family(self._launcher.pid))
            self._launcher.wait()
            self._launcher = None
        if self._owned:
            shutil.rmtree(self.directory, ignore_errors=True)


def stop_processes(processes: Sequence[psutil.Process], *, timeout_sec: float = _STOP_TIMEOUT_SEC) -> None:
    """Ask the JVM among them to end, which ends its workers; then wait, and kill what is left."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if "org.pytorch.serve.ModelServer" in process.cmdline():
                process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(processes, timeout=timeout_sec)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _family(pid: int | None) -> list[psutil.Process]:
    """The process and all its descendants."""
    with contextlib.suppress(psutil.Error):
        if pid is not None:
            parent = psutil.Process(pid)
            return [parent, *parent.children(recursive=True)]
    return []


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
