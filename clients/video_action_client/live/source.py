"""What can be watched, by its address: network streams, capture devices, and files played in real time."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import SourceFailed

_NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp")
_DEVICE_FORMATS = ("v4l2", "avfoundation", "dshow", "lavfi")
"""FFmpeg's names; a device is written `v4l2:/dev/video0`, `avfoundation:0`, `dshow:video=Camera`."""

# A playlist or a redirection from the network must not make FFmpeg read this machine's files.
_NETWORK_PROTOCOLS = (
    "http,https,httpproxy,tcp,tls,crypto,rtsp,rtsps,rtp,rtcp,srtp,srt,udp,rtmp,rtmps,rtmpt,ffrtmphttp,data"
)
_FILE_PROTOCOLS = "file,crypto,data"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSource:
    """An address for FFmpeg. `format` is named where it has to be, `options` are FFmpeg's;
    where a device refuses them, `other_options` are tried.

    `is_file`: read as fast as the disk is, so it is played in real time, and its end is the end.
    """

    address: str
    shown: str
    format: str | None = None
    is_file: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    other_options: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def of(cls, source: str | os.PathLike[str]) -> LiveSource:
        """Raises SourceFailed for a path that names nothing and for an address of a kind that is not known."""
        text = os.fspath(source)
        scheme, colon, rest = text.partition(":")
        if colon and scheme in _DEVICE_FORMATS:
            return cls._of_device(rest, text, scheme)
        if "://" in text:
            return cls._of_network(text)
        path = Path(text)
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise SourceFailed(f"{text} cannot be watched: {error.strerror}; {_ALLOWED}") from None
        if stat.S_ISCHR(mode):
            return cls._of_device(text, text, "v4l2")
        if stat.S_ISDIR(mode):
            raise SourceFailed(f"{text} is a folder and cannot be watched; {_ALLOWED}")
        # With the protocol's name in front, a file called `concat:x` is still a file.
        return cls(address=f"file:{text}", shown=text, is_file=True, options={"protocol_whitelist": _FILE_PROTOCOLS})

    @classmethod
    def _of_device(cls, address: str, text: str, format: str) -> LiveSource:
        """Cameras give many more pictures a second as JPEG than bare, and those need not be encoded here."""
        if format != "v4l2":
            return cls(address=address, shown=text, format=format)
        return cls(address=address, shown=text, format=format, options={"input_format": "mjpeg"}, other_options=({},))

    @classmethod
    def _of_network(cls, text: str) -> LiveSource:
        scheme = text.partition("://")[0].lower()
        if scheme == "file":
            return cls.of(urlsplit(text).path)
        if scheme not in _NETWORK_SCHEMES:
            raise SourceFailed(f"{without_password(text)} cannot be watched: {scheme} is not known; {_ALLOWED}")
        options = {"protocol_whitelist": _NETWORK_PROTOCOLS}
        if scheme in ("rtsp", "rtsps"):
            # Over TCP no packet is lost; and of what the camera has, only the pictures are asked for.
            options |= {"rtsp_transport": "tcp", "allowed_media_types": "video"}
        return cls(address=text, shown=without_password(text), options=options)


_ALLOWED = (
    f"allowed are addresses ({', '.join(f'{each}://' for each in _NETWORK_SCHEMES)}), capture devices (/dev/video0, "
    f"or {', '.join(f'{each}:NAME' for each in _DEVICE_FORMATS)}) and video files"
)


def without_password(text: str) -> str:
    """The same text with what stands before the @ of an address taken out, for messages."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)
