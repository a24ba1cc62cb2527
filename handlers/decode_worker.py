"""The decoding process: takes jobs from a pipe, puts views into shared memory. Runs apart from the server on purpose.

It meets the bytes of strangers, so it holds nothing worth taking: no environment, no torch, no model; it can open no
file and no socket, and its memory has a ceiling. Messages to the parent are JSON, never pickles.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import resource
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.assembly import VideoReader, views_shape
from handlers.clips import Sampling
from handlers.errors import InternalError, RequestError
from handlers.libav import cap_allocations, import_lazy_parts
from handlers.limits import Limits
from handlers.specs import ModelSpec, get_spec

_PR_SET_PDEATHSIG = 1
_FLOAT_BYTES = 4
_JOBS_BETWEEN_TRIMS = 32
_DESCRIPTORS = 64  # where the system does not tell how many are open
_MAPPINGS = 2  # payload and outbox: Python keeps a descriptor of its own for each
_IDLE_BYTES = 256 * 2**20  # likewise for memory


class _Outbox:
    """The shared slots for views: hands out free ones, waits for the parent when there is none."""

    def __init__(self, connection: Connection, descriptor: int) -> None:
        self._connection, self._descriptor = connection, descriptor
        self._map: mmap.mmap | None = None
        self._free: list[int] = []
        self._slots: dict[int, int] = {}

    def prepare(self, shape: tuple[int, ...], slots: int, free: list[int]) -> None:
        """Make room for `slots` arrays of that shape; the parent has sized the memory already.

        Slots that are not `free` hold views of the job before, which the parent still reads.
        """
        self._slot_bytes = int(np.prod(shape)) * _FLOAT_BYTES
        if self._map is None or len(self._map) < self._slot_bytes * slots:
            self._map = None  # first, for it holds a descriptor, and there is one
            self._map = mmap.mmap(self._descriptor, self._slot_bytes * slots)
        self._free = list(free)
        self._slots.clear()

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        while not self._free:
            message = json.loads(self._connection.recv_bytes())
            self._free.append(int(message["free"]))
        slot = self._free.pop()
        assert self._map is not None
        count = self._slot_bytes // _FLOAT_BYTES
        views = np.frombuffer(self._map, dtype=np.float32, count=count, offset=slot * self._slot_bytes)
        self._slots[views.ctypes.data] = slot
        return views.reshape(shape)

    def slot_of(self, views: NDArray[np.float32]) -> int:
        return self._slots.pop(views.ctypes.data)


def main() -> None:
    """Entry point; arguments: connection, payload and outbox descriptors, spec, limits as JSON, autorotate."""
    pipe, payload, outbox = (int(text) for text in sys.argv[1:4])
    settings = json.loads(sys.argv[4])
    spec, limits = get_spec(settings["spec"]), Limits(**settings["limits"])
    connection = Connection(pipe)
    _rehearse(spec, limits)
    _confine(limits, bool(settings["capped"]))
    connection.send_bytes(b'{"ready": true}')
    room = _Outbox(connection, outbox)
    jobs = 0
    while True:
        try:
            job = json.loads(connection.recv_bytes())
        except EOFError:
            return
        if "sampling" not in job:
            continue  # a slot of the job before is free again; the next job says which are
        _serve(connection, payload, room, spec, limits, job, autorotate=bool(settings["autorotate"]))
        jobs += 1
        if jobs % _JOBS_BETWEEN_TRIMS == 0:
            _give_back_memory()


def _serve(
    connection: Connection,
    descriptor: int,
    room: _Outbox,
    spec: ModelSpec,
    limits: Limits,
    job: dict[str, Any],
    *,
    autorotate: bool,
) -> None:
    room.prepare(views_shape(spec, job["sampling"]["num_crops"]), job["slots"], job["free"])
    mapped = mmap.mmap(descriptor, job["bytes"], access=mmap.ACCESS_READ) if job["bytes"] else None
    payload = memoryview(mapped if mapped is not None else b"")
    answer: dict[str, Any]
    try:
        answer = _decode(connection, payload, room, spec, limits, job, autorotate=autorotate)
    except RequestError as error:
        answer = {"error": error.type, "message": error.message}
    except MemoryError:
        answer = {"error": "UndecodableVideo", "message": "decoding this video needs more memory than is allowed"}
    except Exception as error:  # noqa: BLE001  whatever a stranger's bytes provoke is that request's failure
        answer = {"error": InternalError.__name__, "message": f"decoding failed unexpectedly: {type(error).__name__}"}
    payload.release()
    gc.collect()  # pictures in reference cycles would count against the memory of the jobs to come
    if mapped is not None:
        mapped.close()
    connection.send_bytes(json.dumps(answer).encode())


def _decode(
    connection: Connection,
    payload: memoryview,
    room: _Outbox,
    spec: ModelSpec,
    limits: Limits,
    job: dict[str, Any],
    *,
    autorotate: bool,
) -> dict[str, Any]:
    allocate, threads = room.allocate, int(job["threads"])
    reader = VideoReader(
        payload, spec, limits, autorotate=autorotate, allocate=allocate, threads=threads, overlap=threads > 1
    )
    try:
        for done in reader.windows(Sampling(**job["sampling"])):
            message = {
                "window": done.index,
                "start_sec": float(done.window.start_sec),
                "end_sec": float(done.window.end_sec),
                "slot": room.slot_of(done.views),
            }
            connection.send_bytes(json.dumps(message).encode())
        return {"report": reader.report().to_json()}
    finally:
        reader.close()


def _confine(limits: Limits, capped: bool) -> None:
    """Give up what decoding does not need, before the first stranger's byte is read."""
    gc.freeze()
    cap_allocations(limits)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if capped:
        ceiling = _data_bytes() + limits.decode_memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    _use_up_descriptors()


def _give_back_memory() -> None:
    """Frames of many sizes leave holes in glibc's heap, which grew by 50 MB in 2,400 jobs; this returns them."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _use_up_descriptors() -> None:
    """Leave free only what a job's mappings take: while a stranger's bytes are decoded nothing can be opened.

    The limit bounds a descriptor's number, not how many there are, so gaps below the highest one are filled.
    """
    descriptors = Path("/proc/self/fd")
    highest = max(int(entry.name) for entry in descriptors.iterdir()) if descriptors.is_dir() else _DESCRIPTORS
    while (filler := os.dup(0)) <= highest:
        pass
    os.close(filler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler + _MAPPINGS, filler + _MAPPINGS))


def _data_bytes() -> int:
    """Private writable memory of this process now, bytes; what RLIMIT_DATA counts (Linux 4.7 and newer)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return _IDLE_BYTES
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))


def _rehearse(spec: ModelSpec, limits: Limits) -> None:
    """Decode a video of one grey frame, and fail on no video: what is opened when first used is then open already."""
    import_lazy_parts()
    grey = b"YUV4MPEG2 W16 H16 F25:1 C420jpeg\nFRAME\n" + bytes([128]) * (16 * 16 * 3 // 2)
    for payload in (grey, grey[:60], b""):
        with suppress(RequestError):
            reader = VideoReader(payload, spec, limits, autorotate=True, allocate=lambda shape: np.empty(shape, "f4"))
            for _ in reader.windows(Sampling()):
                reader.report().to_json()
            reader.close()


if __name__ == "__main__":
    main()
