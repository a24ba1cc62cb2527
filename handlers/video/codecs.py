"""The codecs and containers that may be decoded: by the setting `codecs`, and by whether code inside is confined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handlers.config import CodecProfile

_CONFINING_LAYER = "seccomp"  # it alone refuses all that the sandbox refuses; see docs/security.md


@dataclass(frozen=True, slots=True)
class Formats:
    """What is allowed. `name` stands for it in a refusal; `shown_containers` is how the client reads `demuxers`."""

    name: str
    decoders: tuple[str, ...]
    """FFmpeg's names."""
    demuxers: frozenset[str]
    """FFmpeg's names."""
    shown_containers: str


MODERN = Formats(
    "modern",
    ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg"),
    frozenset({"mov", "matroska", "avi", "mpegts"}),
    "MP4/MOV/3GP, Matroska/WebM, AVI or MPEG-TS",
)
UNCONFINED = Formats(
    "unconfined",
    (
        *("h264", "hevc", "vp8", "vp9", "libdav1d", "av1"),
        *("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4", "h263", "flv", "mjpeg"),
        *("wmv1", "wmv2", "wmv3", "vc1", "gif", "ffv1", "rawvideo"),
    ),
    MODERN.demuxers | {"flv", "mpeg", "mpegvideo", "gif", "asf", "yuv4mpegpipe", "nut", "obu", "h264", "hevc", "m4v"},
    "MP4/MOV/3GP, Matroska/WebM, AVI, FLV, MPEG-TS/PS, GIF (animated), ASF/WMV, NUT, Y4M "
    "or a raw H.264, HEVC, AV1 or MPEG-4 stream",
)
"""The profile `wide` where the decoder is not confined."""
WIDE = Formats(
    "wide",
    (*UNCONFINED.decoders, "prores", "dnxhd", "theora"),
    UNCONFINED.demuxers | {"ogg", "ivf", "mxf"},
    UNCONFINED.shown_containers.replace("NUT, Y4M", "NUT, Y4M, Ogg, IVF, MXF"),
)
"""The profile `wide` in a process that is confined: a hole in the rarer parts of FFmpeg does less harm there."""

FORMATS: Mapping[str, Formats] = {each.name: each for each in (MODERN, UNCONFINED, WIDE)}


def formats_of(profile: CodecProfile, layers: tuple[str, ...]) -> Formats:
    """What this profile allows where these layers of the sandbox hold (handlers.decode.sandbox.LAYERS)."""
    if profile == "modern":
        return MODERN
    return WIDE if _CONFINING_LAYER in layers else UNCONFINED
