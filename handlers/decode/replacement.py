"""When a decoding process that works is replaced all the same: because FFmpeg met an error in it.

What a failed attempt to exploit FFmpeg leaves behind, in its heap above all, ends with the process that holds it.
Nobody waits for that: the process serves on while its successor starts, and only then makes room for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from handlers.decode.child import DecodingProcess

INTERVAL_SEC = 5.0
"""From the start of one successor to that of the next, so that a flood of broken files does not keep a core busy."""


class Replacement:
    """The successor of processes that met an error, one at a time."""

    def __init__(self, make: Callable[[], DecodingProcess]) -> None:
        """`make` gives a process that has not been started."""
        self._make = make
        self._not_before = 0.0
        self.successor: DecodingProcess | None = None
        self.count = 0  # of processes that have made room for their successors

    def advance(self, processes: list[DecodingProcess]) -> int:
        """Start a successor where one is due, and let it take its place in the list; never waits.

        Returns the `losses` of the process that had that place.
        """
        if self.successor is None:
            self._begin(processes)
            return 0
        if self.successor.is_starting:
            self.successor.read()
        if self.successor.is_starting:
            return 0
        if not self.successor.is_usable():
            self.close()
            return 0
        place = next((at for at, each in enumerate(processes) if each.met_error and each.job is None), None)
        if place is not None:
            old, processes[place], self.successor = processes[place], self.successor, None
            old.stop()
            self.count += 1
            return old.losses
        if not any(each.met_error for each in processes):
            self.close()  # the process has ended in another way meanwhile
        return 0

    def close(self) -> None:
        if self.successor is not None:
            self.successor.stop()
        self.successor = None

    def _begin(self, processes: list[DecodingProcess]) -> None:
        now = time.monotonic()
        if now < self._not_before or not any(each.met_error for each in processes):
            return
        self._not_before = now + INTERVAL_SEC
        successor = self._make()
        with suppress(OSError):  # no memory for it; the next is tried after the interval
            successor.start()
            self.successor = successor
