"""Functions that take any bytes, and fail if the code behind them does what it never should: what fuzzers call.

`tests.support.run_harness` calls them with atheris, led by coverage, where that is installed (requirements/fuzz.txt),
and otherwise with mutants of the seeds, which are made here. Bodies of requests have a grammar instead of bytes:
tests/handler/test_fuzz_rows.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from handlers.errors import UnsupportedVideo
from handlers.video.codecs import FORMATS, WIDE
from handlers.video.containers import identify
from handlers.video.h264 import non_reference_test
from handlers.video.packet_plan import PacketTable, PlanCheck, PlanMismatch, plan_clips
from handlers.video.sampling import Window
from handlers.video.transforms import subsample_indices
from tests.support.mutation import made_here, rare_here

_PACKET = struct.Struct("<hB")
_HEAD = struct.Struct("<HHBB")
_AVC_HEADER = bytes((1, 100, 0, 31))  # an avcC box: version, profile, compatibility, level; ISO 14496-15, 5.3.3.1.2
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Harness:
    """`check` raises for bytes that show a defect; `seeds` gives bytes to begin with."""

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def check_containers(data: bytes) -> None:
    """One container or one refusal; a narrower profile never finds another one; nothing past the head is looked at."""
    found = {name: _identified(data, name) for name in FORMATS}
    for name, demuxer in found.items():
        assert demuxer is None or demuxer in FORMATS[name].demuxers
        assert demuxer in (None, found[WIDE.name])
        assert demuxer == _identified(data + b"\0" * 2000, name) or len(data) < 1000
    assert (found["unconfined"] is None) == (found[WIDE.name] in (None, "ogg", "ivf", "mxf"))


def _identified(data: bytes, name: str) -> str | None:
    try:
        return identify(memoryview(data), FORMATS[name]).demuxer
    except UnsupportedVideo:
        return None


def check_nal_units(data: bytes) -> None:
    """A packet counts as left out only if a plain reading of its units agrees; junk never does."""
    is_unreferenced = non_reference_test(_AVC_HEADER + bytes((0xFC | _LENGTH_BYTES - 1, 0, 0)))
    assert is_unreferenced is not None
    if is_unreferenced(data):
        kinds, rest = [], data
        while len(rest) > _LENGTH_BYTES:
            size = int.from_bytes(rest[:_LENGTH_BYTES], "big")
            kinds.append((rest[_LENGTH_BYTES] & 0x1F, rest[_LENGTH_BYTES] >> 5 & 3))
            rest = rest[_LENGTH_BYTES + size :]
        slices = [importance for kind, importance in kinds if kind in (1, 5)]
        assert slices
        assert not any(slices)
        assert {kind for kind, _ in kinds} <= {1, 5, 6, 9, 12}
    if (other := non_reference_test(data)) is not None:
        assert data[0] == 1
        assert other(data) in (True, False)


def check_plan(data: bytes) -> None:
    """For any packets: each window's picks are the recipe's, and the planned ranges hold every one of them."""
    if len(data) < _HEAD.size:
        return
    start, length, num_frames, count = _HEAD.unpack_from(data)
    table = PacketTable()
    for stamp, flags in _PACKET.iter_unpack(data[_HEAD.size :][: (len(data) - _HEAD.size) // 3 * 3]):
        table.add(None if flags & 8 else stamp, is_key=bool(flags & 1), is_discarded=bool(flags & 2))
    try:
        table.check_plannable()
    except PlanMismatch:
        return
    num_frames, shown = num_frames % 32 + 1, table.shown()
    windows = [(i, Window(Fraction(start, 100) + i, Fraction(start + length, 100) + i)) for i in range(count % 4 + 1)]
    origin = min(table.pts, default=0)
    clips = plan_clips(
        windows, shown, time_base=Fraction(1, 100), origin=origin, pick=lambda n: subsample_indices(n, num_frames)
    )
    for clip in clips:
        inside = [pts for pts in shown if clip.first <= pts < clip.end]
        assert list(clip.picks) == [inside[int(at)] for at in subsample_indices(len(inside), num_frames)]
    wanted = {pts for clip in clips for pts in clip.picks}
    for trust_keys in (False, True):
        ranges = table.intervals(wanted, trust_keys=trust_keys)
        decoded = [index for each in ranges for index in each]
        assert decoded == sorted(set(decoded)), "ranges overlap or go back"
        assert wanted <= {table.pts[index] for index in decoded}
        assert all(each.start == 0 or table.is_key[each.start] for each in ranges)
        check = PlanCheck(table, clips)
        for pts in sorted(table.pts[index] for index in decoded):
            check.went_in(pts)
            check.came_out(pts)
        for position in range(len(clips)):
            check.check_complete(position)


def _plan_seeds() -> list[bytes]:
    b_frames = [(stamp, int(stamp % 40 == 0)) for at in range(0, 240, 12) for stamp in (at + 8, at, at + 4)]
    plain = [(stamp, int(stamp % 100 == 0)) for stamp in range(0, 400, 4)]
    cut = [(stamp, 1 | (2 if stamp < 40 else 0)) for stamp in range(0, 200, 10)]
    packets = (b_frames, plain, cut)
    return [
        _HEAD.pack(start, length, 13, 2) + b"".join(_PACKET.pack(*packet) for packet in each)
        for each in packets
        for start, length in ((0, 160), (50, 30))
    ]


def _unit_seeds() -> list[bytes]:
    def packet(*headers: int) -> bytes:
        return b"".join((9).to_bytes(_LENGTH_BYTES, "big") + bytes((header, *range(8))) for header in headers)

    return [packet(0x01), packet(0x65), packet(0x09, 0x06, 0x01, 0x01), packet(0x01, 0x41), packet(0x67, 0x68, 0x65)]


def _container_seeds() -> list[bytes]:
    return [payload[:1200] for payload in (*made_here(), *rare_here())]


HARNESSES: Mapping[str, Harness] = {
    "containers": Harness(check_containers, _container_seeds),
    "nal_units": Harness(check_nal_units, _unit_seeds),
    "plan": Harness(check_plan, _plan_seeds),
}
