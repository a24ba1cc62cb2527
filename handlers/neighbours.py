"""The other workers of the same model: what they are doing, and turns on the cores for long requests.

TorchServe gives each worker requests of its own and tells none about the others, so without this the views of a long
request would stand beside a quick one's on every core. The workers of a model share its unpacked folder; a file there
has one byte for each worker, and one for each turn. A worker owns a byte while it holds the lock on it. The system
takes locks back when their process ends in whatever way, so a worker that died is neither busy nor has a turn.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

FILE = ".workers"
_MOST_WORKERS = 256  # of one model on one machine; those beyond work as if they were alone
_QUICK_SEC = 0.5  # a client that waits for its answer is likely to send the next request at once
_TURN_POLL_SEC = 0.002  # a view takes tens of milliseconds
_TURN_PATIENCE_SEC = 2.0  # a worker that has been stopped may hold a turn


class Activity(IntEnum):
    """What a worker is doing; the number is its byte in the file."""

    IDLE = 0
    QUICK = 1
    LONG = 2


class Neighbours:
    """This worker among those of its model. Without a folder, or one that cannot be written, it has no neighbours.

    `cores`: how many views of long requests may be computed at the same time by all workers together; one fewer while
    a quick request is there.
    """

    def __init__(self, model_dir: Path | None = None, *, cores: int = 1) -> None:
        self._cores = cores
        self._mutex = threading.Lock()
        self._held: set[int] = set()
        self._quick_until = 0.0
        self._file: int | None = None
        if model_dir is not None:
            self._join(model_dir / FILE)

    def _join(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, _MOST_WORKERS)
            self._activities = mmap.mmap(self._file, _MOST_WORKERS)
        except OSError:
            self.close()
            return
        mine = next((entry for entry in range(_MOST_WORKERS) if self._lock(entry)), None)
        if mine is None:
            self.close()
            return
        self._mine = mine
        self.set(Activity.IDLE)

    def set(self, activity: Activity) -> None:
        """Tell the others what this worker does from now on."""
        if self._file is not None:
            self._activities[self._mine] = activity

    def busy(self) -> list[Activity]:
        """What each other worker that has a request is doing; takes about a microsecond for each."""
        if self._file is None:
            return []
        entries = self._activities[:]
        return [
            Activity(min(entries[entry], Activity.LONG))
            for entry in range(_MOST_WORKERS)
            if entries[entry] and entry != self._mine and self._is_alive(entry)
        ]

    @property
    def turns(self) -> int:
        """How many views of long requests may be computed at the same time, in all workers."""
        if self._file is None:
            return sys.maxsize
        now = time.monotonic()
        if Activity.QUICK in self.busy():
            self._quick_until = now + _QUICK_SEC
        return max(self._cores - 1, 1) if now < self._quick_until else self._cores

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One of the turns, from any thread. Waits until it is free, but goes ahead without it after two seconds."""
        if self._file is None:
            yield
            return
        until = time.monotonic() + _TURN_PATIENCE_SEC
        while (taken := self._take_turn()) is None and time.monotonic() < until:
            time.sleep(_TURN_POLL_SEC)
        try:
            yield
        finally:
            if taken is not None:
                self._give_back(taken)

    def _take_turn(self) -> int | None:
        """A turn that nobody has. The locks keep it from other processes, the set from this one's other threads."""
        with self._mutex:
            for turn in range(self.turns):
                if turn not in self._held and self._lock(_MOST_WORKERS + turn):
                    self._held.add(turn)
                    return turn
        return None

    def _give_back(self, turn: int) -> None:
        with self._mutex:
            self._held.discard(turn)
            self._unlock(_MOST_WORKERS + turn)

    def close(self) -> None:
        """Give up the entry and every turn."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _is_alive(self, entry: int) -> bool:
        """Whether a worker holds the entry; one that it left is cleared."""
        if not self._lock(entry):
            return True
        self._activities[entry] = Activity.IDLE
        self._unlock(entry)
        return False

    def _lock(self, byte: int) -> bool:
        """Whether this process has the byte now; false while another process has it."""
        assert self._file is not None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def _unlock(self, byte: int) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
