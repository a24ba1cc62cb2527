"""Runs pip with one line of progress instead of its log, which goes into a file. Only the standard library."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

_WIDTH = 30  # of the bar, characters
_PAUSE_SEC = 10.0  # between lines where there is no terminal
_TAIL_LINES = 20  # of pip's log, shown when it fails
_TAKEN_UP = re.compile(r"(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9][A-Za-z0-9._-]*)")
_INSTALLING = "Installing collected packages: "


class PipFailed(Exception):
    """pip ended with an error; the message holds the end of its log."""


def run_pip(command: Sequence[str], env: Mapping[str, str], *, packages: int, log: Path) -> None:
    """Run the command until it ends; raises PipFailed. `packages`: about how many it will take up."""
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(packages, sys.stdout)
    with (
        log.open("a", encoding="utf-8") as kept,
        subprocess.Popen(command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip,
    ):
        assert pip.stdout is not None
        progress.follow(_copied(pip.stdout, kept))
    if pip.returncode != 0:
        tail = log.read_text(encoding="utf-8").splitlines()[-_TAIL_LINES:]
        raise PipFailed("\n".join([*tail, f"pip ended with exit status {pip.returncode}; its whole log is {log.name}"]))


def _copied(lines: Iterable[str], kept: TextIO) -> Iterable[str]:
    for line in lines:
        kept.write(line)
        yield line


class Progress:
    """Says how many packages pip has taken up: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, packages: int, out: TextIO) -> None:
        self._packages, self._out = packages, out
        self._seen: set[str] = set()
        self._said = 0.0

    def follow(self, lines: Iterable[str]) -> None:
        """Read pip's output to its end."""
        for line in lines:
            if match := _TAKEN_UP.match(line.strip()):
                self._seen.add(match[1].lower())
                self._say(match[1])
            elif line.startswith(_INSTALLING):
                self._say(f"writing {line.count(',') + 1} packages, which takes a minute or two", always=True)
        if self._out.isatty():
            self._out.write("\r\033[K")
            self._out.flush()

    def _say(self, what: str, *, always: bool = False) -> None:
        total = max(self._packages, len(self._seen))
        if self._out.isatty():
            done = _WIDTH * len(self._seen) // total
            bar = "#" * done + "." * (_WIDTH - done)
            self._out.write(f"\r\033[K  [{bar}] {len(self._seen)}/{total} {what}")
            self._out.flush()
        elif always or time.monotonic() - self._said > _PAUSE_SEC:
            self._said = time.monotonic()
            print(f"  {len(self._seen)} of about {total} packages: {what}", file=self._out, flush=True)
