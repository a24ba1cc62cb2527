"""A copy of the repository in which commands can be run without touching this one: own ports, own model store."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from serving.environment import REPOSITORY, Ports, read_properties

_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".serving", "build", "logs", "key_file.json", "*.mar", "__pycache__", ".*_cache", ".hypothesis",
    "tests", "node_modules",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkout:
    """The copy's folder and the ports in its config.properties; `.venv` is a link to the one in use."""

    root: Path
    ports: Ports

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, timeout_sec: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the copy's root; standard output and error are captured as text."""
        # An empty torch hub folder: nothing is cached, so nothing published is served by luck.
        variables = {**os.environ, "TORCH_HOME": str(self.root / "torch_home"), **(env or {})}
        return subprocess.run(
            command,
            cwd=self.root,
            env=variables,
            capture_output=True,
            text=True,
            timeout=timeout_sec,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """Every process whose working folder or command line lies in the copy."""
        found = []
        for process in psutil.process_iter():
            try:
                where = [process.cwd(), *process.cmdline()]
            except (psutil.Error, OSError):
                continue
            if process.pid != os.getpid() and any(str(self.root) in text for text in where):
                found.append(process)
        return found


def copy_checkout(root: Path) -> Checkout:
    """Copy the working tree, without what is made from it, and give it free ports."""
    shutil.copytree(REPOSITORY, root, ignore=_NOT_COPIED, dirs_exist_ok=True)
    (root / ".venv").symlink_to(REPOSITORY / ".venv")
    ports = Ports.free()
    settings = read_properties(REPOSITORY / "config.properties") | ports.settings()
    (root / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return Checkout(root, ports)
