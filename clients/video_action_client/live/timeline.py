"""The source's timestamps as seconds since its first picture, which never go back, and as times of day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction

# A source that shows fewer pictures than one in ten seconds is no video; a bigger step is a jump.
_MAX_STEP_SEC = 10
# Without decoding times, pictures that are shown before their predecessors look like steps back, of some frames.
_MAX_STEP_BACK_SEC = 1
_LEAST_STEP_SEC = 0.001
_OFFSETS_SEC = 30.0


@dataclass(frozen=True, slots=True)
class Placed:
    """A packet's decoding and presentation time on the timeline, and whether the timestamps jumped before it."""

    decode_sec: Fraction
    show_sec: Fraction
    jumped: bool


class Timeline:
    """Seconds since the first picture. Over a jump or a lost connection they go on with the time that passed."""

    def __init__(self) -> None:
        self._shift_sec: Fraction | None = None  # what is added to the source's own seconds
        self._latest: Fraction | None = None
        self._latest_at = 0.0

    def begin_anew(self) -> None:
        """The next timestamps have nothing to do with those before: another connection."""
        self._shift_sec = None

    def place(self, decode_sec: Fraction, show_sec: Fraction, now_sec: float) -> Placed:
        """Where a packet's two timestamps are, which came at `now_sec` on a clock that never goes back."""
        jumped = False
        if self._shift_sec is not None and self._latest is not None:
            step_sec = decode_sec + self._shift_sec - self._latest
            jumped = not -_MAX_STEP_BACK_SEC <= step_sec <= _MAX_STEP_SEC
        if self._shift_sec is None or jumped:
            reached_sec = Fraction(0)
            if self._latest is not None:
                passed_sec = max(now_sec - self._latest_at, _LEAST_STEP_SEC)
                reached_sec = self._latest + Fraction(round(passed_sec * 1000), 1000)
            self._shift_sec = reached_sec - show_sec
        placed = decode_sec + self._shift_sec
        self._latest = placed if self._latest is None else max(self._latest, placed)
        self._latest_at = now_sec
        return Placed(placed, show_sec + self._shift_sec, jumped)


class TimesOfDay:
    """When a second of the timeline was.

    Packets come late, never early: the one that came soonest after its timestamp, of those of the last half minute or
    more, tells the difference between both clocks. So neither jitter nor segments that come at one go move the times,
    and a camera whose clock is slow does not drift away.
    """

    def __init__(self) -> None:
        self._least: float | None = None
        self._least_before: float | None = None
        self._since = 0.0

    def begin_anew(self) -> None:
        self._least = self._least_before = None

    def note(self, seconds: Fraction, now: float) -> None:
        """A packet of that second came at `now`, seconds since 1970."""
        offset = now - float(seconds)
        if self._least is None or not 0 <= now - self._since < _OFFSETS_SEC:
            self._least_before, self._least, self._since = self._least, offset, now
        self._least = min(self._least, offset)

    def of(self, seconds: Fraction) -> datetime:
        known = [each for each in (self._least, self._least_before) if each is not None]
        return datetime.fromtimestamp(min(known, default=0.0) + float(seconds), tz=timezone.utc)
