"""Decoding in processes of their own: a video that crashes, hangs or exhausts memory takes only its own request along.

Each process has a pipe, a file with the payload that it can only read, and shared slots for finished views. Its
messages are checked before they are used. A process that misses its deadline, ends or sends anything malformed is
replaced; the job it held gets an error, every other job goes on.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from socket import socket

from handlers.config import CodecProfile, SandboxPolicy
from handlers.decode.child import DecodingProcess
from handlers.decode.replacement import Replacement
from handlers.decode.sandbox import LAYERS
from handlers.decode.service import DecodeJob, Wakeup
from handlers.errors import InternalError, SetupError
from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.specs.spec_json import spec_to_json
from handlers.video.codecs import formats_of
from handlers.video.sampling import Sampling

logger = logging.getLogger(__name__)

_MOST_THREADS = 4  # for one video


class ProcessDecodeService:
    """A pool of decoding processes, driven by one thread. See `service.DecodeService`."""

    def __init__(
        self,
        spec: ModelSpec,
        limits: Limits,
        *,
        processes: int,
        cores: int | None = None,
        others_busy: Callable[[], int] | None = None,
        autorotate: bool = True,
        capped: bool = True,
        sandbox: SandboxPolicy = "auto",
        codecs: CodecProfile = "wide",
        one_job_each: bool = False,
        ready: bool = True,
    ) -> None:
        """At most so many `processes` decode at a time.

        With `one_job_each` every one ends after its job. There is one more then, so that a job that comes alone does
        not wait for a start. `cores` may be used together (None: one for each process), but for those that
        `others_busy` says are taken.

        Without `ready` this does not wait for their start; call `await_ready`, which raises what this does otherwise:
        SetupError when the processes do not start, or lack a layer of the sandbox that is required.
        """
        self.wakeup = Wakeup()
        self._cores, self._others_busy = cores or processes, others_busy
        settings = {
            "spec": spec_to_json(spec),
            "limits": dataclasses.asdict(limits),
            "autorotate": autorotate,
            "capped": capped,
            "sandbox": sandbox != "none",
            "codecs": codecs,
        }
        required = frozenset(LAYERS if sandbox == "required" else ())

        def make() -> DecodingProcess:
            return DecodingProcess(spec, settings, limits, required)

        self._most_jobs, self._one_job_each = processes, one_job_each
        self._processes = [make() for _ in range(processes + one_job_each)]
        self._replacement = Replacement(make)
        self._losses = 0
        self._queued: deque[DecodeJob] = deque()
        self._sandbox, self._codecs = sandbox, codecs
        try:
            for process in self._processes:
                process.start()
        except OSError:
            self.close()
            raise
        if ready:
            self.await_ready()

    def await_ready(self) -> None:
        try:
            for process in self._processes:
                process.await_ready()
        except SetupError:
            self.close()
            raise
        if self._sandbox != "none":
            _warn_of_missing_layers(self.sandbox, self._codecs)

    @property
    def sandbox(self) -> tuple[str, ...]:
        """The layers that hold in every process."""
        return tuple(layer for layer in LAYERS if all(layer in process.sandbox for process in self._processes))

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        job = DecodeJob(payload, sampling)
        self._queued.append(job)
        self._assign()
        return job

    def wait(self, timeout_sec: float | None = None, *, also_for_wakeup: bool = False) -> None:
        self._assign()
        successor = self._replacement.successor
        everyone = self._processes if successor is None else [*self._processes, successor]
        listened = [process for process in everyone if process.job is not None or process.is_starting]
        if not any(process.job is not None for process in listened) and not self._queued and not also_for_wakeup:
            return
        patience = [process.patience_sec for process in listened if process.patience_sec is not None]
        if timeout_sec is not None:
            patience.append(timeout_sec)
        sources: list[socket | int] = [process.socket for process in listened]
        if also_for_wakeup:
            sources.append(self.wakeup.fileno())
        started = time.monotonic()
        ready = set(wait(sources, max(min(patience), 0.0) if patience else None))
        waited_sec = time.monotonic() - started
        if self.wakeup.fileno() in ready:
            self.wakeup.clear()
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
        self._replacement.close()
        for process in self._processes:
            process.stop()
        self.wakeup.close()

    def process_ids(self) -> list[int]:
        return [process.pid for process in self._processes]

    @property
    def losses(self) -> int:
        """How many processes were lost together with their job, see `DecodingProcess.losses`."""
        return self._losses + sum(process.losses for process in self._processes)

    @property
    def restarts(self) -> Mapping[str, int]:
        """How many processes another one has taken the place of, by reason: lost with their job, or after an error."""
        return {"lost": self.losses, "error": self._replacement.count}

    def _replace(self) -> None:
        """Begin to replace processes that should serve no longer; nothing here waits."""
        if not self._one_job_each:
            self._losses += self._replacement.advance(self._processes)
            return
        for process in self._processes:
            if process.has_served and process.job is None:
                process.renew()

    def _assign(self) -> None:
        self._replace()
        for process in sorted(self._processes, key=lambda process: process.met_error):
            while self._queued and process.job is None and not process.is_starting:
                if sum(other.job is not None for other in self._processes) == self._most_jobs:
                    return
                if process.is_usable():
                    threads = _threads(self._idle_cores())
                    process.begin(self._queued.popleft(), threads=threads)
                elif not process.restart():
                    # There is no memory for a new process, or it cannot run: a job must not wait for one without end.
                    self._queued.popleft().error = InternalError("the decoding process could not be started; try again")

    def _idle_cores(self) -> int:
        """Cores that neither a video that is being decoded takes, nor one that waits, nor another worker."""
        taken = sum(process.job is not None for process in self._processes) + len(self._queued)
        return self._cores - taken - (0 if self._others_busy is None else self._others_busy())


def _warn_of_missing_layers(layers: tuple[str, ...], codecs: CodecProfile) -> None:
    missing = [layer for layer in LAYERS if layer not in layers]
    if not missing:
        return
    allowed, confined = formats_of(codecs, layers), formats_of(codecs, LAYERS)
    logger.warning(
        "decoding processes cannot be confined by %s; this system does not permit it%s",
        " and ".join(missing),
        ""
        if allowed is confined
        else ". So the formats that need the sandbox are refused: "
        + ", ".join(sorted({*confined.decoders, *confined.demuxers} - {*allowed.decoders, *allowed.demuxers})),
    )


def _threads(idle: int) -> int:
    """FFmpeg threads for one video while so many cores are idle, beside the one that it takes.

    One per idle core plus two (frame threads stall on each other), at most four; one if no core is idle.
    """
    return min(idle + 2, _MOST_THREADS) if idle > 0 else 1
