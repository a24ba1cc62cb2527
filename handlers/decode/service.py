"""Decoding as a service: jobs go in, views come out as they are ready, several videos at a time.

`threads.ThreadDecodeService` decodes in threads of this process; `processes.ProcessDecodeService` in processes of their
own. Both are driven by one thread: `submit`, then `wait` until a job has something to give.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from handlers.errors import RequestError
from handlers.video.sampling import Sampling, VideoReport, WindowViews


@dataclass(slots=True)
class Delivery:
    """One window's views and what to call once they are no longer read; the array may be shared memory."""

    window: WindowViews
    release: Callable[[], None]


@dataclass(slots=True, eq=False)
class DecodeJob:
    """One video being decoded. `deliveries` fills while it runs; at the end there is a `report` or an `error`.

    `num_windows` is known before the first window is delivered, and `opened`, the report so far, together with it.
    """

    payload: bytes | memoryview
    sampling: Sampling
    num_windows: int | None = None
    opened: VideoReport | None = None
    deliveries: deque[Delivery] = field(default_factory=deque)
    report: VideoReport | None = None
    error: RequestError | None = None
    cancelled: bool = False

    @property
    def ended(self) -> bool:
        return self.report is not None or self.error is not None


class Wakeup:
    """Wakes the thread that waits for a decoder, from any other thread.

    Thread-safe; a notification sent before `wait` is not lost. `multiprocessing.connection.wait` takes it as it is.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)

    def fileno(self) -> int:
        """Readable once it was notified."""
        return self._receiver.fileno()

    def notify(self) -> None:
        with suppress(OSError):  # it was notified often enough already, or is closed
            self._sender.send(b"!")

    def clear(self) -> None:
        """Discard the notifications so far."""
        with suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def close(self) -> None:
        self._receiver.close()
        self._sender.close()


class DecodeService(Protocol):
    """What the pipeline needs from a decoder."""

    wakeup: Wakeup

    @property
    def sandbox(self) -> tuple[str, ...]:
        """The layers of the sandbox (sandbox.LAYERS) that hold wherever untrusted bytes are decoded."""

    @property
    def restarts(self) -> Mapping[str, int]:
        """How many decoding processes had to be replaced so far, by reason; nothing where there are none."""

    def await_ready(self) -> None:
        """Wait until jobs can be taken; raises SetupError, and stops everything, where that cannot be."""

    def submit(self, payload: bytes | memoryview, sampling: Sampling) -> DecodeJob:
        """Start, or queue, the decoding of one video."""

    def wait(self, timeout_sec: float | None = None, *, also_for_wakeup: bool = False) -> None:
        """Block until some job's windows are counted, it delivers or ends, or `timeout_sec` is over.

        There are two reasons to wait: jobs that are under way, and, with `also_for_wakeup`, a notification by another
        thread. Without either this returns at once.

        Jobs are taken up in the order of `submit`. A job's deliveries occupy memory that later jobs need, so take
        and release them in that order, too.
        """

    def cancel(self, job: DecodeJob) -> None:
        """Stop a job whose views nobody wants any more."""

    def close(self) -> None:
        """Stop everything."""
