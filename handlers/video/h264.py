"""Which H.264 packets hold a picture that no other refers to: read from their NAL unit headers.

Such a packet need not be decoded when nobody wants its picture. It is kept from the decoder, not merely marked as one
to skip: each of the threads that decode frames would take its turn to skip it, and idle for the rest of that turn.

Source: ITU-T H.264, 7.3.1 and 7.4.1 (`nal_ref_idc` 0: not used for reference); ISO 14496-15 for the length prefixes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NonReferenceTest = Callable[[Any], bool]

_SLICES = frozenset({1, 5})
_OF_ONE_PICTURE = frozenset({6, 9, 12})  # SEI, delimiter, filler: nothing that a later picture needs
_MOST_UNITS = 64


def non_reference_test(extradata: bytes | None) -> NonReferenceTest | None:
    """A test for packets in the layout that `extradata` (an avcC box) describes; None when it is another layout."""
    if not extradata or len(extradata) < 7 or extradata[0] != 1:
        return None
    prefix_bytes = (extradata[4] & 3) + 1

    def is_non_reference(packet: Any) -> bool:
        """True only when every slice in the packet says so, and nothing else in it outlives the picture."""
        data = memoryview(packet)
        at, seen = 0, False
        for _ in range(_MOST_UNITS):
            header = at + prefix_bytes
            if header >= len(data):
                return seen
            size = int.from_bytes(data[at:header], "big")
            kind, is_referenced = data[header] & 0x1F, data[header] & 0x60
            if kind in _SLICES and not is_referenced:
                seen = True
            elif kind not in _OF_ONE_PICTURE:
                return False
            at = header + size
        return False

    return is_non_reference
