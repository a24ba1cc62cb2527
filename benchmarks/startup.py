"""Seconds from a register call to a ready worker, with the server already up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from benchmarks.baselines.archives import OURS, RECIPE, BenchmarkArchives
from benchmarks.load import serve
from benchmarks.progress import Progress
from benchmarks.samples import shuffled, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupOptions:
    """`rounds`: registrations of each contender."""

    rounds: int = 5


def measure_startup(archives: BenchmarkArchives, options: StartupOptions, progress: Progress) -> dict[str, Any]:
    """The `startup` section of a result, seconds. The first registration of a run reads files that are not cached."""
    seconds: dict[str, list[float]] = {OURS: [], RECIPE: []}
    with serve(archives) as server, progress.part("startup", options.rounds * len(seconds)) as bar:
        for turn in range(options.rounds):
            for model in shuffled(list(seconds), turn):
                started = time.perf_counter()
                # Answered only when the worker is ready.
                server.register(f"{model}.mar", name=model)
                seconds[model].append(time.perf_counter() - started)
                server.unregister(model)
                bar.update(1)
    return {"unit": "s", **{model: summarise(values).to_json() for model, values in seconds.items()}}
