"""Driving a decode service to its end, and what the operating system knows about a decoding process."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handlers.decode.processes import ProcessDecodeService
from handlers.decode.service import DecodeJob, DecodeService
from handlers.errors import RequestError
from handlers.specs import ModelSpec
from handlers.video.sampling import Sampling, VideoReport
from tests.support.videos import frame_index

MIB = 2**20
_PATIENCE_SEC = 120.0  # a test that waits longer has found a hang


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one video: views by window, each (num_crops, 3, T, S, S), and a report or an error."""

    views: tuple[NDArray[np.float32], ...]
    report: VideoReport | None
    error: RequestError | None
    seconds: float

    @property
    def status(self) -> str:
        """`ok`, `4xx`, or the status itself."""
        if self.error is None:
            return "ok"
        status = int(self.error.status)
        return "4xx" if 400 <= status < 500 else str(status)

    @property
    def type(self) -> str:
        return "ok" if self.error is None else self.error.type


def decode(service: DecodeService, payload: bytes, sampling: Sampling | None = None) -> Outcome:
    return decode_all(service, [payload], sampling)[0]


def decode_all(service: DecodeService, payloads: Sequence[bytes], sampling: Sampling | None = None) -> list[Outcome]:
    """Submit all at once and take what comes, as the pipeline does."""
    started = time.monotonic()
    jobs = [service.submit(payload, sampling or Sampling()) for payload in payloads]
    return finish(service, jobs, started)


def finish(service: DecodeService, jobs: Sequence[DecodeJob], started: float) -> list[Outcome]:
    """Run jobs that were submitted to their end."""
    views: list[dict[int, NDArray[np.float32]]] = [{} for _ in jobs]
    ended = [0.0] * len(jobs)
    while True:
        for index, job in enumerate(jobs):
            while job.deliveries:
                delivery = job.deliveries.popleft()
                views[index][delivery.window.index] = delivery.window.views.copy()
                delivery.release()
            if job.ended and not ended[index]:
                ended[index] = time.monotonic() - started
        if all(job.ended for job in jobs):
            break
        assert time.monotonic() - started < _PATIENCE_SEC, "a job neither ended nor delivered anything"
        service.wait(1.0)
    return [
        Outcome(tuple(found[key] for key in sorted(found)), job.report, job.error, seconds)
        for found, job, seconds in zip(views, jobs, ended, strict=True)
    ]


def never_replace(service: ProcessDecodeService) -> None:
    """Keep processes in which FFmpeg met an error, for tests that look at one process over many files."""
    service._replacement._not_before = math.inf


def shown_indices(views: NDArray[np.float32], spec: ModelSpec) -> list[int]:
    """The frame indices that the first crop of a window shows, for videos of tests.support.videos."""
    frames = views[0].transpose(1, 2, 3, 0) * spec.std + spec.mean
    return [frame_index(np.clip(frame, 0.0, 1.0)) for frame in frames]


def memory_bytes(pid: int, field: str) -> int:
    """A field of /proc/PID/status in bytes: `VmHWM` is the peak of what is resident, `VmRSS` what is now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no {field}; it has ended")


def reset_peak(pid: int) -> None:
    """Start `VmHWM` anew from what is resident now (Linux: 5 in clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_until(what: str, holds: object, *, within_sec: float = 10.0) -> None:
    """Poll a condition (a callable without arguments)."""
    assert callable(holds)
    deadline = time.monotonic() + within_sec
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_sec:g} s: {what}"
        time.sleep(0.02)
