"""One decoding process, from the server's side: starting it, giving it jobs, reading its messages, replacing it."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import time
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from handlers.decode.fields import MalformedMessage
from handlers.decode.launch import launch
from handlers.decode.messages import (
    MAX_MESSAGE_BYTES,
    FromProcess,
    JobDone,
    JobFailed,
    MessageBuffer,
    Ready,
    SlotFreed,
    StartJob,
    ToProcess,
    VideoOpened,
    WindowDone,
    WindowsCounted,
    encode,
    parse_from_process,
)
from handlers.decode.running_job import RunningJob, met_error
from handlers.decode.sandbox import LAYERS
from handlers.decode.service import DecodeJob, Delivery
from handlers.decode.shared_slots import NUM_SLOTS, PayloadFile, Slots, SlotsFile
from handlers.errors import DecodeTimeout, InternalError, RequestError, SetupError, UndecodableVideo
from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.video.sampling import Window, WindowViews

logger = logging.getLogger(__name__)

_START_TIMEOUT_SEC = 60.0
_MOST_STARTS = 2  # failed starts in a row before a job gets the error
_END_TIMEOUT_SEC = 1.0  # for a process that has closed its pipe


class DecodingProcess:
    """A process, and the server's side of its pipe and its shared memory. Blocks only while it starts."""

    socket: socket.socket
    _popen: subprocess.Popen[bytes]

    def __init__(
        self, spec: ModelSpec, settings: dict[str, Any], limits: Limits, required_layers: frozenset[str] = frozenset()
    ) -> None:
        self._spec, self._settings, self._limits = spec, settings, limits
        self._required_layers = required_layers
        self.sandbox: tuple[str, ...] = ()
        """The layers that hold, as the process said before it had read any untrusted byte."""
        self._generation = 0
        self._failed_starts = 0
        self._job: RunningJob | None = None
        self._is_running = False
        self.is_starting = False
        self.met_error = False
        """Whether FFmpeg met an error in it, so that its memory may be damaged."""
        self.has_served = False
        self.losses = 0
        """How often it was lost together with its job: crashed, hung, broke the protocol, or the job was given up."""

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
        try:
            self._popen = launch(inherited, self._settings)
        except OSError:
            self.socket.close()
            self._payload.close()
            raise
        finally:
            theirs.close()
            slots.close()  # the process has inherited it, and this side has mapped it
        self._is_running = self.is_starting = True
        self.met_error = self.has_served = False
        self._start_waited_sec = 0.0

    def await_ready(self) -> None:
        """Wait until the process that was just started can take jobs; raises SetupError if it cannot be started."""
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while self.is_starting:
            if not wait([self.socket], max(deadline - time.monotonic(), 0.0)):
                raise SetupError(f"the decoding process did not start within {_START_TIMEOUT_SEC:g} s")
            self.read()
        if not self._is_running and not self._required_layers <= set(self.sandbox):
            missing, held = self._required_layers - set(self.sandbox), " and ".join(self.sandbox) or "neither"
            raise SetupError(
                f"handler.sandbox is required, but of {' and '.join(LAYERS)} this system permits {held}; "
                f"missing: {', '.join(sorted(missing))}"
            )
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
        self.losses += 1
        self.renew()

    def renew(self) -> None:
        """Replace the process, without a job, by one that has seen nothing yet; does not wait for its start."""
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
        self._job = RunningJob(job, self._spec, self._limits)
        free = tuple(slot for slot in range(NUM_SLOTS) if slot not in self._held)
        self._send(StartJob(len(job.payload), threads, free, job.sampling))

    @property
    def patience_sec(self) -> float | None:
        """How long to wait for the next message; None: without a limit, because it waits for the server."""
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
            self._start_failed()
        else:
            limit = self._limits.decode_timeout_sec
            self.fail(DecodeTimeout(f"decoding took longer than the {limit:g} s that are allowed"))

    def read(self) -> None:
        """Take the messages that have come, at most one buffer of them, so that the other processes get their turn."""
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
            self._started(message)
            return
        running = self._job
        if running is None:
            raise MalformedMessage("a message without a job")
        if isinstance(message, WindowsCounted):
            running.counted(message)
        elif isinstance(message, VideoOpened):
            running.opened(message)
        elif isinstance(message, WindowDone):
            running.delivered(message, self._deliver(message, running))
        elif isinstance(message, JobDone):
            running.job.report = message.report
            self._end(message)
        elif isinstance(message, JobFailed):
            running.job.error = message.to_error()
            self._end(message)
        else:
            raise MalformedMessage("Ready a second time")

    def _started(self, message: Ready) -> None:
        self.sandbox = message.sandbox
        if self._required_layers <= set(self.sandbox):
            self.is_starting, self._failed_starts = False, 0
        else:
            self._start_failed()

    def _start_failed(self) -> None:
        self._failed_starts += 1
        self.stop()
        if self._failed_starts < _MOST_STARTS:
            with suppress(OSError):  # as in `fail`
                self.start()

    def _ended(self) -> None:
        """The pipe was closed: the process is dead or dying."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_END_TIMEOUT_SEC)
        if self._popen.returncode == -signal.SIGSYS:
            logger.error("a decoding process was ended because it made a system call that is not allowed")
        if self.is_starting:
            self._start_failed()
        else:
            self._failed()

    def _failed(self) -> None:
        self.fail(UndecodableVideo("decoding this video ended the decoding process; it is damaged or too demanding"))

    def _end(self, message: JobDone | JobFailed) -> None:
        self._job = None
        self.has_served = True
        self.met_error = self.met_error or met_error(message)
        self._payload.wipe()

    def _deliver(self, message: WindowDone, running: RunningJob) -> Delivery:
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
        return Delivery(WindowViews(message.index, window, views, message.frame_times), release)

    def _send(self, message: ToProcess) -> None:
        """Never waits: an honest process reads in time, and has room for more messages than it can be sent."""
        data = encode(message)
        with suppress(OSError):  # it is dead, or does not read: its deadline, or the next read, says so
            self.socket.send(data)
