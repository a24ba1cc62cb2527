"""How many cores this process may use: those that it is bound to, or fewer where a control group has a quota.

A container with `--cpus 2` on a machine of 64 cores may run on all of them, but for two cores' time in all. With a
thread for each of the 64 the time is over a thirtieth into each period, and everything stands still for the rest.

Interfaces: cgroups(7), and the Linux kernel's admin-guide/cgroup-v2.rst (`cpu.max`) and scheduler/sched-bwc.rst
(`cpu.cfs_quota_us`, `cpu.cfs_period_us`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")


def cores(proc: Path = PROC) -> int:
    """Cores that this process may use, at least 1. A quota of part of a core counts as a whole one, as in the JVM."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(proc)
    return bound if quota is None else max(1, min(bound, math.ceil(quota)))


def cpu_quota(proc: Path = PROC) -> float | None:
    """Cores' worth of time that the control groups of this process leave it; None for no bound.

    The smallest of its own group's and those of the groups around it, as far as they can be seen from here.
    `proc` is the process's folder of /proc.
    """
    try:
        quotas = [quota for folder in _folders(proc) if (quota := _quota_of(folder)) is not None]
    except (OSError, ValueError):
        return None
    return min(quotas, default=None)


def _folders(proc: Path) -> Iterator[Path]:
    """The folders of the process's groups, of either version, from its own to the outermost that is mounted."""
    groups = _groups((proc / "cgroup").read_text())
    for line in (proc / "mountinfo").read_text().splitlines():
        about, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "cpu" in options.split(",") else None
        if version not in groups:
            continue
        root, mounted = (field.replace("\\040", " ") for field in about.split(" ")[3:5])
        top, group = Path(mounted), PurePosixPath(groups[version])
        # Without a namespace of its own a container sees the machine's path, below what is mounted in it.
        inside = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        if ".." in inside.parts:
            inside = PurePosixPath()
        yield top
        yield from (top / part for part in (inside, *inside.parents) if part.parts)


def _groups(text: str) -> dict[int | None, str]:
    """The process's group in the one hierarchy of version 2, and in that of version 1 which has the cpu controller."""
    groups: dict[int | None, str] = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            groups[2] = path
        elif "cpu" in controllers.split(","):
            groups[1] = path
    return groups


def _quota_of(folder: Path) -> float | None:
    """The group's own quota in cores; None where it has none. Microseconds of a core's time for each period."""
    if (limits := _read(folder / "cpu.max")) is not None:
        quota, period = limits.split()
    else:
        quota = _read(folder / "cpu.cfs_quota_us") or "max"
        period = _read(folder / "cpu.cfs_period_us") or "100000"
    if quota == "max" or int(quota) <= 0 or int(period) <= 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
