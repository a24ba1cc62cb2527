"""How far a run is: a bar on a terminal, and elsewhere a line now and then, which a log can keep."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

LINE_EVERY_SEC = 30.0


class Progress:
    """Counts videos. `kept` of the `total` are done from an earlier run and are not part of the rate."""

    def __init__(
        self,
        total: int,
        *,
        kept: int = 0,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total, self._kept, self._done, self._failed = total, kept, kept, 0
        self._now, self._started = now, now()
        self._next_line = self._started + LINE_EVERY_SEC
        self._bar: Any = None
        if self._stream.isatty():
            self._bar = tqdm(total=total, initial=kept, unit="video", file=self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._now() - self._started

    def add(self, videos: int, *, failed: int) -> None:
        """So many more are done, and so many of these failed."""
        self._done += videos
        self._failed += failed
        if self._bar is not None:
            self._bar.update(videos)
            self._bar.set_postfix(failed=self._failed, refresh=False)
        elif self._now() >= self._next_line:
            self._next_line = self._now() + LINE_EVERY_SEC
            print(self._line(), file=self._stream, flush=True)

    def _line(self) -> str:
        rate = (self._done - self._kept) / max(self.seconds, 1e-9)
        left = f", about {duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        return (
            f"{self._done} of {self._total} videos ({self._done / self._total:.0%}), {rate:.2g} a second{left}, "
            f"{self._failed} failed"
        )


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def rate_of(videos: int, seconds: float) -> str:
    """`24 videos in 8 s, 3 a second`."""
    return (
        f"{videos} video{'' if videos == 1 else 's'} in {duration(seconds)}, {videos / max(seconds, 1e-9):.2g} a second"
    )
