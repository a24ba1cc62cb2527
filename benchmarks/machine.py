"""What a result was measured on: processor, memory, versions, commit and load. No user or host name."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_CODE = ("handlers", "serving", "camera_motion", "clients", "benchmarks", "scripts")
ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = (
    *("torch", "torchvision", "pytorchvideo", "av", "openvino", "torchserve", "numpy"),
    *("torchcodec", "grpcio", "psutil"),
)


def machine() -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu_name(),
    }


def versions() -> dict[str, str | None]:
    """Of this package, Python and what the contenders are made of; None for what is not installed."""
    from handlers import __version__

    found: dict[str, str | None] = {"video-action-serving": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any]:
    """The commit, and whether tracked files differ from it; both None outside a repository."""
    commit = _git("rev-parse", "HEAD")
    changes = _git(
        "status", "--porcelain", "--untracked-files=no", "--", "handlers", "serving", "benchmarks", "scripts"
    )
    return {"commit": commit, "modified": None if changes is None else bool(changes)}


def load_average() -> list[float]:
    """Processes that wanted a core, averaged over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


_BFLOAT16 = ("avx512_bf16", "amx_bf16")


def cpu_model() -> str:
    """The processor's name as the system reports it, with its features that decide a model's speed."""
    entries = _cpu_entries()
    if not entries:
        return platform.processor() or platform.machine()
    flags = set(entries.get("flags", "").split())
    features = [name for name in ("avx2", "avx512f", *_BFLOAT16) if name in flags]
    return (
        f"{entries.get('model name', platform.machine())} ({', '.join(features)})" if features else platform.machine()
    )


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, that precision is no faster."""
    return not set(_BFLOAT16).isdisjoint(_cpu_entries().get("flags", "").split())


def _cpu_entries() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def gpu_name() -> str | None:
    """The first CUDA device's name; None where there is none, or no torch."""
    try:
        import torch
    except ImportError:
        return None
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
