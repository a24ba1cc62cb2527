"""Requests against a real TorchServe that has this package's model, the recipe's and an echo loaded side by side.

Latency: one client, the contenders take turns request by request, the in-process floor among them. Throughput: several
clients at once, in blocks, the contenders block by block. So whatever else happens on the machine happens to all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.baselines.archives import BFLOAT16, ECHO, OURS, RECIPE, BenchmarkArchives
from benchmarks.baselines.contender import ContenderAbsent
from benchmarks.baselines.process import ContenderProcess
from benchmarks.progress import Progress
from benchmarks.samples import shuffled, summarise
from benchmarks.timed_clients import Client, Reply, connect
from serving.server import Server, TorchServe

PROTOCOLS = ("http", "grpc")
_WARM_UP = 2  # requests to each worker, which take them in turns
_WARM_UP_SEC = 3.0  # of a throughput block
_PAUSE_SEC = 0.01  # before each request: threads that still spin after the one before come to rest
_MOST_ERRORS_SHOWN = 3
VIEWS = {"num_clips": "10", "num_crops": "3"}
"""30 views: the protocol with which accuracies are published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """`rounds`: timed requests of one client to each contender. `block_sec`: seconds of one throughput block."""

    rounds: int = 30
    protocols: Sequence[str] = PROTOCOLS
    clients: int = 8
    blocks: int = 4
    block_sec: float = 8.0
    view_rounds: int = 8
    throughput_resolution: str = "320x240"


@dataclass(slots=True)
class _Replies:
    """What one contender answered."""

    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, reply: Reply) -> None:
        if reply.error is not None:
            self.errors.append(reply.error)
            return
        self.milliseconds.append(reply.milliseconds)
        self.labels = reply.labels

    def to_json(self) -> dict[str, Any]:
        summary = summarise(self.milliseconds).to_json() if self.milliseconds else None
        answer: dict[str, Any] = {"latency": summary, "errors": len(self.errors), "top5": self.labels}
        if self.errors:
            answer["first_errors"] = self.errors[:_MOST_ERRORS_SHOWN]
        return answer


def serve(archives: BenchmarkArchives, *models: str) -> TorchServe:
    """A TorchServe of our own with these contenders; a context manager."""
    return TorchServe(archives.store, [f"{model}={model}.mar" for model in models])


def measure_load(
    archives: BenchmarkArchives, videos: Mapping[str, Path], options: LoadOptions, progress: Progress
) -> dict[str, Any]:
    """The `load` section of a result."""
    section: dict[str, Any] = {"unit": "ms", "latency": {}, "views": {}}
    ours = [OURS, BFLOAT16] if archives.bfloat16 else [OURS]
    with ExitStack() as stack:
        server = stack.enter_context(serve(archives, *ours, RECIPE, ECHO))
        floor = _floor(archives.model_dir, stack)
        for protocol in options.protocols:
            section["latency"][protocol] = _latency(
                server, protocol, [*ours, RECIPE, ECHO], floor, videos, options, progress
            )
        section["views"] = _views(server, videos, options, progress)
        video = videos[options.throughput_resolution]
        section["throughput"] = {
            "clients": options.clients,
            "resolution": options.throughput_resolution,
            "unit": "requests/s",
            **_throughput(server, [*ours, RECIPE], video.read_bytes(), options, progress),
        }
    return section


def _floor(model_dir: Path, stack: ExitStack) -> ContenderProcess | None:
    try:
        return stack.enter_context(ContenderProcess("floor", model_dir))
    except ContenderAbsent:
        return None


def _latency(
    server: Server,
    protocol: str,
    served: Sequence[str],
    floor: ContenderProcess | None,
    videos: Mapping[str, Path],
    options: LoadOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Resolution -> contender -> times; `floor` is decoding and model alone, without a round trip."""
    models = [*served, *(["floor"] if floor is not None else [])]
    found: dict[str, Any] = {}
    with (
        progress.part(f"latency, {protocol}", len(videos) * options.rounds) as bar,
        closing(connect(server, protocol)) as client,
    ):
        for resolution, path in videos.items():
            video = path.read_bytes()
            replies = {model: _Replies() for model in models}
            _warm_up(server, client, served, video)
            for turn in range(options.rounds):
                for model in shuffled(models, turn):
                    time.sleep(_PAUSE_SEC)
                    if model == "floor" and floor is not None:
                        replies[model].add(Reply(floor.run(path).total_ms))
                    else:
                        replies[model].add(client.ask(model, video))
                bar.update(1)
            found[resolution] = {model: one.to_json() for model, one in replies.items()}
    return found


def _warm_up(
    server: Server, client: Client, models: Sequence[str], video: bytes, options: Mapping[str, str] | None = None
) -> None:
    """Requests that nobody times, to every worker; what is wrong with them shows in those that follow."""
    for model in models:
        for _ in range(_WARM_UP * len(server.worker_pids(model))):
            client.ask(model, video, options)


def _views(server: Server, videos: Mapping[str, Path], options: LoadOptions, progress: Progress) -> dict[str, Any]:
    """30 views of a video over HTTP, this package alone: the recipe as a handler knows one view."""
    found: dict[str, Any] = {}
    with (
        progress.part("30 views", len(videos) * options.view_rounds) as bar,
        closing(connect(server, "http")) as client,
    ):
        for resolution, path in videos.items():
            video, replies = path.read_bytes(), _Replies()
            _warm_up(server, client, [OURS], video, VIEWS)
            for _ in range(options.view_rounds):
                replies.add(client.ask(OURS, video, VIEWS))
                bar.update(1)
            found[resolution] = replies.to_json()
    return found


def _throughput(
    server: Server, models: Sequence[str], video: bytes, options: LoadOptions, progress: Progress
) -> dict[str, Any]:
    """Contender -> requests answered per second, over the blocks, and the latency that clients saw meanwhile."""
    rates: dict[str, list[float]] = {model: [] for model in models}
    replies = {model: _Replies() for model in models}
    with progress.part(f"throughput, {options.clients} clients", options.blocks * len(rates)) as bar:
        for model in rates:
            _block(server, model, video, options, _Replies(), min(options.block_sec, _WARM_UP_SEC))
        for turn in range(options.blocks):
            for model in shuffled(list(rates), turn):
                rates[model].append(_block(server, model, video, options, replies[model], options.block_sec))
                bar.update(1)
    return {model: {"rate": summarise(rates[model]).to_json(), **replies[model].to_json()} for model in rates}


def _block(server: Server, model: str, video: bytes, options: LoadOptions, replies: _Replies, seconds: float) -> float:
    """Requests per second of `clients` callers in a closed loop: answered requests over the time until the last one
    was answered, so that what was begun in the block counts with the time that it took."""
    lock, answered = threading.Lock(), 0
    until = time.perf_counter() + seconds
    started = time.perf_counter()

    def call(client: Client) -> None:
        nonlocal answered
        while time.perf_counter() < until:
            reply = client.ask(model, video)
            with lock:
                replies.add(reply)
                answered += reply.error is None

    with ExitStack() as stack:
        clients = [stack.enter_context(closing(connect(server, "http"))) for _ in range(options.clients)]
        threads = [threading.Thread(target=call, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answered / (time.perf_counter() - started)
