"""Decoding as a service: jobs go in, views come out as they are ready, several videos at a time.

`ThreadDecodeService` decodes in threads of this process; `isolation.ProcessDecodeService` in processes of their own.
Both are driven by one thread: `submit`, then `wait` until a job has something to give.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from handlers.clips import Sampling, VideoReport, WindowViews
from handlers.errors import InternalError, RequestError

_QUEUED_WINDOWS = 4  # windows that a thread may finish before they are taken


@dataclass(slots=True)
class Delivery:
    """One window's views and what to call once they are no longer read; the array may be shared memory."""

    window: WindowViews
    release: Callable[[], None]


@dataclass(slots=True, eq=False)
class DecodeJob:
    """One video being decoded. `deliveries` fills while it runs; at the end there is a `report` or an `error`."""

    payload: bytes | memoryview
    sampling: Sampling
    deliveries: deque[Delivery] = field(default_factory=deque)
    report: VideoReport | None = None
    error: RequestError | None = None
    cancelled: bool = False

    @property
    def ended(self) -> bool:
        return self.report is not None or self.error is not None


class DecodeService(Protocol):
    """What the pipeline needs of a decoder."""

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        """Start, or queue, the decoding of one video."""

    def wait(self, timeout_sec: float | None = None) -> None:
        """Block until some job got a delivery or ended; returns at once when nothing is under way.

        Jobs are taken up in the order of `submit`. A job's deliveries hold room that later jobs need, so they are to
        be taken and released in that order, too.
        """

    def cancel(self, job: DecodeJob) -> None:
        """Stop a job whose views nobody wants any more."""

    def close(self) -> None:
        """Stop everything."""


class VideoStream(Protocol):
    """What a thread iterates: windows, then a report (assembly.VideoReader, encoded_video's reader)."""

    def windows(self, sampling: Sampling) -> Iterator[WindowViews]: ...

    def report(self) -> VideoReport: ...

    def close(self) -> None: ...


class ThreadDecodeService:
    """Decodes in `workers` threads. Nothing protects this process from a decoder that crashes or hangs."""

    def __init__(self, open_video: Callable[[bytes | memoryview], VideoStream], *, workers: int) -> None:
        self._open_video = open_video
        self._jobs: queue.SimpleQueue[DecodeJob | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[tuple[DecodeJob, Delivery | VideoReport | RequestError]] = queue.SimpleQueue()
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

    def wait(self, timeout_sec: float | None = None) -> None:
        if self._under_way == 0:
            return
        try:
            self._take(*self._news.get(timeout=timeout_sec))
            while True:
                self._take(*self._news.get_nowait())
        except queue.Empty:
            return

    def cancel(self, job: DecodeJob) -> None:
        job.cancelled = True
        while job.deliveries:
            job.deliveries.popleft().release()

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)

    def _take(self, job: DecodeJob, news: Delivery | VideoReport | RequestError) -> None:
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
                self._news.put((job, self._decode(job)))
            except RequestError as error:
                self._news.put((job, error))
            except Exception as error:  # noqa: BLE001  one job's failure must not end the thread
                self._news.put((job, InternalError(f"decoding failed unexpectedly: {type(error).__name__}")))

    def _decode(self, job: DecodeJob) -> VideoReport:
        video = self._open_video(job.payload)
        try:
            for window in video.windows(job.sampling):
                self._room.acquire()
                self._news.put((job, Delivery(window, self._room.release)))
                if job.cancelled:
                    break
            return video.report()
        finally:
            video.close()
