"""What a result was measured on: processor, memory, versions, commit and load. No user or host name."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

from bulk import environment

_CODE = ("handlers", "serving", "camera_motion", "clients", "benchmarks", "scripts")
ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = (*environment.PACKAGES, "torchserve", "torchcodec", "grpcio", "psutil")


def machine() -> dict[str, Any]:
    return {
        "cpu": environment.cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": environment.gpu_name(),
    }


def versions() -> dict[str, str | None]:
    """Of this package, Python and what the contenders are made of; None for what is not installed."""
    return environment.versions(_PACKAGES)


def git_state() -> dict[str, Any]:
    """The commit, and whether tracked files differ from it; both None outside a repository."""
    commit = _git("rev-parse", "HEAD")
    changes = _git(
        "status", "--porcelain", "--untracked-files=no", "--", "handlers", "bulk", "serving", "benchmarks", "scripts"
    )
    return {"commit": commit, "modified": None if changes is None else bool(changes)}


def load_average() -> list[float]:
    """Processes that wanted a core, averaged over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, that precision is no faster."""
    return not set(environment.BFLOAT16_FEATURES).isdisjoint(environment.cpu_features())


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
