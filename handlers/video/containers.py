"""What kind of file it is, by its first bytes: decided here, before FFmpeg sees anything.

FFmpeg then gets the format by name, so that its own probing, which also finds playlists, scripts and still images,
never runs on untrusted input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from handlers.video.codecs import UNCONFINED, Formats
from handlers.video.refusals import refused


@dataclass(frozen=True, slots=True)
class Container:
    """A container that is known. `demuxer` is FFmpeg's name for it.

    `seekable`: its index finds the key frame before a time, as EncodedVideo expects when it seeks; others are read from
    the start. `elementary`: a bare stream, without usable timestamps.
    """

    demuxer: str
    seekable: bool = False
    elementary: bool = False


_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"uuid", b"sidx")
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
# SMPTE 377-1, 7.1: the key of a header partition pack, without its last bytes, which differ. A file with something else
# in front of it (run-in) is none here.
_MXF_HEADER = bytes.fromhex("060e2b34020501010d0102010102")
_TS_PACKET, _M2TS_PACKET, _TS_SYNC = 188, 192, 0x47


def _is_mov(head: memoryview) -> bool:
    return bytes(head[4:8]) in _MOV_BOXES


def _is_avi(head: memoryview) -> bool:
    return bytes(head[:4]) == b"RIFF" and bytes(head[8:12]) == b"AVI "


def _is_mpegts(head: memoryview) -> bool:
    for size, first in ((_TS_PACKET, 0), (_M2TS_PACKET, 4)):
        marks = head[first : first + 5 * size : size]
        if len(marks) >= 2 and all(mark == _TS_SYNC for mark in marks):
            return True
    return False


def _is_h264(head: memoryview) -> bool:
    """A start code, then an access unit delimiter or a sequence parameter set that names a real profile."""
    unit = _first_unit(head)
    if unit is None or len(unit) < 4 or unit[0] & 0x80:
        return False
    kind = unit[0] & 0x1F
    return kind == 9 or (kind == 7 and unit[0] & 0x60 != 0 and unit[1] in (66, 77, 88, 100, 110, 122, 244))


def _is_hevc(head: memoryview) -> bool:
    unit = _first_unit(head)
    return unit is not None and len(unit) >= 2 and unit[0] >> 1 in (32, 33, 35) and unit[1] == 1


def _is_mpeg4(head: memoryview) -> bool:
    """A visual object sequence, a visual object, or a video object (layer) start code of MPEG-4 part 2."""
    return bytes(head[:3]) == b"\x00\x00\x01" and len(head) > 3 and (head[3] in (0xB0, 0xB5) or head[3] <= 0x2F)


def _first_unit(head: memoryview) -> memoryview | None:
    for code in (b"\x00\x00\x00\x01", b"\x00\x00\x01"):
        if bytes(head[: len(code)]) == code:
            return head[len(code) :]
    return None


def _starts(*prefixes: bytes) -> Callable[[memoryview], bool]:
    return lambda head: any(bytes(head[: len(prefix)]) == prefix for prefix in prefixes)


_KINDS: tuple[tuple[Callable[[memoryview], bool], Container], ...] = (
    (_is_mov, Container("mov", seekable=True)),
    (_starts(b"\x1a\x45\xdf\xa3"), Container("matroska", seekable=True)),
    (_is_avi, Container("avi")),
    (_starts(b"FLV\x01"), Container("flv")),
    (_is_mpegts, Container("mpegts")),
    (_starts(b"\x00\x00\x01\xba"), Container("mpeg")),
    (_starts(b"\x00\x00\x01\xb3"), Container("mpegvideo", elementary=True)),
    (_starts(b"GIF87a", b"GIF89a"), Container("gif")),
    (_starts(_ASF_HEADER), Container("asf")),
    (_starts(b"YUV4MPEG2 "), Container("yuv4mpegpipe")),
    (_starts(b"nut/multimedia container\x00"), Container("nut")),
    (_starts(b"\x12\x00\x0a"), Container("obu")),
    (_starts(b"OggS\x00"), Container("ogg")),
    (_starts(b"DKIF\x00\x00"), Container("ivf")),
    (_starts(_MXF_HEADER), Container("mxf")),
    (_is_h264, Container("h264", elementary=True)),
    (_is_hevc, Container("hevc", elementary=True)),
    (_is_mpeg4, Container("m4v")),
)

DEMUXERS = tuple(container.demuxer for _, container in _KINDS)
"""FFmpeg's names of every container that is known."""

_HEAD_BYTES = 5 * _M2TS_PACKET + 4


def identify(payload: bytes | memoryview, formats: Formats = UNCONFINED) -> Container:
    """The container of these bytes; raises UnsupportedVideo when it is none of the allowed ones."""
    head = memoryview(payload)[:_HEAD_BYTES]
    for matches, container in _KINDS:
        if matches(head) and container.demuxer in formats.demuxers:
            return container
    raise refused("container", formats=formats.name)
