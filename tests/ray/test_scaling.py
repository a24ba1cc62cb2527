"""Two workers take at most 0.6 of one worker's time on two cores."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from bulk.shards import JOURNAL
from tests.e2e.bulk_support import REPOSITORY, command, unfinished_rows, wait_until
from tests.ray.conftest import TwoNodes

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_ROWS = 200
_BUSY_PERCENT = 20.0


def seconds_per_video(address: str, archive: Path, videos: Path, out: Path, workers: int) -> float:
    """Steady state: from the first finished batches, when all models are loaded, to nine tenths of the videos."""
    arguments = ("--ray", address, "--workers", str(workers), "--views", "3x3", "--batch-size", "2")
    process = subprocess.Popen(command("classify", archive, videos, "--out", out, *arguments), cwd=REPOSITORY)
    try:
        wait_until(lambda: (out / JOURNAL).exists() and unfinished_rows(out) >= _ROWS // 10, process, 300)
        first, started = unfinished_rows(out), time.perf_counter()
        wait_until(lambda: unfinished_rows(out) >= _ROWS * 9 // 10, process, 300)
        elapsed = time.perf_counter() - started
        pace = elapsed / (unfinished_rows(out) - first)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()
    return pace


def test_two_workers_against_one(two_nodes: TwoNodes, archive: Path, two_hundred: Path, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    busy = psutil.cpu_percent(interval=3.0)
    if busy > _BUSY_PERCENT:
        pytest.skip(f"the machine is busy ({busy:.0f} %): a ratio of times would mean nothing")
    paces: dict[int, list[float]] = {1: [], 2: []}
    for attempt in range(2):
        for workers in (1, 2):
            out = tmp_path / f"{workers}-{attempt}"
            paces[workers].append(seconds_per_video(two_nodes.address, archive, two_hundred, out, workers))
    ratio = statistics.median(paces[2]) / statistics.median(paces[1])
    print(f"seconds per video: {paces}, ratio {ratio:.2f}")
    assert ratio <= 0.6, paces
