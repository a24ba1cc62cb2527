"""Parameter sets of H.264 and HEVC with start codes. Cameras send them first, at each key frame, or on a change.

Sources: ITU-T H.264, 7.4.1 and Annex B (sequence and picture parameter sets are NAL units of types 7 and 8, pictures 1
to 5); ITU-T H.265, 7.4.2 (video, sequence and picture parameter sets are 32, 33, 34; types below 32 are pictures).
"""

from __future__ import annotations

from collections.abc import Iterator

_START_CODE = b"\x00\x00\x01"
_SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}


class ParameterSets:
    """The sets in force, as the stream's head and its key frames gave them."""

    def __init__(self, codec: str, head: bytes) -> None:
        self._codec = codec
        self._known: dict[int, bytes] = {}
        self.note(head)

    def note(self, data: bytes) -> bytes:
        """Take over the sets that a key frame's packet brings; those that it lacks, to be put before it."""
        brought: dict[int, bytes] = {}
        for kind, unit in _units(self._codec, data):
            brought[kind] = brought.get(kind, b"") + b"\x00" + _START_CODE + unit
        self._known |= brought
        return b"".join(self._known[kind] for kind in sorted(self._known) if kind not in brought)


def is_annex_b(head: bytes) -> bool:
    """Whether the stream has start codes; else each NAL unit has its length in front, and the head is a record."""
    return not head or head.startswith((_START_CODE, b"\x00" + _START_CODE))


def _units(codec: str, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Parameter sets before the first picture, with their types."""
    wanted = _SETS[codec]
    begin = data.find(_START_CODE)
    while begin >= 0 and begin + 3 < len(data):
        header = data[begin + 3]
        kind = header & 0x1F if codec == "h264" else header >> 1 & 0x3F
        if (1 <= kind <= 5) if codec == "h264" else kind < 32:
            return
        end = data.find(_START_CODE, begin + 3)
        if kind in wanted:
            yield kind, data[begin + 3 : end if end >= 0 else len(data)].rstrip(b"\x00")
        begin = end
