"""Files that try to make a media library open something else, or cost memory and time; made here, byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from tests.support.paths import CORPUS
from tests.support.videos import VideoPlan, make_video

LISTENER_PORT = 18473
"""Where files that call out connect to, on 127.0.0.1; the shared corpus's hostile files name it too."""

CANARY_PATH = "/srv/canaries/.canary/secret.txt"
"""What they try to read; likewise."""


def corpus_classes() -> dict[str, str]:
    """The shared corpus's hostile files -> `ok`, `4xx` or `either`; empty where it is missing."""
    path = CORPUS / "hostile" / "expected.json"
    if not path.is_file():
        return {}
    return {name: str(entry["expect"]) for name, entry in json.loads(path.read_text()).items()}


def calling_files() -> Mapping[str, bytes]:
    """Playlists, scripts and references that name a local file or an address."""
    here, canary = f"127.0.0.1:{LISTENER_PORT}", CANARY_PATH
    texts = {
        "hls_file.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{canary}\n#EXT-X-ENDLIST\n",
        "hls_http.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://{here}/a.ts\n#EXT-X-ENDLIST\n",
        "concat.txt": f"ffconcat version 1.0\nfile '{canary}'\n",
        "concat_relative.txt": "ffconcat version 1.0\nfile canary.mp4\n",
        "session.sdp": f"v=0\r\no=- 0 0 IN IP4 {here.split(':')[0]}\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        f"m=video {LISTENER_PORT + 1} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        "dash.mpd": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
        f'<Representation id="1"><BaseURL>http://{here}/v.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "reference.asx": f"[Reference]\r\nRef1=http://{here}/a.asf\r\n",
        "url.txt": f"http://{here}/v.mp4",
        "path.txt": canary,
    }
    files = {name: text.encode() for name, text in texts.items()}
    files["data_reference.mov"] = _external_reference(make_video(VideoPlan(num_frames=4)))
    # A playlist behind the first bytes of a real container.
    files["playlist_in_mp4.mp4"] = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + files["hls_file.m3u8"]
    files["playlist_in_avi.avi"] = b"RIFF\xff\xff\0\0AVI " + files["hls_http.m3u8"]
    return files


def costly_files() -> Mapping[str, bytes]:
    """Headers that declare far more than the file holds."""
    video = make_video(VideoPlan(num_frames=8))
    return {
        "size.y4m": b"YUV4MPEG2 W30000 H30000 F25:1 C420jpeg\nFRAME\n" + bytes(4096),
        "size.gif": b"GIF89a" + struct.pack("<HH", 60000, 60000) + b"\x80\0\0\0\0\0\xff\xff\xff" + _gif_frame() * 2,
        "table.mp4": _lying_table(video, b"stsz", 12, 200_000_000),
        "chunks.mp4": _lying_table(video, b"stco", 8, 0x0FFFFFFF),
        "times.mp4": _lying_table(video, b"stts", 12, 0x7FFFFFFF),
        "size.mp4": _tall(video),
        "box.mp4": video[:32] + struct.pack(">I4sQ", 1, b"moov", 2**62) + video[32:],
        "element.mkv": b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xfe" + bytes(2000),
        "nested.mp4": video[:32] + b"\0\xff\xff\xffmoov" + b"\0\xff\xff\xffudta" * 20_000,
        "packets.ts": (b"\x47\x40\x00\x10" + bytes(184)) * 20_000,
    }


def _external_reference(video: bytes) -> bytes:
    """The mp4 with its samples said to be in another file, named by URL."""
    url = f"http://127.0.0.1:{LISTENER_PORT}/a.mp4\0".encode()
    entry = video.index(b"url \0\0\0\1")
    return video[: entry + 4] + b"\0\0\0\0" + url + video[entry + 8 + len(url) :]


def _lying_table(video: bytes, box: bytes, offset: int, count: int) -> bytes:
    """A sample table's box with another number written at `offset` after its name."""
    at = video.index(box) + offset
    return video[:at] + struct.pack(">I", count) + video[at + 4 :]


def _tall(video: bytes) -> bytes:
    """A video sample entry that declares 65535 x 65535 pixels."""
    at = video.index(b"avc1", video.index(b"stsd")) + 28
    return video[:at] + b"\xff\xff\xff\xff" + video[at + 4 :]


def _gif_frame() -> bytes:
    return b"\x2c\0\0\0\0" + struct.pack("<HH", 60000, 60000) + b"\0\2\2\x44\x01\0\x3b"
