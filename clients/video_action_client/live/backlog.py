"""Windows on their way to the server and back. Bounded: what waits too long is skipped, the oldest first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from .events import SkipReason, WatchEnd, WatchEvent, WatchReconnected, WatchSkipped, WatchWindow

_MAX_UNREAD = 256
"""Events that the caller has not taken; beyond that windows are skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyClip:
    """A window as a video file, in which it begins at `offset_sec`."""

    index: int
    start_sec: float
    end_sec: float
    start_time: datetime
    end_time: datetime
    offset_sec: float
    video: bytes

    def skipped(self, reason: SkipReason, message: str) -> WatchSkipped:
        return WatchSkipped(
            first_index=self.index,
            count=1,
            start_sec=self.start_sec,
            end_sec=self.end_sec,
            start_time=self.start_time,
            end_time=self.end_time,
            reason=reason,
            message=message,
        )


@dataclass(slots=True, eq=False)
class _Entry:
    """A clip that waits for the server or is there, or an event to be told."""

    clip: ReadyClip | None = None
    asked: bool = False
    event: WatchEvent | None = None


class Backlog:
    """In the order of windows from the cutter to the caller. Safe to share between threads.

    At most `waiting` clips wait besides those that are asked about; when one more comes, the oldest gives way: the
    newest tells more about now.
    """

    def __init__(self, *, waiting: int) -> None:
        self._most_waiting = waiting
        self._entries: deque[_Entry] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failure: Exception | None = None

    def offer(self, clip: ReadyClip) -> None:
        """One more window. It may be skipped at once, or an older one for it."""
        with self._changed:
            waiting = [each for each in self._entries if each.clip is not None and not each.asked]
            if self._closed:
                self._append(_Entry(event=clip.skipped("stopped", "watching was stopped")))
                return
            if len(self._entries) >= _MAX_UNREAD:
                self._append(_Entry(event=clip.skipped("behind", "the events are not read fast enough")))
                return
            if len(waiting) >= self._most_waiting and waiting:
                self._skip(waiting[0], "behind", "the server takes longer for a window than the stride")
            self._append(_Entry(clip=clip))

    def put(self, event: WatchEvent) -> None:
        """Something to be told after what is there."""
        with self._changed:
            # Windows give way on their own; for the rest, a source that comes and goes, the reader waits.
            self._changed.wait_for(lambda: len(self._entries) < 2 * _MAX_UNREAD or self._closed)
            self._append(_Entry(event=event))

    def take(self) -> ReadyClip | None:
        """The oldest clip that waits, to be asked about; waits for one. None: there will be none."""
        with self._changed:
            while True:
                for entry in self._entries:
                    if entry.clip is not None and not entry.asked:
                        entry.asked = True
                        return entry.clip
                if self._closed:
                    return None
                self._changed.wait()

    def answer(self, clip: ReadyClip, event: WatchWindow | WatchSkipped) -> None:
        """What became of a clip that was taken."""
        with self._changed:
            for entry in self._entries:
                if entry.clip is clip:
                    entry.clip, entry.event = None, event
            self._changed.notify_all()

    def finish(self, failure: Exception | None = None) -> None:
        """Nothing more comes from the source; what waits is still asked about."""
        with self._changed:
            self._closed, self._failure = True, failure
            self._changed.notify_all()

    def give_up(self, *, asked: bool) -> None:
        """What waits is skipped, and with `asked` also that which the server has not answered."""
        with self._changed:
            self._closed = True
            for entry in [each for each in self._entries if each.clip is not None and (asked or not each.asked)]:
                self._skip(entry, "stopped", "watching was stopped")
            self._changed.notify_all()

    def events(self) -> Iterator[WatchEvent]:
        """Each as soon as those before it are known; ends when everything has been told. Raises what `finish` says."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_ready() or (self._closed and not self._entries))
                if not self._entries:
                    break
                event = self._entries.popleft().event
                self._changed.notify_all()
            assert event is not None
            yield event
        if self._failure is not None:
            raise self._failure

    def _is_ready(self) -> bool:
        return bool(self._entries) and self._entries[0].event is not None

    def _append(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._merge(len(self._entries) - 1)
        self._changed.notify_all()

    def _skip(self, entry: _Entry, reason: SkipReason, message: str) -> None:
        assert entry.clip is not None
        entry.event, entry.clip = entry.clip.skipped(reason, message), None
        self._merge(self._entries.index(entry))

    def _merge(self, place: int) -> None:
        """Windows in a row that were skipped for one reason are one event."""
        if place == 0:
            return
        before, this = self._entries[place - 1].event, self._entries[place].event
        if not isinstance(before, WatchSkipped) or not isinstance(this, WatchSkipped):
            return
        if before.reason == this.reason and before.first_index + before.count == this.first_index:
            merged = replace(before, count=before.count + this.count, end_sec=this.end_sec, end_time=this.end_time)
            self._entries[place - 1].event = merged
            del self._entries[place]


@dataclass(slots=True)
class Tally:
    """Counts of what was told."""

    windows: int = 0
    skipped: int = 0
    reconnections: int = 0

    def note(self, event: WatchEvent) -> None:
        if isinstance(event, WatchWindow):
            self.windows += 1
        elif isinstance(event, WatchSkipped):
            self.skipped += event.count
        elif isinstance(event, WatchReconnected):
            self.reconnections += 1

    def end(self, reason: Literal["ended", "stopped"], elapsed_sec: float) -> WatchEnd:
        return WatchEnd(
            reason=reason,
            windows=self.windows,
            skipped=self.skipped,
            reconnections=self.reconnections,
            elapsed_sec=elapsed_sec,
        )
