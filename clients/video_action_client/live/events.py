"""What a watcher is told, in the order of the source's time: windows with labels, and what became of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ..results import Prediction, ScoredLabel

SkipReason = Literal["behind", "lost", "jump", "key_frame", "server", "refused", "stopped"]
"""Why a window got no labels.

    behind      the server, or the reader of the events, takes longer for a window than the source
    lost        the source was lost meanwhile
    jump        the source's timestamps jumped within it
    key_frame   no key frame before it was kept: they are farther apart than the buffer holds
    server      the server did not answer, or not as a model does
    refused     the server refused this one clip
    stopped     watching was stopped before its turn came
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchWindow:
    """The labels of one window `[start_sec, end_sec)`, seconds since the source's first picture.

    `start_time` and `end_time` are when that was, in UTC; `delay_sec` is how long after `end_time` the answer was
    there. `predictions` are smoothed if that was asked for; `answer` is the server's own, of this window alone.
    """

    index: int
    start_sec: float
    end_sec: float
    start_time: datetime
    end_time: datetime
    delay_sec: float
    predictions: tuple[ScoredLabel, ...]
    answer: Prediction = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSkipped:
    """`count` windows in a row, from `first_index` on, that got no labels: from the first one's start to the last
    one's end. `message` says more than the reason does."""

    first_index: int
    count: int
    start_sec: float
    end_sec: float
    start_time: datetime
    end_time: datetime
    reason: SkipReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLost:
    """The source gave nothing more; it is tried again until it is there."""

    time: datetime
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchReconnected:
    """The source is there again, after `lost_sec` seconds and so many `attempts`."""

    time: datetime
    lost_sec: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEnd:
    """The last event: the source has ended, or watching was stopped. Counts are of the whole time.

    `windows` got labels, `skipped` did not; together they are all that the source had.
    """

    reason: Literal["ended", "stopped"]
    windows: int
    skipped: int
    reconnections: int
    elapsed_sec: float


WatchEvent = WatchWindow | WatchSkipped | WatchLost | WatchReconnected | WatchEnd
