"""Both timestamps for every packet, where a source leaves some out.

RTSP's first packet often has none, since a clock has not been agreed upon yet; decoding times are missing until enough
pictures are known to put them in order; AVI has no presentation times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import SourceFailed
from .connection import Encoded

_MOST_HELD = 32
"""Packets in which a timestamp has to be found. H.264 and HEVC decode up to 16 pictures ahead of the one shown."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """A packet with its decoding and presentation time, in the source's own unit. The former is never the later one."""

    packet: Encoded
    decode: int
    show: int


def stamped(packets: Iterable[Encoded]) -> Iterator[Stamped]:
    """Each packet with both times, as soon as they are known. Raises SourceFailed where there are none at all."""
    held: list[Encoded] = []
    latest: int | None = None
    for packet in packets:
        if latest is None:
            held.append(packet)
            if _show(held[0]) is None and packet.dts is None and len(held) < _MOST_HELD:
                continue
            for each in _begun(held):
                latest = each.show
                yield each
        else:
            each = _placed(packet, latest)
            latest = each.show
            yield each
    if latest is None and held:
        yield from _begun(held)


def _begun(held: Sequence[Encoded]) -> Iterator[Stamped]:
    """The first packets: those before the first time are shown before everything else, one after the other."""
    known = [show for each in held if (show := _show(each)) is not None]
    if not known:
        raise SourceFailed("the source gives no timestamps; send it in a container that has some, such as MPEG-TS")
    without = next(place for place, each in enumerate(held) if _show(each) is not None)
    step = max(held[0].duration, 1)
    latest = min(known) - (without + 1) * step
    for each in held:
        placed = _placed(each, latest)
        latest = placed.show
        yield placed


def _placed(packet: Encoded, latest: int) -> Stamped:
    show = _show(packet)
    if show is None:
        show = latest + max(packet.duration, 1)
    return Stamped(packet, show if packet.dts is None else min(packet.dts, show), show)


def _show(packet: Encoded) -> int | None:
    return packet.dts if packet.pts is None else packet.pts
