"""Which packets a window needs: those from the key frame before it to its end. Knows neither FFmpeg nor the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .events import SkipReason


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePacket:
    """One encoded picture. `pts` counts in the source's own unit; the seconds are those of the timeline.

    `decode_sec` never is later than `show_sec`, and grows from packet to packet. `head` belongs before the data where a
    clip begins with this packet; `new_parameters`, as the connection knows them, replace those of the stream's head
    from here on.
    """

    data: bytes
    pts: int
    show_sec: Fraction
    decode_sec: Fraction
    is_key: bool
    duration: int = 0
    duration_sec: Fraction = Fraction(0)
    head: bytes = b""
    new_parameters: object | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Window `index` is `[start_sec, end_sec)`; its packets begin with a key frame and are in the order of decoding."""

    index: int
    start_sec: Fraction
    end_sec: Fraction
    packets: tuple[LivePacket, ...]

    @property
    def offset_sec(self) -> Fraction:
        """The window's start, seconds after the first picture of the packets."""
        return self.start_sec - self.packets[0].show_sec


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Windows that cannot be cut, `count` in a row."""

    first_index: int
    count: int
    start_sec: Fraction
    end_sec: Fraction
    reason: SkipReason


class Cutter:
    """Window `k` is `[k * stride_sec, k * stride_sec + window_sec)`. Every window is cut or missed, once and in order.

    Keeps the packets that an open window needs, at most `max_bytes` of them.
    """

    def __init__(self, *, window_sec: Fraction, stride_sec: Fraction, max_bytes: int) -> None:
        self._window_sec = window_sec
        self._stride_sec = stride_sec
        self._max_bytes = max_bytes
        self._packets: deque[LivePacket] = deque()
        self._bytes = 0
        self._next = 0
        self._gap: SkipReason = "lost"

    def push(self, packet: LivePacket) -> list[Cut | Missed]:
        """What is settled now that this packet is there."""
        if not self._packets:
            if not packet.is_key:
                return self._missed(lambda index: self._end_sec(index) <= packet.decode_sec)
            settled: list[Cut | Missed] = self._missed(lambda index: self._start_sec(index) < packet.show_sec)
        elif packet.show_sec < self._packets[0].show_sec:
            return []  # a leading picture: it needs what was before the key frame
        else:
            settled = self._whole(packet.decode_sec)
        self._packets.append(packet)
        self._bytes += len(packet.data)
        if packet.is_key:
            self._forget()
        if self._bytes > self._max_bytes:
            self.interrupt("key_frame")
        return settled

    def interrupt(self, reason: SkipReason) -> None:
        """What comes next does not continue what was: windows that are open are missed."""
        self._packets.clear()
        self._bytes = 0
        self._gap = reason

    def finish(self) -> list[Cut | Missed]:
        """No packet follows. Windows that reach to the end of the last picture are whole; a recording shorter than a
        window has one all the same, as a timeline has."""
        end_sec = max((each.show_sec + each.duration_sec for each in self._packets), default=Fraction(0))
        if self._next == 0 and self._packets and end_sec < self._window_sec:
            return [self._cut()]
        return self._whole(end_sec)

    def _whole(self, until_sec: Fraction) -> list[Cut | Missed]:
        """The windows whose pictures are all there: what is decoded from `until_sec` on is shown later still."""
        settled: list[Cut | Missed] = []
        while self._packets and self._end_sec(self._next) <= until_sec:
            settled.append(self._cut())
            self._forget()
        return settled

    def _cut(self) -> Cut:
        index, start_sec, end_sec = self._next, self._start_sec(self._next), self._end_sec(self._next)
        self._next += 1
        begin = self._key_before(start_sec)
        packets = tuple(each for each in list(self._packets)[begin:] if each.decode_sec < end_sec)
        leading = packets[0].show_sec
        kept = tuple(each for each in packets if each.show_sec >= leading)
        return Cut(index=index, start_sec=start_sec, end_sec=end_sec, packets=kept)

    def _key_before(self, start_sec: Fraction) -> int:
        """Where the last key frame that is shown at `start_sec` or before stands; the first packet is one."""
        keys = [place for place, each in enumerate(self._packets) if each.is_key and each.show_sec <= start_sec]
        return keys[-1] if keys else 0

    def _forget(self) -> None:
        """Packets before the key frame that the next window begins with are needed no more."""
        for _ in range(self._key_before(self._start_sec(self._next))):
            self._bytes -= len(self._packets.popleft().data)

    def _missed(self, is_missed: Callable[[int], bool]) -> list[Cut | Missed]:
        """The next windows, as long as that holds for them."""
        first = self._next
        while is_missed(self._next):
            self._next += 1
        if self._next == first:
            return []
        start_sec, end_sec = self._start_sec(first), self._end_sec(self._next - 1)
        count = self._next - first
        return [Missed(first_index=first, count=count, start_sec=start_sec, end_sec=end_sec, reason=self._gap)]

    def _start_sec(self, index: int) -> Fraction:
        return index * self._stride_sec

    def _end_sec(self, index: int) -> Fraction:
        return self._start_sec(index) + self._window_sec
