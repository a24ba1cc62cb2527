"""Decoding in threads of this process: for the documented recipe, for tests, and where processes are not wanted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import MappingProxyType
from typing import Protocol

from handlers.decode.service import DecodeJob, Delivery, Wakeup
from handlers.errors import InternalError, RequestError
from handlers.video.sampling import Sampling, VideoReport, WindowViews

_QUEUED_WINDOWS = 4  # windows that a thread may finish before they are taken


class VideoStream(Protocol):
    """What a thread iterates: windows, then a report (view_reader.VideoReader, recipe's reader)."""

    def count_windows(self, sampling: Sampling) -> int: ...

    def windows(self, sampling: Sampling) -> Iterator[WindowViews]: ...

    def report(self) -> VideoReport: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is known of the video when its first window is done."""

    report: VideoReport


_News = int | _Opened | Delivery | VideoReport | RequestError
"""What a thread reports about its job: the number of windows, then each of them, then how it ended."""


class ThreadDecodeService:
    """Decodes in `workers` threads. A decoder that crashes or hangs takes this process along."""

    sandbox: tuple[str, ...] = ()
    restarts: Mapping[str, int] = MappingProxyType({})

    def __init__(self, open_video: Callable[[bytes | memoryview], VideoStream], *, workers: int) -> None:
        self._open_video = open_video
        self._jobs: queue.SimpleQueue[DecodeJob | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[tuple[DecodeJob, _News]] = queue.SimpleQueue()
        self.wakeup = Wakeup()
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

    def wait(self, timeout_sec: float | None = None, *, also_for_wakeup: bool = False) -> None:
        if self._under_way == 0 and not also_for_wakeup:
            return
        until = None if timeout_sec is None else time.monotonic() + timeout_sec
        while True:
            patience = None if until is None else max(until - time.monotonic(), 0.0)
            woken = bool(wait([self.wakeup.fileno()], patience))
            self.wakeup.clear()
            if self._take_all() or also_for_wakeup or not woken:
                return

    def cancel(self, job: DecodeJob) -> None:
        job.cancelled = True
        while job.deliveries:
            job.deliveries.popleft().release()

    def await_ready(self) -> None:
        """Threads take jobs at once."""

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        self.wakeup.close()

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
        if isinstance(news, _Opened):
            job.opened = news.report
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
            is_first = True
            for window in video.windows(job.sampling):
                if is_first:
                    self._tell(job, _Opened(video.report()))
                    is_first = False
                self._room.acquire()
                self._tell(job, Delivery(window, self._room.release))
                if job.cancelled:
                    break
            return video.report()
        finally:
            video.close()

    def _tell(self, job: DecodeJob, news: _News) -> None:
        self._news.put((job, news))
        self.wakeup.notify()
