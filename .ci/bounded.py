"""`python3 .ci/bounded.py SECONDS COMMAND...`: the command, with an end to it and nothing left of it.

A command that takes longer is ended, and the stacks of its Python processes are asked for first: pytest prints them
when it is aborted. Whatever the command started and did not stop, servers in sessions of their own included, is killed
when it has ended, so that nothing keeps its output open. Exits as the command did, or with 124 as timeout(1) does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h: orphans below this process become its children
_FOR_STACKS_SEC = 5.0
_POLL_SEC = 0.1
_TIMED_OUT = 124


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    limit_sec, command = float(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    process = subprocess.Popen(command)
    try:
        status = _status(process.pid, limit_sec)
        if status is None:
            sys.stderr.write(f"{command[0]} has not ended after {limit_sec:g} s and is stopped; its stacks:\n")
            sys.stderr.flush()
            _abort_python()
            time.sleep(_FOR_STACKS_SEC)
            status = _TIMED_OUT
    finally:
        _kill_all()
    return status if status >= 0 else 128 - status


def _status(command: int, limit_sec: float) -> int | None:
    """How the command ended; None when it has not. Orphans are waited for meanwhile: else they stay zombies."""
    deadline = time.monotonic() + limit_sec
    while time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == command:
            return os.waitstatus_to_exitcode(status)
        if pid == 0:
            time.sleep(_POLL_SEC)
    return None


def _abort_python() -> None:
    for pid in _descendants(os.getpid()):
        if _name(pid).startswith("python"):
            _send(pid, signal.SIGABRT)


def _kill_all() -> None:
    """Until there is no child: the children of what is killed become ours."""
    while True:
        for pid in _descendants(os.getpid()):
            _send(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # PID (name) state parent ...; the name may hold anything.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = children.get(ancestor, [])
    for pid in found:  # grows while it is read
        found.extend(children.get(pid, []))
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
