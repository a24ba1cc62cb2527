"""Binds a worker and its decoding processes to the cores that it was promised, so that others keep theirs.

Workers of one machine do not know each other, so a core is claimed by a lock on a file, which ends with its holder.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import BinaryIO


def claim_cores(count: int, folder: Path | None = None) -> list[BinaryIO]:
    """Bind this process, all its threads and later children to `count` cores that no other worker has claimed.

    The claim lasts while the returned files are open. Where there are not enough free cores, or the system cannot
    bind, nothing happens and the list is empty.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    folder = folder or Path(tempfile.gettempdir()) / f"bulk-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    claims: dict[int, BinaryIO] = {}
    for core in sorted(os.sched_getaffinity(0)):
        file: BinaryIO = (folder / str(core)).open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        claims[core] = file
        if len(claims) == count:
            _bind(set(claims))
            return list(claims.values())
    for file in claims.values():
        file.close()
    return []


def _bind(cores: set[int]) -> None:
    """Threads that run already, too: new ones and child processes inherit from whichever starts them."""
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:  # the thread has just ended
            continue
