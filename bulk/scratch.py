"""Temporary folders that hold megabytes, and what killed runs left of them.

A folder is locked while its run lasts, so that the next run can tell what nobody uses any more: the system gives the
lock back however the process ends. Other machines' processes may use the same folder, where the lock holds as well.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "bulk-scratch-"
_UNLOCKED = ".bulk-unlocked-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this run's own below the system's temporary one, gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix=_UNLOCKED))
    # Locked before it has a name that `remove_leftovers` looks for; the lock is the folder's, whatever its name.
    lock = os.open(made, os.O_RDONLY)
    folder = made
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made.rename(made.with_name(made.name.replace(_UNLOCKED, _PREFIX, 1)))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_leftovers() -> int:
    """Removes the folders whose process is gone; how many there were."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, in use (BlockingIOError), or removed by another run
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                removed += 1
            finally:
                os.close(lock)
    return removed
