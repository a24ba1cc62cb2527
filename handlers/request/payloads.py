"""The value that stands where a video is expected -> the file's bytes: sizes and base64 are checked here."""

from __future__ import annotations

import binascii

from handlers.errors import InvalidEncoding, MissingVideo, VideoTooLarge
from handlers.limits import Limits
from handlers.request.options import kind_of

VIDEO_FIELDS = ("data", "body", "video")
"""Names under which the video's bytes may come."""
_BLANKS = " \t\r\n\f\v"


def payload_bytes(payload: object, limits: Limits) -> bytes:
    """The file's bytes; text is base64. Raises MissingVideo, InvalidEncoding or VideoTooLarge."""
    if payload is None or payload in ("", b""):
        raise MissingVideo(f"there is no video in this request; send it as the body or as {data_key()}")
    if isinstance(payload, bytes | bytearray):
        _check_size(len(payload), limits)
        return bytes(payload)
    if not isinstance(payload, str):
        raise InvalidEncoding(f"{data_key()} must be base64 text, got {kind_of(payload)}")
    return _from_base64(payload, limits)


def _from_base64(text: str, limits: Limits) -> bytes:
    """Standard base64, with padding; line breaks are allowed, and a `data:...;base64,` in front."""
    if text[:5].lower() == "data:":
        header, comma, text = text.partition(",")
        if not comma or not header.lower().endswith(";base64"):
            raise InvalidEncoding("a data: URL must be of the form data:<media type>;base64,<base64 text>")
    size = len(text) - sum(text.count(blank) for blank in _BLANKS)
    if not size:
        raise MissingVideo("the base64 text of the video is empty")
    _check_size(size * 3 // 4 - 2, limits)  # before anything of it is copied
    try:
        encoded = text.encode("ascii")
        if size < len(encoded):
            encoded = encoded.translate(None, _BLANKS.encode())
        if size % 4 or encoded.endswith(b"==="):  # Python 3.11 lets surplus padding pass
            raise ValueError
        payload = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:  # binascii.Error is one, and UnicodeEncodeError another
        raise InvalidEncoding(f"{data_key()} is not valid base64 (standard alphabet, with padding)") from None
    _check_size(len(payload), limits)
    return payload


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.max_video_bytes:
        raise VideoTooLarge(f"the video has {size} bytes; at most {limits.max_video_bytes} are allowed")


def data_key() -> str:
    return VIDEO_FIELDS[0]
