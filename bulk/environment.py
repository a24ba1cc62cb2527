"""What computed scores: processor, device, runtime and versions, as JSON values. No user or host name."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from handlers import __version__

PACKAGES = ("torch", "torchvision", "pytorchvideo", "av", "openvino", "numpy")
"""Whose versions can change scores."""


def made_by(description: dict[str, Any]) -> dict[str, Any]:
    """Of a worker whose classifier describes itself so: this machine, and the runtime that the model really runs on.

    Threads are left out: they do not change scores on a CPU, and results of one and of two workers shall be equal.
    """
    device = str(description.get("device", ""))
    return {
        "runtime": {key: description.get(key) for key in ("runtime", "runtime_version", "device", "precision")},
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu_name() if device.startswith("cuda") else None,
        "versions": versions(PACKAGES) | {"ffmpeg": ffmpeg_version()},
    }


def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Of this package, Python and these packages; None for what is not installed."""
    found: dict[str, str | None] = {"video-action-serving": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


@cache
def ffmpeg_version() -> str | None:
    """Of the FFmpeg libraries inside PyAV's wheel, which decode the videos."""
    try:
        import av
    except ImportError:
        return None
    known: str | None = getattr(av, "ffmpeg_version_info", None)
    return known or "libavcodec " + ".".join(map(str, av.library_versions["libavcodec"]))


BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16")


@cache
def cpu_model() -> str:
    """The processor's name as the system reports it, with its features that decide a model's speed."""
    entries = _cpu_entries()
    if not entries:
        return platform.processor() or platform.machine()
    features = [name for name in ("avx2", "avx512f", *BFLOAT16_FEATURES) if name in cpu_features()]
    name = entries.get("model name", platform.machine())
    return f"{name} ({', '.join(features)})" if features else platform.machine()


@cache
def cpu_features() -> frozenset[str]:
    """What the processor can do, by Linux's names; empty where that is not known."""
    return frozenset(_cpu_entries().get("flags", "").split())


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
