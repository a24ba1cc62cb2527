"""A systemd of its own on this machine, as process 1 of a container whose files are the machine's, below an overlay.

What it writes is gone afterwards, and nothing of the machine's own services is started: only `basic.target`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deployment import program
from tests.support.paths import REPOSITORY

INSTALLED = "/opt/video-serving"
_SYSTEMD = Path("/lib/systemd/systemd")
_START_SEC = 60.0
_EMPTY = (("/tmp", "1777"), ("/run", "755"), ("/run/lock", "1777"), ("/var/log/journal", "755"))
"""Folders that systemd wants in memory, with their modes; podman would fill them with the machine's files."""


class ServiceManager:
    """Commands of that machine."""

    def __init__(self, podman: str, container: str) -> None:
        self._podman, self._container = podman, container

    def run(self, *command: str, body: bytes = b"", check: bool = True) -> str:
        """What a command there prints."""
        done = subprocess.run(
            [self._podman, "exec", "-i", self._container, *command], input=body, capture_output=True, check=False
        )
        assert done.returncode == 0 or not check, done.stderr.decode()
        return done.stdout.decode()

    def properties(self, unit: str) -> dict[str, str]:
        """What systemd knows of the unit."""
        return dict(line.split("=", 1) for line in self.run("systemctl", "show", unit).splitlines())

    def log(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--unit", unit)


@contextmanager
def service_manager(folder: Path) -> Iterator[ServiceManager]:
    """With this checkout and its packages at INSTALLED; `folder` is for what that takes."""
    podman, name = program("podman", "podman"), f"video-serving-systemd-{os.getpid()}"
    if not _SYSTEMD.is_file():
        pytest.skip(f"{_SYSTEMD} is missing: apt-get install --no-install-recommends systemd")
    environment = readable_environment(folder / "venv")
    command = [podman, "run", "--detach", "--name", name, "--privileged", "--network=none", "--systemd=always",
               *(f"--tmpfs={path}:rw,mode={mode},notmpcopyup" for path, mode in _EMPTY),
               f"--volume={REPOSITORY}:{INSTALLED}:ro", f"--volume={environment}:{INSTALLED}/.venv:ro",
               "--rootfs", "/:O", str(_SYSTEMD), "--unit=basic.target"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manager = ServiceManager(podman, name)
    try:
        deadline = time.monotonic() + _START_SEC
        while "running" not in (state := manager.run("systemctl", "is-system-running", check=False)):
            assert time.monotonic() < deadline, state
            if "degraded" in state:
                break  # some unit of the machine's own does not start in a container
            time.sleep(0.2)
        # On a machine of its own systemd does this at boot; without it units do not see their credentials.
        manager.run("mount", "--make-rshared", "/")
        yield manager
    finally:
        subprocess.run([podman, "rm", "--force", "--time=0", name], capture_output=True)


def readable_environment(folder: Path) -> Path:
    """A virtual environment with this one's packages, whose Python is one that every user may run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = shutil.which(version, path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip(f"{version} is not installed for all users: apt-get install --no-install-recommends {version}")
    builder = venv.EnvBuilder(symlinks=True)
    context = builder.ensure_directories(str(folder))
    builder.create_configuration(context)
    (folder / "bin" / "python").symlink_to(python)
    packages = folder / "lib" / version / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder
