"""From a source to the backlog: paced where it is a recording, cut into windows, taken up again when lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction

from ..errors import SourceFailed
from .backlog import Backlog, ReadyClip
from .connection import Connection
from .cutter import Cut, Cutter, LivePacket, Missed
from .events import SkipReason, WatchLost, WatchReconnected, WatchSkipped
from .source import LiveSource
from .stamps import Stamped, stamped
from .timeline import Timeline, TimesOfDay

# A recording that stops that much before its end was cut off.
_END_TOLERANCE_SEC = 1.5
_MAX_PAUSE_SEC = 0.1

_MISSED = {
    "lost": "the source was lost",
    "jump": "the source's timestamps jumped",
    "key_frame": "the key frames are farther apart than the buffer holds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """How a source is followed. `speed` is that of recordings, 1 is real time; None in `give_up_sec` is never."""

    timeout_sec: float = 10.0
    give_up_sec: float | None = None
    first_delay_sec: float = 0.5
    max_delay_sec: float = 30.0
    speed: float = 1.0


class Reader:
    """Reads one source, in whatever thread calls `run`, until it ends, fails for good or is stopped."""

    def __init__(self, source: LiveSource, cutter: Cutter, backlog: Backlog, options: ReaderOptions) -> None:
        self._source = source
        self._cutter = cutter
        self._backlog = backlog
        self._options = options
        self._timeline = Timeline()
        self._times = TimesOfDay()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Read no more; takes until the source has given its next packet."""
        self._stopped.set()

    def run(self, connection: Connection) -> None:
        """Read from this connection on. Raises SourceFailed if the source is lost for good."""
        while True:
            with connection:
                message = self._follow(connection)
            if message is None or self._stopped.is_set():
                return
            if self._source.is_file:
                raise SourceFailed(message)
            self._backlog.put(WatchLost(time=_now(), message=message))
            found = self._reconnected(message)
            if found is None:
                return
            connection = found
            self._begin_anew("lost")

    def _follow(self, connection: Connection) -> str | None:
        """Cut what comes; None when the source has ended or reading was stopped, else what went wrong."""
        began_at, recorded_sec = time.monotonic(), connection.recorded_sec
        first_sec = end_sec = Fraction(0)
        seen = False
        try:
            for each in stamped(connection.packets()):
                if self._stopped.is_set():
                    return None
                if not seen and not each.packet.is_key:
                    continue
                source_sec = each.show * connection.time_base
                if not seen:
                    first_sec, seen = source_sec, True
                end_sec = max(end_sec, source_sec - first_sec + each.packet.duration * connection.time_base)
                if recorded_sec is not None:
                    self._wait_until(began_at + float(source_sec - first_sec) / self._options.speed)
                self._take(each, connection)
        except SourceFailed as error:
            return error.message
        whole = recorded_sec is not None and end_sec >= recorded_sec - _END_TOLERANCE_SEC
        if self._source.is_file or whole:
            self._wait_until(began_at + float(end_sec) / self._options.speed)
            self._pass_on(self._cutter.finish(), connection)
            return None
        return f"{self._source.shown} sends nothing more"

    def _take(self, stamps: Stamped, connection: Connection) -> None:
        packet, unit_sec = stamps.packet, connection.time_base
        placed = self._timeline.place(stamps.decode * unit_sec, stamps.show * unit_sec, time.monotonic())
        if placed.jumped:
            self._begin_anew("jump")
        self._times.note(placed.show_sec, time.time())
        live = LivePacket(
            data=packet.data,
            pts=stamps.show,
            show_sec=placed.show_sec,
            decode_sec=placed.decode_sec,
            is_key=packet.is_key,
            duration=packet.duration,
            duration_sec=packet.duration * unit_sec,
            head=packet.head,
            new_parameters=packet.new_parameters,
        )
        self._pass_on(self._cutter.push(live), connection)

    def _pass_on(self, settled: Iterable[Cut | Missed], connection: Connection) -> None:
        for each in settled:
            if isinstance(each, Missed):
                message = _MISSED.get(each.reason, each.reason)
                self._backlog.put(self._skipped(each, each.first_index, each.count, each.reason, message))
                continue
            try:
                video = connection.file_of(each.packets)
            except SourceFailed as error:
                self._backlog.put(self._skipped(each, each.index, 1, "refused", error.message))
                continue
            clip = ReadyClip(
                index=each.index,
                start_sec=float(each.start_sec),
                end_sec=float(each.end_sec),
                start_time=self._times.of(each.start_sec),
                end_time=self._times.of(each.end_sec),
                offset_sec=float(each.offset_sec),
                video=video,
            )
            self._backlog.offer(clip)

    def _skipped(self, span: Cut | Missed, first: int, count: int, reason: SkipReason, message: str) -> WatchSkipped:
        return WatchSkipped(
            first_index=first,
            count=count,
            start_sec=float(span.start_sec),
            end_sec=float(span.end_sec),
            start_time=self._times.of(span.start_sec),
            end_time=self._times.of(span.end_sec),
            reason=reason,
            message=message,
        )

    def _begin_anew(self, reason: SkipReason) -> None:
        self._cutter.interrupt(reason)
        self._times.begin_anew()
        if reason == "lost":
            self._timeline.begin_anew()

    def _reconnected(self, message: str) -> Connection | None:
        """The source again; None if reading is stopped first. Raises SourceFailed when it is time to give up."""
        lost_at = time.monotonic()
        for attempt, delay_sec in enumerate(self._delays_sec(), start=1):
            if self._stopped.wait(delay_sec):
                return None
            try:
                connection = Connection(self._source, timeout_sec=self._options.timeout_sec)
            except SourceFailed as error:
                message = error.message
            else:
                lost_sec = time.monotonic() - lost_at
                self._backlog.put(WatchReconnected(time=_now(), lost_sec=lost_sec, attempts=attempt))
                return connection
            limit_sec = self._options.give_up_sec
            if limit_sec is not None and time.monotonic() - lost_at >= limit_sec:
                raise SourceFailed(f"{message}; given up after {limit_sec:g} s")
        return None

    def _delays_sec(self) -> Iterator[float]:
        """Doubling, with up to half taken off, so that watchers that lost a source together do not come together."""
        delay_sec = self._options.first_delay_sec
        while True:
            yield delay_sec * random.uniform(0.5, 1.0)
            delay_sec = min(delay_sec * 2, self._options.max_delay_sec)

    def _wait_until(self, moment: float) -> None:
        while (left_sec := moment - time.monotonic()) > 0 and not self._stopped.is_set():
            self._stopped.wait(min(left_sec, _MAX_PAUSE_SEC))


def _now() -> datetime:
    return datetime.now(timezone.utc)
