"""The shared memory of a decoding process: who may write it, and where in it each window's views lie.

The server makes two nameless files. The payload file is written by the server and only read by the process. The slots
file holds views: a fixed number of slots, each large enough for one window of three crops, so that slots never move.
It is sealed: nobody can shrink it, which would end the server with SIGBUS while it reads, or let it grow.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from handlers.specs import ModelSpec
from handlers.video.sampling import views_shape

NUM_SLOTS = 2
"""One window's views are read while the next are written."""

_MOST_CROPS = 3
_FLOAT_BYTES = 4


class PayloadFile:
    """The bytes of one video at a time, for a process that can only read them."""

    def __init__(self) -> None:
        self._file = _nameless_file("payload")
        self.readable = _opened_for_reading(self._file)
        """A descriptor for the process, which can neither write nor resize the file through it."""

    def put(self, payload: bytes | memoryview) -> None:
        """Make this the content; written by calls, not through a mapping, which another process could cut short."""
        rest, at = memoryview(payload), 0
        while rest:
            written = os.pwrite(self._file, rest, at)
            rest, at = rest[written:], at + written

    def wipe(self) -> None:
        """Give the memory back, so that the process cannot read the bytes any more."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        os.close(self._file)
        os.close(self.readable)


class SlotsFile:
    """The memory behind the slots, as the server makes it. Pages that nothing was written to take no memory."""

    def __init__(self, spec: ModelSpec) -> None:
        self.descriptor = _nameless_file("slots")
        os.ftruncate(self.descriptor, NUM_SLOTS * slot_bytes(spec))
        with suppress(AttributeError, OSError):  # not Linux, or a file that cannot be sealed
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)

    def map(self, spec: ModelSpec) -> Slots:
        return Slots(self.descriptor, spec)

    def close(self) -> None:
        os.close(self.descriptor)


class Slots:
    """The slots of one process, mapped. The views of a slot stay valid as long as an array of it is there."""

    def __init__(self, descriptor: int, spec: ModelSpec) -> None:
        self._spec, self._bytes = spec, slot_bytes(spec)
        self._map = mmap.mmap(descriptor, NUM_SLOTS * self._bytes)

    def views(self, slot: int, num_crops: int) -> NDArray[np.float32]:
        """The array in that slot, (num_crops, 3, T, S, S) float32."""
        shape = views_shape(self._spec, num_crops)
        count = int(np.prod(shape))
        return np.frombuffer(self._map, dtype=np.float32, count=count, offset=slot * self._bytes).reshape(shape)


def slot_bytes(spec: ModelSpec) -> int:
    """Bytes of one slot: the views of a window of three crops, up to whole pages."""
    size = int(np.prod(views_shape(spec, _MOST_CROPS))) * _FLOAT_BYTES
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _nameless_file(name: str) -> int:
    """A descriptor of memory that has no path and that a child can map."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _opened_for_reading(descriptor: int) -> int:
    """The same file through a descriptor that cannot write; where /proc does not give one, the same descriptor."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(descriptor)
