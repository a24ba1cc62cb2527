"""What a quick request waits for beside others.

One client asks for one view of a small video, again and again, alone and beside quick ones, long ones, one giant and an
upload of 100 MB. Two forms of the same model are loaded in one TorchServe and take turns: the one that packaging gives
(several workers, one request each), and one worker that batches.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.baselines.archives import OURS, BenchmarkArchives
from benchmarks.progress import Progress
from benchmarks.samples import summarise
from benchmarks.timed_clients import connect
from serving.archive_settings import change_archive
from serving.server import Server, TorchServe

SEVERAL, ONE = "several", "one"
ONE_WORKER = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8}
LONG = {"num_clips": "30", "num_crops": "3"}
GIANT = {"num_clips": "4096", "num_crops": "3"}
_UPLOAD_BYTES = 100 * 10**6
_SETTLE_SEC = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Who else asks, all the time: so many quick clients, and so many with these options and so many bytes more."""

    quick: int = 0
    others: int = 0
    options: Mapping[str, str] | None = None
    padding: int = 0
    forms: Sequence[str] = (SEVERAL, ONE)


SCENES: Mapping[str, Scene] = {
    "alone": Scene(),
    "among 2 quick": Scene(quick=1),
    "among 4 quick": Scene(quick=3),
    "among 8 quick": Scene(quick=7),
    "beside 1 of 90 views": Scene(others=1, options=LONG),
    "beside 3 of 90 views": Scene(others=3, options=LONG),
    "beside 7 of 90 views": Scene(others=7, options=LONG),
    # One worker that batches answers nobody for a minute then, so there is nothing to measure.
    "beside 1 of 12,288 views": Scene(others=1, options=GIANT, forms=(SEVERAL,)),
    "beside uploads of 100 MB": Scene(others=1, padding=_UPLOAD_BYTES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideOptions:
    """`rounds`: how often each form meets each scene, for so many `seconds`."""

    rounds: int = 3
    seconds: float = 6.0
    scenes: Sequence[str] = tuple(SCENES)


def measure_beside(
    archives: BenchmarkArchives, video: bytes, options: BesideOptions, progress: Progress
) -> dict[str, Any]:
    """The `beside` section of a result: milliseconds of a quick request by scene and form; start and memory by form.

    Raises RuntimeError when a quick request fails.
    """
    section: dict[str, Any] = {"unit": "ms", "forms": {}, "scenes": {}}
    with TorchServe(archives.store) as server:
        for form, settings in ((SEVERAL, {}), (ONE, ONE_WORKER)):
            archive = archives.store / f"{form}.mar"
            shutil.copyfile(archives.store / f"{OURS}.mar", archive)
            if settings:
                change_archive(archive, settings)
            started = time.perf_counter()
            with server.client() as client:
                client.register(archive.name, model=form)
            ready_sec = time.perf_counter() - started
            pids = server.worker_pids(form)
            section["forms"][form] = {"workers": len(pids), "ready_sec": ready_sec, "memory_mb": memory_mb(pids)}
            section["forms"][form]["stream_ms"] = stream_ms(server, form, video)
        turns = [
            (scene, form) for _ in range(options.rounds) for scene in options.scenes for form in SCENES[scene].forms
        ]
        found: dict[tuple[str, str], list[float]] = {turn: [] for turn in turns}
        before = {form: set(server.worker_pids(form)) for form in section["forms"]}
        with progress.part("beside others", len(turns)) as bar:
            for scene, form in turns:
                found[scene, form] += quick_times(server, form, video, SCENES[scene], options.seconds)
                bar.update(1)
        for (scene, form), times in found.items():
            section["scenes"].setdefault(scene, {})[form] = summarise(times).to_json()
        for form, facts in section["forms"].items():
            pids = server.worker_pids(form)
            facts["replaced"] = len(before[form] - set(pids))
            facts["memory_after_mb"] = memory_mb(pids)
    return section


def quick_times(server: Server, form: str, video: bytes, scene: Scene, seconds: float) -> list[float]:
    """Milliseconds of one client's requests in that scene; raises RuntimeError when one of them fails."""
    with ExitStack() as stack:
        for _ in range(scene.quick):
            stack.enter_context(asking(server, form, video, None))
        for _ in range(scene.others):
            stack.enter_context(asking(server, form, video + bytes(scene.padding), scene.options))
        time.sleep(_SETTLE_SEC)
        times = []
        with closing(connect(server, "http")) as client:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                reply = client.ask(form, video)
                if reply.error is not None:
                    raise RuntimeError(f"a quick request failed: {reply.error}")
                times.append(reply.milliseconds)
        return times


@contextmanager
def asking(server: Server, form: str, video: bytes, options: Mapping[str, str] | None) -> Iterator[None]:
    """One client that asks without a pause; what it is answered does not matter."""
    stop = threading.Event()

    def run() -> None:
        with closing(connect(server, "http")) as client:
            while not stop.is_set():
                client.ask(form, video, options)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def stream_ms(server: Server, form: str, video: bytes) -> dict[str, float]:
    """Until the first event of a streamed timeline, and until its end."""
    with server.client() as client:
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            events = client.stream(video, model=form, stride_sec=0.1)
            next(events)
            first = time.perf_counter() - started
            for _ in events:
                pass
        return {"first": first * 1e3, "last": (time.perf_counter() - started) * 1e3}


def memory_mb(pids: Sequence[int]) -> list[float]:
    """Memory of each worker with its decoding processes; shared pages are divided among those that share them."""
    workers = [psutil.Process(pid) for pid in pids]
    return [
        round(sum(process.memory_full_info().pss for process in (worker, *worker.children(recursive=True))) / 1e6, 1)
        for worker in workers
    ]
