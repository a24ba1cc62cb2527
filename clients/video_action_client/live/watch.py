"""A source that is being watched: a thread that reads it, a few that ask the server, and the events in order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ClientError, RequestError
from ..results import Prediction, ScoredLabel
from .backlog import Backlog, ReadyClip, Tally
from .connection import Connection, still
from .cutter import Cutter
from .events import WatchEnd, WatchEvent, WatchLost, WatchSkipped, WatchWindow
from .reader import Reader, ReaderOptions
from .smoothing import Smoothing
from .source import LiveSource

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself only since Python 3.11

# A frame may lie exactly where a window begins or ends, and a float may be a little more than that place. A tenth of a
# microsecond before it, much less than any source's unit of time, a boundary always falls before the same frame.
_BEFORE_SEC = 1e-7
_STOP_SEC = 5.0
"""How long a stopped watcher waits for what the server is asked at that moment."""


class Asker(Protocol):
    """What a watcher needs of a client."""

    def answer(
        self, video: bytes, *, model: str, version: str | None = None, options: Mapping[str, object] | None = None
    ) -> Any: ...

    def describe(self, model: str, version: str | None = None) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """See `BaseClient.watch`."""

    model: str
    version: str | None = None
    stride_sec: float | None = None
    window_sec: float | None = None
    top_k: int | None = None
    num_crops: int | None = None
    threshold: float | None = None
    smooth: int = 1
    under_way: int = 2
    waiting: int = 2
    max_buffer_bytes: int = 64 * 2**20
    reading: ReaderOptions = field(default_factory=ReaderOptions)

    def __post_init__(self) -> None:
        for name in ("stride_sec", "window_sec"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a positive number of seconds, got {value!r}")
        for name in ("smooth", "under_way", "max_buffer_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.waiting < 0:
            raise ValueError(f"waiting must not be negative, got {self.waiting!r}")
        if not self.reading.speed > 0:
            raise ValueError(f"speed must be positive, got {self.reading.speed!r}")


class Watch:
    """The events of a source, to be iterated once; `stop()`, from any thread, ends it after what is under way.

    Leaving the loop early leaves threads at work: use it as a context manager, or call `close()`.
    """

    def __init__(self, client: Asker, source: str | os.PathLike[str], options: WatchOptions) -> None:
        """Asks the server once and opens the source. Raises ClientError if either is in vain."""
        self._client = client
        self._options = options
        self._probe = Prediction.from_json(self._ask(still(), {"top_k": options.top_k}))
        window_sec = options.window_sec or self._probe.sampling.clip_duration_sec
        self._clips = max(round(window_sec / self._probe.sampling.clip_duration_sec), 1)
        self._window = Fraction(repr(float(window_sec)))
        stride = Fraction(repr(float(options.stride_sec or window_sec)))
        self._every = self._options_of_every_window()
        self._smoothing = Smoothing(options.smooth)
        self._backlog = Backlog(waiting=options.waiting)
        self._tally = Tally()
        cutter = Cutter(window_sec=self._window, stride_sec=stride, max_bytes=options.max_buffer_bytes)
        opened = LiveSource.of(source)
        self._reader = Reader(opened, cutter, self._backlog, options.reading)
        connection = Connection(opened, timeout_sec=options.reading.timeout_sec)
        self._stopped = False
        self._started_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._read, args=(connection,), name="watch-reader", daemon=True),
            *(threading.Thread(target=self._post, name="watch-asker", daemon=True) for _ in range(options.under_way)),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def weights(self) -> str | None:
        """Kind of the model's weights, as in a Prediction."""
        return self._probe.weights

    @property
    def window_sec(self) -> float:
        """How long a window is."""
        return float(self._window)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[WatchEvent]:
        """The events, a WatchEnd last. Raises SourceFailed where the source is lost for good."""
        for event in self._backlog.events():
            told = self._smoothed(event)
            self._tally.note(told)
            yield told
        yield self.summary()

    def summary(self) -> WatchEnd:
        """What has been told so far, as the last event will say it."""
        return self._tally.end("stopped" if self._stopped else "ended", time.monotonic() - self._started_at)

    def stop(self) -> None:
        """Read no more, skip what waits, and end once the server has answered what it is asked, or after 5 s."""
        self._stopped = True
        self._reader.stop()
        self._backlog.give_up(asked=False)
        timer = threading.Timer(_STOP_SEC, self._backlog.give_up, kwargs={"asked": True})
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Stop without waiting for anything. The threads end by themselves, at the latest after their timeouts."""
        self._stopped = True
        self._reader.stop()
        self._backlog.give_up(asked=True)

    def _read(self, connection: Connection) -> None:
        failure: Exception | None = None
        try:
            self._reader.run(connection)
        except Exception as error:  # noqa: BLE001 - raised again where the events are read
            failure = error
        self._backlog.finish(None if self._stopped else failure)

    def _post(self) -> None:
        while (clip := self._backlog.take()) is not None:
            self._backlog.answer(clip, self._outcome(clip))

    def _outcome(self, clip: ReadyClip) -> WatchWindow | WatchSkipped:
        try:
            end_sec = clip.offset_sec + float(self._window) - _BEFORE_SEC
            place = {"start_sec": max(clip.offset_sec - _BEFORE_SEC, 0.0), "end_sec": end_sec}
            answer = Prediction.from_json(self._ask(clip.video, {**self._every, **place}))
        except RequestError as error:
            return clip.skipped("refused", error.message)
        except ClientError as error:
            return clip.skipped("server", error.message)
        return WatchWindow(
            index=clip.index,
            start_sec=clip.start_sec,
            end_sec=clip.end_sec,
            start_time=clip.start_time,
            end_time=clip.end_time,
            delay_sec=(datetime.now(timezone.utc) - clip.end_time).total_seconds(),
            predictions=answer.predictions,
            answer=answer,
        )

    def _ask(self, video: bytes, options: Mapping[str, object]) -> Any:
        wanted = self._options
        options = {"num_crops": wanted.num_crops, "format": "full", **options}
        return self._client.answer(video, model=wanted.model, version=wanted.version, options=options)

    def _options_of_every_window(self) -> dict[str, object]:
        """What is asked of each window beside its place. Means over windows need every label, whatever its score."""
        wanted = self._options
        options: dict[str, object] = {"top_k": wanted.top_k, "threshold": wanted.threshold}
        if wanted.smooth > 1:
            options = {"top_k": self._label_count()}
        if self._clips > 1:
            options["num_clips"] = self._clips
        return options

    def _label_count(self) -> int | None:
        """How many labels the model has; where the management address does not tell, as many as were asked for."""
        try:
            metadata = self._client.describe(self._options.model, self._options.version).metadata or {}
            return int(metadata["num_labels"])
        except (ClientError, KeyError, TypeError, ValueError):
            return self._options.top_k

    def _smoothed(self, event: WatchEvent) -> WatchEvent:
        if isinstance(event, WatchLost):
            self._smoothing.clear()
        if not isinstance(event, WatchWindow) or self._options.smooth == 1:
            return event
        return replace(event, predictions=self._chosen(self._smoothing.add(event.predictions)))

    def _chosen(self, means: tuple[ScoredLabel, ...]) -> tuple[ScoredLabel, ...]:
        """Of the means as many as were asked for, from the threshold on."""
        most = self._options.top_k or len(self._probe.predictions)
        return tuple(each for each in means[:most] if each.score >= (self._options.threshold or 0))
