"""Decoding as a service: jobs go in, views come out as they are ready, several videos at a time.

`ThreadDecodeService` decodes in threads of this process; `isolation.ProcessDecodeService` in processes of their own.
Both are driven by one thread: `submit`, then `wait` until a job has something to give.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Protocol

from handlers.errors import InternalError, RequestError
from handlers.video.sampling import Sampling, VideoReport, WindowViews

_QUEUED_WINDOWS = 4  # windows that a thread may finish before they are taken


@dataclass(slots=True)
class Delivery:
    """One window's views and what to call once they are no longer read; the array may be shared memory."""

    window: WindowViews
    release: Callable[[], None]


@dataclass(slots=True, eq=False)
class DecodeJob:
    """One video being decoded. `deliveries` fills while it runs; at the end there is a `report` or an `error`.

    `num_windows` is known before the first window is delivered.
    """

    payload: bytes | memoryview
    sampling: Sampling
    num_windows: int | None = None
    deliveries: deque[Delivery] = field(default_factory=deque)
    report: VideoReport | None = None
    error: RequestError | None = None
    cancelled: bool = False

    @property
    def ended(self) -> bool:
        return self.report is not None or self.error is not None


class Bell:
    """Wakes the thread that waits for a decoder; any thread may ring, and a ring that nobody waits for is kept."""

    def __init__(self) -> None:
        self.source, self._rope = socket.socketpair()
        """Readable once it was rung: for `multiprocessing.connection.wait`."""
        self.source.setblocking(False)
        self._rope.setblocking(False)

    def ring(self) -> None:
        with suppress(OSError):  # it was rung often enough, or nobody is there any more
            self._rope.send(b"!")

    def hush(self) -> None:
        """Forget every ring until now."""
        with suppress(BlockingIOError):
            while self.source.recv(4096):
                pass

    def close(self) -> None:
        self.source.close()
        self._rope.close()


class DecodeService(Protocol):
    """What the pipeline needs of a decoder."""

    bell: Bell

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        """Start, or queue, the decoding of one video."""

    def wait(self, timeout_sec: float | None = None, *, until_rung: bool = False) -> None:
        """Block until some job's windows were counted, it got a delivery or ended, or the bell rang.

        Returns at once when nothing is under way, unless somebody will ring: `until_rung`.

        Jobs are taken up in the order of `submit`. A job's deliveries hold room that later jobs need, so they are to
        be taken and released in that order, too.
        """

    def cancel(self, job: DecodeJob) -> None:
        """Stop a job whose views nobody wants any more."""

    def close(self) -> None:
        """Stop everything."""


class VideoStream(Protocol):
    """What a thread iterates: windows, then a report (assembly.VideoReader, encoded_video's reader)."""

    def count_windows(self, sampling: Sampling) -> int: ...

    def windows(self, sampling: Sampling) -> Iterator[WindowViews]: ...

    def report(self) -> VideoReport: ...

    def close(self) -> None: ...


_News = int | Delivery | VideoReport | RequestError
"""What a thread tells of its job: the number of windows, then each of them, then how it ended."""


class ThreadDecodeService:
    """Decodes in `workers` threads. Nothing protects this process from a decoder that crashes or hangs."""

    def __init__(self, open_video: Callable[[bytes | memoryview], VideoStream], *, workers: int) -> None:
        self._open_video = open_video
        self._jobs: queue.SimpleQueue[DecodeJob | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[tuple[DecodeJob, _News]] = queue.SimpleQueue()
        self.bell = Bell()
        self._room = threading.Semaphore(_QUEUED_WINDOWS * workers)
        self._under_way = 0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        job = DecodeJob(payload, sampling)
        self._under_way += 1
        self._jobs.put(job)
        return job

    def wait(self, timeout_sec: float | None = None, *, until_rung: bool = False) -> None:
        if self._under_way == 0 and not until_rung:
            return
        until = None if timeout_sec is None else time.monotonic() + timeout_sec
        while True:
            patience = None if until is None else max(until - time.monotonic(), 0.0)
            rung = bool(wait([self.bell.source], patience))
            self.bell.hush()
            if self._take_all() or until_rung or not rung:
                return

    def cancel(self, job: DecodeJob) -> None:
        job.cancelled = True
        while job.deliveries:
            job.deliveries.popleft().release()

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        self.bell.close()

    def _take_all(self) -> bool:
        """Whether there was any news."""
        took = False
        with suppress(queue.Empty):
            while True:
                self._take(*self._news.get_nowait())
                took = True
        return took

    def _take(self, job: DecodeJob, news: _News) -> None:
        if isinstance(news, int):
            job.num_windows = news
            return
        if isinstance(news, Delivery):
            if job.cancelled:
                news.release()
            else:
                job.deliveries.append(news)
            return
        self._under_way -= 1
        if isinstance(news, VideoReport):
            job.report = news
        else:
            job.error = news

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._tell(job, self._decode(job))
            except RequestError as error:
                self._tell(job, error)
            except Exception as error:  # noqa: BLE001  one job's failure must not end the thread
                self._tell(job, InternalError(f"decoding failed unexpectedly: {type(error).__name__}"))

    def _decode(self, job: DecodeJob) -> VideoReport:
        video = self._open_video(job.payload)
        try:
            self._tell(job, video.count_windows(job.sampling))
            for window in video.windows(job.sampling):
                self._room.acquire()
                self._tell(job, Delivery(window, self._room.release))
                if job.cancelled:
                    break
            return video.report()
        finally:
            video.close()

    def _tell(self, job: DecodeJob, news: _News) -> None:
        self._news.put((job, news))
        self.bell.ring()
