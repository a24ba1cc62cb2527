"""Files on which the default differs from the recipe on purpose, beyond what test_faults.py and test_sampled_video.py
have: see docs/exactness.md."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from handlers.errors import RequestError
from handlers.specs import get_spec
from handlers.video.recipe import open_encoded_video
from tests.support.frames import sampled_frames

SPEC = get_spec("x3d_xs")
TITLE = "a title of 24 characters"


def test_a_cover_picture_before_the_video_is_not_the_video(h264_video: bytes) -> None:
    video = with_cover_first(h264_video)
    with av.open(io.BytesIO(video), "r") as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg", "h264"]
    frames, _ = sampled_frames(video, SPEC)
    assert frames == sampled_frames(h264_video, SPEC)[0]


def test_text_that_is_not_utf8_is_ignored(h264_video: bytes) -> None:
    video = titled(h264_video)
    assert video.count(TITLE.encode()) == 1
    video = video.replace(TITLE.encode(), b"\xff\xfe" * (len(TITLE) // 2))
    with pytest.raises((RequestError, UnicodeDecodeError)):
        open_encoded_video(video)
    frames, _ = sampled_frames(video, SPEC)
    assert frames == sampled_frames(h264_video, SPEC)[0]


def with_cover_first(video: bytes) -> bytes:
    """The mp4 with a cover picture whose box lies before that of the video, so that it is the first stream."""
    target = io.BytesIO()
    with av.open(io.BytesIO(video), "r") as original, av.open(target, "w", format="mp4") as copy:
        stream: Any = copy.add_stream_from_template(original.streams.video[0])
        cover: Any = copy.add_stream("mjpeg")
        cover.width = cover.height = 64
        cover.pix_fmt = "yuvj420p"
        cover.disposition = Disposition.attached_pic
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
        picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, dtype=np.uint8), format="rgb24")
        copy.mux(cover.encode(picture) + cover.encode(None))
    # `moov` is the last box: what is inside it can change places without moving the frames.
    order = {b"mvhd": 0, b"udta": 1}
    parts = []
    for kind, box in boxes(target.getvalue()):
        if kind == b"moov":
            inner = sorted(boxes(box[8:]), key=lambda entry: order.get(entry[0], 2))
            box = box[:8] + b"".join(each for _, each in inner)
        parts.append(box)
    return b"".join(parts)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, the box with its header) of every box of an mp4, one after the other."""
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at : at + size]
        at += size


def titled(video: bytes) -> bytes:
    """The video in Matroska, with a title."""
    target = io.BytesIO()
    with av.open(io.BytesIO(video), "r") as original, av.open(target, "w", format="matroska") as copy:
        copy.metadata["title"] = TITLE
        stream: Any = copy.add_stream_from_template(original.streams.video[0])
        for packet in original.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return target.getvalue()
