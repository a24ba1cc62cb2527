"""Cores under control groups of both versions; the trees are made of files, as the kernel shows them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from handlers.cpu import PROC, cores, cpu_quota
from tests.support.paths import REPOSITORY

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A process's folder in /proc, with the control groups that it names below `mount`."""

    def make(files: Mapping[str, str], *, cgroup: str, mounts: str) -> Path:
        proc, mount = tmp_path / "proc", tmp_path / "sys fs"
        proc.mkdir()
        mount.mkdir()
        for name, text in files.items():
            path = mount / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (proc / "cgroup").write_text(cgroup)
        (proc / "mountinfo").write_text(mounts.format(mount=str(mount).replace(" ", "\\040")))
        return proc

    return make


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


V2 = "30 23 0:26 / {mount} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "29 23 0:25 / {mount} ro - tmpfs tmpfs ro,mode=755\n"
    "30 29 0:26 / {mount}/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "31 29 0:27 / {mount}/memory rw - cgroup cgroup rw,memory\n"
)
IN_V1 = "5:memory:/pod\n3:cpu,cpuacct:/pod\n1:name=systemd:/pod\n0::/pod\n"


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("25000 10000", 3),
        ("6400000 100000", 8),  # more than there are
        ("nonsense", 8),
        ("", 8),
    ],
)
def test_version_2(tree: Tree, quota: str, expected: int) -> None:
    assert cores(tree({"pod/cpu.max": quota}, cgroup="0::/pod\n", mounts=V2)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("100000", 1), ("250000", 3), ("0", 8)])
def test_version_1(tree: Tree, quota: str, expected: int) -> None:
    files = {"cpu,cpuacct/pod/cpu.cfs_quota_us": quota, "cpu,cpuacct/pod/cpu.cfs_period_us": "100000"}
    assert cores(tree(files, cgroup=IN_V1, mounts=V1)) == expected


def test_the_smallest_quota_around_the_process_holds(tree: Tree) -> None:
    files = {"pods/cpu.max": "200000 100000", "pods/one/cpu.max": "max 100000", "pods/one/own/cpu.max": "400000 100000"}
    assert cpu_quota(tree(files, cgroup="0::/pods/one/own\n", mounts=V2)) == 2.0


def test_a_container_that_is_the_root_of_its_own_namespace(tree: Tree) -> None:
    assert cpu_quota(tree({"cpu.max": "150000 100000"}, cgroup="0::/\n", mounts=V2)) == 1.5


def test_a_container_that_sees_the_machines_path(tree: Tree) -> None:
    """Version 1 without a namespace: the container's own group is what is mounted, under the path on the machine."""
    mounts = "30 29 0:26 /docker/ab12 {mount}/cpu rw - cgroup cgroup rw,cpu\n"
    files = {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}
    assert cpu_quota(tree(files, cgroup="3:cpu:/docker/ab12\n", mounts=mounts)) == 3.0


@pytest.mark.parametrize("path", ["/elsewhere", "/../outside"])
def test_a_path_that_is_not_mounted_here(tree: Tree, path: str) -> None:
    mounts = V2.replace("0:26 / ", "0:26 /docker/ab12 ")
    assert cpu_quota(tree({"cpu.max": "100000 100000"}, cgroup=f"0::{path}\n", mounts=mounts)) == 1.0


def test_both_versions_side_by_side(tree: Tree) -> None:
    """As systemd's hybrid form has them: the cpu controller is version 1's, version 2 has no files about it."""
    mounts = V1 + "32 29 0:28 / {mount}/unified rw - cgroup2 cgroup2 rw\n"
    files = {
        "cpu,cpuacct/pod/cpu.cfs_quota_us": "200000",
        "cpu,cpuacct/pod/cpu.cfs_period_us": "100000",
        "unified/pod/cgroup.procs": "1",
    }
    assert cpu_quota(tree(files, cgroup=IN_V1, mounts=mounts)) == 2.0


def test_without_control_groups_the_cores_are_those_of_the_mask(tree: Tree, tmp_path: Path) -> None:
    assert cores(tmp_path / "nothing") == 8
    assert cores(tree({}, cgroup="", mounts="garbage\n")) == 8


def test_nothing_else_counts_cores() -> None:
    """bulk/cores.py binds processes to cores, and bulk/environment.py names the machine."""
    counting = {
        str(path.relative_to(REPOSITORY))
        for package in ("handlers", "serving", "bulk")
        for path in (REPOSITORY / package).rglob("*.py")
        if re.search(r"\bos\.(sched_getaffinity|cpu_count|process_cpu_count)\b", path.read_text())
    }
    assert counting == {"handlers/cpu.py", "bulk/cores.py", "bulk/environment.py"}


@pytest.mark.skipif(not PROC.is_dir(), reason="this system has no /proc")
def test_this_process_has_some() -> None:
    assert 1 <= cores() <= 8
