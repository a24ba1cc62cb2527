"""Files are known by their first bytes."""

from __future__ import annotations

import pytest

from handlers.errors import UnsupportedVideo
from handlers.video.containers import identify
from tests.support.videos import PLANS, make_video

EXPECTED = {
    "h264": "mov",
    "h264_mkv": "matroska",
    "h264_ts": "mpegts",
    "h264_flv": "flv",
    "mpeg4_avi": "avi",
    "vp8": "matroska",
}


@pytest.mark.parametrize(("plan", "demuxer"), EXPECTED.items())
def test_real_files(plan: str, demuxer: str) -> None:
    assert identify(make_video(PLANS[plan])).demuxer == demuxer


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (b"GIF89a" + bytes(10), "gif"),
        (b"YUV4MPEG2 W16 H16", "yuv4mpegpipe"),
        (b"\x00\x00\x00\x01\x67\x64\x00\x1f", "h264"),
        (b"\x00\x00\x00\x01\x09\xf0\x00\x00", "h264"),
        (b"\x00\x00\x00\x01\x40\x01\x0c\x01", "hevc"),
        (b"\x00\x00\x01\xb0\x01\x00\x00\x01", "m4v"),
        (b"\x00\x00\x01\xba\x44\x00\x04\x00", "mpeg"),
        (b"\x12\x00\x0a\x0a\x00\x00\x00", "obu"),
        (b"nut/multimedia container\x00", "nut"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    ],
)
def test_heads(head: bytes, demuxer: str) -> None:
    assert identify(head).demuxer == demuxer


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"hello, world",
        b"#EXTM3U\n#EXT-X-VERSION:3\n",
        b"ffconcat version 1.0\nfile canary.mp4\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n" + bytes(20),
        b"\xff\xd8\xff\xe0" + bytes(20),
        b"BM" + bytes(20),
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"OggS" + bytes(30),
        b"ID3\x04" + bytes(30),
        b"\x47" + bytes(400),
        b"\x00\x00\x00\x01\x67\x2b\xa8\xe4",
    ],
)
def test_everything_else_is_refused_with_what_is_allowed(payload: bytes) -> None:
    with pytest.raises(UnsupportedVideo, match="allowed: MP4"):
        identify(payload)
