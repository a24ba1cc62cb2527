"""Workers of one machine claim different cores, and give them back by ending."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes")

_WORKER = """
import os, pathlib, subprocess, sys, threading
from bulk.cores import claim_cores
waiting = threading.Event()
threading.Thread(target=waiting.wait).start()
claims = claim_cores(int(sys.argv[2]), pathlib.Path(sys.argv[1]))
masks = {frozenset(os.sched_getaffinity(int(name))) for name in os.listdir("/proc/self/task")}
child = "import os; print(*sorted(os.sched_getaffinity(0)))"
print(len(claims), len(masks), subprocess.check_output([sys.executable, "-c", child], text=True).strip(), flush=True)
sys.stdin.read()
waiting.set()
"""


def worker(folder: Path, count: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", _WORKER, str(folder), str(count)]
    return subprocess.Popen(arguments, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def claimed(process: subprocess.Popen[str]) -> tuple[int, set[int]]:
    """How many cores it holds, and those that its child may use."""
    assert process.stdout is not None
    claims, masks, *cores = (int(part) for part in process.stdout.readline().split())
    assert masks == 1, "threads of one process are bound differently"
    return claims, set(cores)


def test_each_worker_has_cores_of_its_own_until_it_ends(tmp_path: Path) -> None:
    everything = os.sched_getaffinity(0)
    if len(everything) < 2:
        pytest.skip("one core cannot be divided")
    first, second = worker(tmp_path, 1), worker(tmp_path, len(everything) - 1)
    try:
        (one, its), (rest, others) = claimed(first), claimed(second)
        assert (one, rest) == (1, len(everything) - 1)
        assert not its & others
        assert its | others == everything
        third = worker(tmp_path, 1)
        assert claimed(third) == (0, everything)  # nothing is left: it runs unbound
        third.communicate(timeout=30)
        first.kill()
        first.wait()
        fourth = worker(tmp_path, 1)
        assert claimed(fourth) == (1, its)
        fourth.communicate(timeout=30)
    finally:
        first.kill()
        second.kill()
        first.communicate()
        second.communicate()
