"""Decoding in processes of their own: a video that crashes, hangs or exhausts memory takes only its own request along.

Each process has a pipe, a file with the payload that it can only read, and shared slots for finished views. What a
process says is not believed before it is checked. One that misses its deadline, dies or says what no honest process
says is replaced; the job it held gets an error, every other job goes on.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import handlers
from handlers.decode_messages import (
    MAX_MESSAGE_BYTES,
    FromProcess,
    JobDone,
    JobFailed,
    MalformedMessage,
    MessageBuffer,
    Ready,
    SlotFreed,
    StartJob,
    ToProcess,
    WindowDone,
    WindowsCounted,
    encode,
    parse_from_process,
)
from handlers.decode_service import Bell, DecodeJob, Delivery
from handlers.errors import DecodeTimeout, InternalError, RequestError, SetupError, UndecodableVideo
from handlers.limits import Limits
from handlers.shared_slots import NUM_SLOTS, PayloadFile, Slots, SlotsFile
from handlers.specs import ModelSpec
from handlers.video.sampling import Sampling, Window, WindowViews

logger = logging.getLogger(__name__)

_START_TIMEOUT_SEC = 60.0
_MOST_STARTS = 2  # that may fail in a row before a job is told so
_GRACE_SEC = 1.0  # the process ends its job itself at the deadline; past this it is taken to hang
_WINDOW_GRACE_SEC = 0.05  # likewise for each window: a freed slot takes a moment to be noticed on busy cores
_TIME_SLACK_SEC = 1e-6  # of a window's times, which were rounded to floats
_MOST_THREADS = 4  # for one video
_HEAP_BYTES = 32 * 2**20  # allocations up to this size come from the heap; it is the most that glibc allows
_KEPT_HEAP_BYTES = 128 * 2**20
_ROOT = Path(handlers.__file__).resolve().parent.parent
_CODE = "import sys; sys.path.insert(0, {root!r}); from handlers.decode_worker import main; main()"


class ProcessDecodeService:
    """A pool of decoding processes, driven by one thread. See `decode_service.DecodeService`."""

    def __init__(
        self, spec: ModelSpec, limits: Limits, *, processes: int, autorotate: bool = True, capped: bool = True
    ) -> None:
        self.bell = Bell()
        settings = {
            "spec": spec.name,
            "limits": dataclasses.asdict(limits),
            "autorotate": autorotate,
            "capped": capped,
        }
        self._processes = [_Process(spec, settings, limits) for _ in range(processes)]
        self._queued: deque[DecodeJob] = deque()
        try:
            for process in self._processes:
                process.start()
            for process in self._processes:
                process.await_ready()
        except (SetupError, OSError):
            self.close()
            raise

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        job = DecodeJob(payload, sampling)
        self._queued.append(job)
        self._assign()
        return job

    def wait(self, timeout_sec: float | None = None, *, until_rung: bool = False) -> None:
        self._assign()
        listened = [process for process in self._processes if process.job is not None or process.is_starting]
        if not any(process.job is not None for process in listened) and not self._queued and not until_rung:
            return
        patience = [process.patience_sec for process in listened if process.patience_sec is not None]
        if timeout_sec is not None:
            patience.append(timeout_sec)
        sources: list[socket.socket] = [process.socket for process in listened]
        if until_rung:
            sources.append(self.bell.source)
        started = time.monotonic()
        ready = set(wait(sources, max(min(patience), 0.0) if patience else None))
        waited_sec = time.monotonic() - started
        if self.bell.source in ready:
            self.bell.hush()
        for process in listened:
            process.waited_for(waited_sec)
            if process.socket in ready:
                process.read()
            else:
                process.end_if_overdue()
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
            while self._queued and process.job is None and not process.is_starting:
                if process.is_usable():
                    idle = sum(other.job is None for other in self._processes) - len(self._queued)
                    process.begin(self._queued.popleft(), threads=_threads(idle))
                elif not process.restart():
                    # There is no memory for a new process, or it cannot run: a job must not wait for that for ever.
                    self._queued.popleft().error = InternalError("the decoding process could not be started; try again")


def _threads(idle: int) -> int:
    """FFmpeg threads for one video while so many processes are idle, this one among them.

    One per idle process plus two (frame threads stall on each other), at most four; one if every process is busy.
    """
    return min(idle + 2, _MOST_THREADS) if idle > 0 else 1


class _Process:
    """One decoding process and the server's side of its pipe and shared memory."""

    socket: socket.socket
    _popen: subprocess.Popen[bytes]

    def __init__(self, spec: ModelSpec, settings: dict[str, Any], limits: Limits) -> None:
        self._spec, self._settings, self._limits = spec, settings, limits
        self._generation = 0
        self._failed_starts = 0
        self._job: _RunningJob | None = None
        self._is_running = False
        self.is_starting = False

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def job(self) -> DecodeJob | None:
        return self._job.job if self._job is not None else None

    # Starting and ending ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process; it says Ready when it can take jobs. Raises OSError where that is impossible."""
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self._buffer = MessageBuffer()
        self._payload, slots = PayloadFile(), SlotsFile(self._spec)
        self._slots: Slots = slots.map(self._spec)
        self._held: set[int] = set()  # slots whose views were delivered and not yet released, of whichever job
        self._generation += 1
        inherited = (theirs.fileno(), self._payload.readable, slots.descriptor)
        code = _CODE.format(root=str(_ROOT))
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-c", code, *map(str, inherited), json.dumps(self._settings)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_bare_environment(),
                cwd="/",
            )
        finally:
            theirs.close()
            slots.close()  # the process has inherited it, and this side has mapped it
        self._is_running = self.is_starting = True
        self._start_waited_sec = 0.0

    def await_ready(self) -> None:
        """Wait until the process that was just started can take jobs; raises SetupError if it cannot be started."""
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while self.is_starting:
            if not wait([self.socket], max(deadline - time.monotonic(), 0.0)):
                raise SetupError(f"the decoding process did not start within {_START_TIMEOUT_SEC:g} s")
            self.read()
        if not self._is_running:
            raise SetupError("the decoding process ended while it started; see the log above")

    def is_usable(self) -> bool:
        """Whether it is there, ready, and has kept silent since its last job; it may have been killed while idle."""
        if not self._is_running or self._popen.poll() is not None or not self._buffer.is_empty:
            return False
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def restart(self) -> bool:
        """Replace the process; False where that is impossible, or has failed twice in a row."""
        self.stop()
        if self._failed_starts >= _MOST_STARTS:
            self._failed_starts = 0
            return False
        try:
            self.start()
        except OSError:
            return False
        return True

    def fail(self, error: RequestError) -> None:
        """End its job with `error`, and replace the process."""
        running, self._job = self._job, None
        if running is not None:
            running.job.error = error
        self.stop()
        with suppress(OSError):  # no memory for a new process: `restart` tries again when there is a job for it
            self.start()  # with new memory, for views that were delivered may still be read

    def stop(self) -> None:
        if self._is_running:
            self._popen.kill()
            self._popen.wait()
            self.socket.close()
            self._payload.close()
        self._is_running = self.is_starting = False

    # Its job ----------------------------------------------------------------------------------------------------------

    def begin(self, job: DecodeJob, *, threads: int) -> None:
        """Hand the job over; whatever goes wrong with the process is the job's error and is not raised."""
        try:
            self._payload.put(job.payload)
        except OSError:
            self._payload.wipe()
            job.error = InternalError("the server has no memory for this video; try again")
            return
        self._job = _RunningJob(job, self._spec, self._limits)
        free = tuple(slot for slot in range(NUM_SLOTS) if slot not in self._held)
        self._send(StartJob(len(job.payload), threads, free, job.sampling))

    @property
    def patience_sec(self) -> float | None:
        """How long to wait for the next message; None: as long as it takes, because it waits for us."""
        if self.is_starting:
            return _START_TIMEOUT_SEC - self._start_waited_sec
        if self._job is None or len(self._held) == NUM_SLOTS:
            return None
        return self._job.patience_sec

    def waited_for(self, seconds: float) -> None:
        """Count time that was spent waiting for this process, and in which it could have worked."""
        if self.is_starting:
            self._start_waited_sec += seconds
        elif self._job is not None and len(self._held) < NUM_SLOTS:
            self._job.waited_sec += seconds

    def end_if_overdue(self) -> None:
        if self.patience_sec is None or self.patience_sec > 0:
            return
        if self.is_starting:
            self._failed_starts += 1
            self.stop()
        else:
            limit = self._limits.decode_timeout_sec
            self.fail(DecodeTimeout(f"decoding took longer than the {limit:g} s that are allowed"))

    def read(self) -> None:
        """Take the messages that have come, at most one buffer of them: the other processes want to be heard, too."""
        try:
            data = self.socket.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        try:
            for body in self._buffer.feed(data):
                self._take(parse_from_process(body))
        except MalformedMessage as error:
            logger.warning("a decoding process broke the protocol and is replaced: %s", error)
            self._failed()

    def _take(self, message: FromProcess) -> None:
        """Raises MalformedMessage for a message that does not belong here, such as any that follows a job's end."""
        if isinstance(message, Ready) and self.is_starting:
            self.is_starting, self._failed_starts = False, 0
            return
        running = self._job
        if running is None:
            raise MalformedMessage("a message without a job")
        if isinstance(message, WindowsCounted):
            running.counted(message)
        elif isinstance(message, WindowDone):
            running.delivered(message, self._deliver(message, running))
        elif isinstance(message, JobDone):
            running.job.report = message.report
            self._end()
        elif isinstance(message, JobFailed):
            running.job.error = message.to_error()
            self._end()
        else:
            raise MalformedMessage("Ready a second time")

    def _ended(self) -> None:
        """The pipe was closed: the process is dead or dying."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_GRACE_SEC)
        if self._popen.returncode == -signal.SIGSYS:
            logger.error("a decoding process was ended because it made a system call that is not allowed")
        if self.is_starting:
            self._failed_starts += 1
            self.stop()
            if self._failed_starts < _MOST_STARTS:
                with suppress(OSError):  # as in `fail`
                    self.start()
        else:
            self._failed()

    def _failed(self) -> None:
        self.fail(UndecodableVideo("decoding this video ended the decoding process; it is damaged or too demanding"))

    def _end(self) -> None:
        self._job = None
        self._payload.wipe()

    def _deliver(self, message: WindowDone, running: _RunningJob) -> Delivery:
        slot, generation = message.slot, self._generation
        if slot >= NUM_SLOTS or slot in self._held:
            raise MalformedMessage(f"slot {slot} does not exist or is taken")
        views = self._slots.views(slot, running.job.sampling.num_crops)
        self._held.add(slot)

        def release() -> None:
            if generation == self._generation:
                self._held.discard(slot)
                self._send(SlotFreed(slot))

        window = Window(message.start_sec, message.end_sec)
        return Delivery(WindowViews(message.index, window, views), release)

    def _send(self, message: ToProcess) -> None:
        """Never waits: an honest process reads in time, and has room for more messages than it can be sent."""
        data = encode(message)
        with suppress(OSError):  # it is dead, or does not read: its deadline, or the next read, says so
            self.socket.send(data)


class _RunningJob:
    """A job in a process: holds what the process says against what it was asked for."""

    def __init__(self, job: DecodeJob, spec: ModelSpec, limits: Limits) -> None:
        self.job, self._limits = job, limits
        self._clip_sec = spec.clip_duration_sec
        self._seen: set[int] = set()
        self.waited_sec = 0.0

    @property
    def patience_sec(self) -> float:
        """Seconds of waiting that are left. Windows add a little; the process itself counts its working time."""
        graces = _GRACE_SEC + _WINDOW_GRACE_SEC * len(self._seen)
        return self._limits.decode_timeout_sec + graces - self.waited_sec

    def counted(self, message: WindowsCounted) -> None:
        asked, count = self.job.sampling, message.num_windows
        if self.job.num_windows is not None:
            raise MalformedMessage("the windows were counted before")
        if not 1 <= count <= self._limits.max_windows or (asked.stride_sec is None and count != asked.num_clips):
            raise MalformedMessage(f"{count} windows were not asked for")
        self.job.num_windows = count

    def delivered(self, message: WindowDone, delivery: Delivery) -> None:
        count = self.job.num_windows
        if count is None or message.index >= count or message.index in self._seen:
            raise MalformedMessage("a window that was not asked for")
        if not self._is_inside(message.start_sec, message.end_sec):
            raise MalformedMessage("a window outside of the part that was asked for")
        self._seen.add(message.index)
        self.job.deliveries.append(delivery)

    def _is_inside(self, start_sec: float, end_sec: float) -> bool:
        """Whether a window lies in the part that was asked for, and is no longer than a clip."""
        asked = self.job.sampling
        latest = start_sec + self._clip_sec
        if asked.end_sec is not None:
            latest = min(latest, asked.end_sec)
        return (
            asked.start_sec - _TIME_SLACK_SEC <= start_sec <= end_sec + _TIME_SLACK_SEC <= latest + _TIME_SLACK_SEC * 2
        )


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
