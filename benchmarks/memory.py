"""Memory of a worker and the processes it starts: idle, while a 4K clip is answered, and after many requests.

Resident memory is added up over the processes, so pages that they share count twice. The peak is taken twice, too:
sampled, and as the sum of each process's own high-water mark, which misses nothing and is never smaller than the truth;
targets look at the latter where the system reports it.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.baselines.archives import OURS, RECIPE, BenchmarkArchives
from benchmarks.load import serve
from benchmarks.progress import Progress
from benchmarks.timed_clients import connect
from serving.server import Server

_MB = 10**6
_SAMPLE_SEC = 0.01
_LARGE_REQUESTS = 3
_CHECKPOINTS = 6  # readings of resident memory in a row of requests
_CYCLE = 32  # requests behind a reading: jobs after which a decoding process trims its heap


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """`requests`: how many in a row must leave memory flat. `with_recipe`: ask the recipe for the large clip, too.

    The recipe takes more than 8 GB for a 4K clip.
    """

    requests: int = 300
    with_recipe: bool = False


def worker_processes(server: Server, model: str) -> list[psutil.Process]:
    """The model's workers and every process below them."""
    found: list[psutil.Process] = []
    for pid in server.worker_pids(model):
        with suppress(psutil.Error):
            worker = psutil.Process(pid)
            found += [worker, *worker.children(recursive=True)]
    return found


def resident_mb(processes: Sequence[psutil.Process]) -> float:
    """Megabytes that they hold now, added up."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total / _MB


def high_water_mb(processes: Sequence[psutil.Process]) -> float | None:
    """Megabytes that each of them held at most (VmHWM), added up; None where the system does not report it."""
    total = 0.0
    for process in processes:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                total += int(line.split()[1]) * 1024 / _MB
    return total or None


class PeakSampler:
    """Samples the resident memory of the processes while its context lasts; `peak_mb` afterwards."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._processes = processes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_mb = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.is_set():
            self.peak_mb = max(self.peak_mb, resident_mb(self._processes))
            self._stop.wait(_SAMPLE_SEC)


def measure_memory(
    archives: BenchmarkArchives,
    videos: Mapping[str, Path],
    large: str,
    options: MemoryOptions,
    progress: Progress,
) -> dict[str, Any]:
    """The `memory` section of a result, megabytes of 10^6 bytes.

    `large` names the video whose peak counts; the row of requests takes the others in turns.
    """
    section: dict[str, Any] = {"unit": "MB", "large": large, "contenders": {}}
    contenders = [OURS, *([RECIPE] if options.with_recipe else [])]
    with progress.part("memory", len(contenders) * _LARGE_REQUESTS + options.requests) as bar:
        for model in contenders:
            # A fresh server: what earlier requests left behind would hide in the idle figure.
            with serve(archives, model) as server:
                with server.client() as client:
                    client.scale(model, min_workers=1)  # it is a worker's memory that is asked for
                found = _peak(server, model, videos[large].read_bytes(), bar)
                if model == OURS:
                    others = [path.read_bytes() for name, path in videos.items() if name != large]
                    found["row"] = _row(server, model, others or [videos[large].read_bytes()], options, bar)
                section["contenders"][model] = found
    return section


def _peak(server: Server, model: str, video: bytes, bar: Any) -> dict[str, Any]:
    """Idle is a worker that is ready and was asked nothing yet."""
    processes = worker_processes(server, model)
    idle, errors = resident_mb(processes), []
    with closing(connect(server, "http")) as client, PeakSampler(processes) as sampler:
        for _ in range(_LARGE_REQUESTS):
            reply = client.ask(model, video)
            if reply.error is not None:
                errors.append(reply.error)
            bar.update(1)
    after = worker_processes(server, model)
    high_water = high_water_mb(after)
    peak = max(sampler.peak_mb, high_water or 0.0)
    return {
        "idle": round(idle, 1),
        "sampled_peak": round(sampler.peak_mb, 1),
        "high_water_peak": None if high_water is None else round(high_water, 1),
        "above_idle": round(peak - idle, 1),
        "processes": len(processes),
        "replaced": sorted(process.pid for process in after) != sorted(process.pid for process in processes),
        "errors": errors,
    }


def _row(server: Server, model: str, videos: Sequence[bytes], options: MemoryOptions, bar: Any) -> dict[str, Any]:
    """Resident memory along a row of requests. Growth is from a third of the way, when every buffer has found its size,
    to the end. A reading is the median of those after the last few requests: a decoding process gives its heap's holes
    back now and then, so that one alone would tell where in that cycle it was taken."""
    marks = sorted({max(1, round(options.requests * step / _CHECKPOINTS)) for step in range(1, _CHECKPOINTS + 1)})
    recent: deque[float] = deque(maxlen=_CYCLE)
    readings: dict[int, float] = {}
    errors = 0
    with closing(connect(server, "http")) as client:
        for count in range(1, options.requests + 1):
            errors += client.ask(model, videos[count % len(videos)]).error is not None
            recent.append(resident_mb(worker_processes(server, model)))
            if count in marks:
                readings[count] = round(statistics.median(recent), 1)
            bar.update(1)
    warm = marks[len(marks) // 3 - 1] if len(marks) >= 3 else marks[0]
    return {
        "requests": options.requests,
        "errors": errors,
        "resident": {str(count): value for count, value in readings.items()},
        "warm_after": warm,
        "growth": round(readings[marks[-1]] - readings[warm], 1),
    }
