"""Decoding in processes of their own: a video that crashes, hangs or devours memory takes only its own request along.

Each process has a pipe, a shared buffer for the payload and a shared buffer for finished views. A process that misses
its deadline or dies is replaced; the job it held gets an error, every other job goes on.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np

from handlers.assembly import views_shape
from handlers.clips import Sampling, VideoReport, Window, WindowViews
from handlers.decode_service import Bell, DecodeJob, Delivery
from handlers.errors import REQUEST_ERRORS, DecodeTimeout, InternalError, SetupError, UndecodableVideo
from handlers.limits import Limits
from handlers.specs import ModelSpec

_START_TIMEOUT_SEC = 60.0
_GRACE_SEC = 1.0  # the process ends its job itself at the deadline; past this it is taken to hang
_SLOTS = 2  # views of two windows: one is read while the next is written
_MOST_THREADS = 4  # for one video
_KEPT_PAYLOAD_BYTES = 16 * 2**20  # a larger payload's pages are given back after the job
_HEAP_BYTES = 32 * 2**20  # allocations up to this size come from the heap; it is the most that glibc allows
_KEPT_HEAP_BYTES = 128 * 2**20
_CODE = "import sys; sys.path.insert(0, {root!r}); from handlers.decode_worker import main; main()"


class ProcessDecodeService:
    """A pool of decoding processes, driven by one thread. See `decode_service.DecodeService`."""

    def __init__(
        self, spec: ModelSpec, limits: Limits, *, processes: int, autorotate: bool = True, capped: bool = True
    ) -> None:
        self._limits = limits
        self.bell = Bell()
        settings = {
            "spec": spec.name,
            "limits": dataclasses.asdict(limits),
            "autorotate": autorotate,
            "capped": capped,
        }
        self._processes = [_Process(spec, settings, limits) for _ in range(processes)]
        self._queued: deque[DecodeJob] = deque()
        for process in self._processes:
            process.start()
        for process in self._processes:
            process.await_ready()

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        job = DecodeJob(payload, sampling)
        self._queued.append(job)
        self._assign()
        return job

    def wait(self, timeout_sec: float | None = None, *, until_rung: bool = False) -> None:
        self._assign()  # what was released since may have made room
        busy = [process for process in self._processes if process.job is not None]
        if not busy and not until_rung:
            return
        now = time.monotonic()
        limits = [process.deadline - now for process in busy]
        if timeout_sec is not None:
            limits.append(timeout_sec)
        sources: list[Connection | socket] = [process.connection for process in busy]
        if until_rung:
            sources.append(self.bell.source)
        ready = set(wait(sources, max(min(limits), 0.0) if limits else None))
        if self.bell.source in ready:
            self.bell.hush()
        for process in busy:
            if process.connection in ready:
                process.read_all()
            elif process.is_overdue():
                process.fail(
                    DecodeTimeout(
                        f"decoding took longer than the {self._limits.decode_timeout_sec:g} s that are allowed"
                    )
                )
        self._assign()

    def cancel(self, job: DecodeJob) -> None:
        if job in self._queued:
            self._queued.remove(job)
        job.cancelled = True
        for process in self._processes:
            if process.job is job:
                process.fail(InternalError("the request was given up"))
        while job.deliveries:
            job.deliveries.popleft().release()
        self._assign()

    def close(self) -> None:
        for process in self._processes:
            process.stop()
        self.bell.close()

    def process_ids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def _assign(self) -> None:
        for process in self._processes:
            while self._queued and process.is_free_for(self._queued[0]):
                idle = sum(other.job is None for other in self._processes) - len(self._queued)
                process.begin(self._queued.popleft(), threads=_threads(idle))


def _threads(idle: int) -> int:
    """For one video while so many other processes idle: their cores, and one more, since threads wait for each other's
    pictures; one thread where no core is free."""
    return min(idle + 2, _MOST_THREADS) if idle > 0 else 1


class _Process:
    """One decoding process and the parent's side of its pipe and shared memory."""

    connection: Connection
    _popen: subprocess.Popen[bytes]

    def __init__(self, spec: ModelSpec, settings: dict[str, Any], limits: Limits) -> None:
        self._spec, self._settings, self._limits = spec, settings, limits
        self._payload_file, self._outbox_file = _shared_file(), _shared_file()
        self._payload_map: mmap.mmap | None = None
        self._outbox: mmap.mmap | None = None
        self._generation = 0
        self.job: DecodeJob | None = None
        self.deadline = 0.0
        self._held: set[int] = set()  # slots whose views were delivered and not yet released, of whichever job
        self._shape: tuple[int, ...] = ()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def is_overdue(self) -> bool:
        """Whether it should have said something by now. While every slot is taken it waits for us, however long."""
        return time.monotonic() > self.deadline and len(self._held) < _SLOTS

    def is_free_for(self, job: DecodeJob) -> bool:
        """Whether it can take this job: views of another shape that are still read would be overwritten."""
        return self.job is None and (not self._held or self._shape == views_shape(self._spec, job.sampling.num_crops))

    def _expect_news(self) -> None:
        """It ends a job at the deadline by itself, so what stays silent for that long after any news hangs."""
        self.deadline = time.monotonic() + self._limits.decode_timeout_sec + _GRACE_SEC

    def start(self) -> None:
        self.connection, theirs = Pipe()
        inherited = (theirs.fileno(), self._payload_file, self._outbox_file)
        code = _CODE.format(root=str(Path(__file__).resolve().parent.parent))
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *map(str, inherited), json.dumps(self._settings)],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            env=_bare_environment(),
            cwd="/",
        )
        theirs.close()
        self._generation += 1
        self._is_ready = False

    def await_ready(self) -> None:
        if self._is_ready:
            return
        try:
            if not self.connection.poll(_START_TIMEOUT_SEC):
                raise SetupError(f"the decoding process did not start within {_START_TIMEOUT_SEC:g} s")
            self.connection.recv_bytes()
        except (EOFError, OSError):
            raise SetupError("the decoding process ended while it started; see the log above") from None
        self._is_ready = True

    def begin(self, job: DecodeJob, *, threads: int) -> None:
        """Hand the job over; whatever goes wrong with the process is the job's error and is not raised."""
        if not self._is_alive() and not self._is_alive(after_replacing=True):
            job.error = InternalError("the decoding process could not be started; try again")
            return
        self._shape = views_shape(self._spec, job.sampling.num_crops)
        self._make_room(int(np.prod(self._shape)) * 4 * _SLOTS)
        size = len(job.payload)
        self._put_payload(job.payload)
        message = {
            "bytes": size,
            "threads": threads,
            "slots": _SLOTS,
            "free": [slot for slot in range(_SLOTS) if slot not in self._held],
            "sampling": dataclasses.asdict(job.sampling),
        }
        self.job = job
        self._expect_news()
        try:
            self.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            self.fail(InternalError("the decoding process is gone; try again"))

    def _is_alive(self, *, after_replacing: bool = False) -> bool:
        """Whether the process is there and ready; it may have been killed while it was idle."""
        try:
            if after_replacing:
                self._replace()
            self.await_ready()
        except (SetupError, OSError):
            return False
        return self._popen.poll() is None

    def read_all(self) -> None:
        """Take every message that waits."""
        try:
            while self.job is not None and self.connection.poll(0):
                self._take(json.loads(self.connection.recv_bytes()))
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            self.fail(
                UndecodableVideo("decoding this video ended the decoding process; it is damaged or too demanding")
            )

    def _take(self, message: dict[str, Any]) -> None:
        job = self.job
        assert job is not None
        self._expect_news()
        if "window" in message:
            job.deliveries.append(self._deliver(job, message))
        elif "report" in message:
            job.report = VideoReport(**{**message["report"], "warnings": tuple(message["report"]["warnings"])})
            self._end()
        else:
            job.error = REQUEST_ERRORS[message["error"]](str(message["message"]))
            self._end()

    def _deliver(self, job: DecodeJob, message: dict[str, Any]) -> Delivery:
        count, slot, generation = int(np.prod(self._shape)), int(message["slot"]), self._generation
        if not 0 <= slot < _SLOTS or slot in self._held:
            raise ValueError(f"slot {slot} does not exist or is taken")
        assert self._outbox is not None
        views = np.frombuffer(self._outbox, dtype=np.float32, count=count, offset=slot * count * 4)
        self._held.add(slot)

        def release() -> None:
            if generation == self._generation:
                self._held.discard(slot)
                self._expect_news()  # a wait for the model is no fault of the video
                self._send({"free": slot})

        window = Window(float(message["start_sec"]), float(message["end_sec"]))
        return Delivery(WindowViews(int(message["window"]), window, views.reshape(self._shape)), release)

    def _send(self, message: dict[str, int]) -> None:
        try:
            self.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            return  # it is dead; the next read says so

    def fail(self, error: InternalError | DecodeTimeout | UndecodableVideo) -> None:
        """Replace the process and end its job with `error`."""
        job = self.job
        self._end()
        if job is not None:
            job.error = error
        with suppress(OSError):  # no memory for a new process: `begin` tries again
            self._replace()

    def _replace(self) -> None:
        """End the process and start another. Views that were delivered may still be read: it gets new memory."""
        self.stop()
        self._payload_file, self._outbox_file = _shared_file(), _shared_file()
        self._payload_map = self._outbox = None
        self._held.clear()
        self.start()

    def stop(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self.connection.close()
        os.close(self._payload_file)
        os.close(self._outbox_file)

    def _end(self) -> None:
        self.job = None
        if self._payload_map is not None and len(self._payload_map) > _KEPT_PAYLOAD_BYTES:
            self._payload_map = None
            os.ftruncate(self._payload_file, 0)

    def _put_payload(self, payload: bytes | memoryview) -> None:
        size = len(payload)
        if self._payload_map is None or len(self._payload_map) < size:
            room = max(size, 2**20)
            os.ftruncate(self._payload_file, room)
            self._payload_map = mmap.mmap(self._payload_file, room)
        self._payload_map[:size] = payload

    def _make_room(self, size: int) -> None:
        if self._outbox is None or len(self._outbox) < size:
            os.ftruncate(self._outbox_file, size)
            self._outbox = mmap.mmap(self._outbox_file, size)


def _shared_file() -> int:
    """A descriptor of nameless memory that a child can map."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("views")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _bare_environment() -> dict[str, str]:
    """No secret of the server reaches the process that decodes; one thread per library is enough for it.

    One arena for malloc, too: each job has a thread of its own, and arenas of ended threads would keep their memory.
    That arena keeps what frames leave, for the next job: new pages for every frame took 20 ms of a clip of 1920x1080.
    The process gives them back from time to time.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    kept_memory = {"MALLOC_MMAP_THRESHOLD_": str(_HEAP_BYTES), "MALLOC_TRIM_THRESHOLD_": str(_KEPT_HEAP_BYTES)}
    return {**kept, **threads, **kept_memory, "PYTHONDONTWRITEBYTECODE": "1"}
