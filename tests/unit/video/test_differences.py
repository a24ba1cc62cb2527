"""Files on which the default differs from the recipe on purpose, beyond what test_faults.py and test_sampled_video.py
have: see docs/exactness.md."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from handlers.errors import RequestError
from handlers.specs import get_spec
from handlers.video.recipe import open_encoded_video, read_clip
from handlers.video.sampling import Sampling
from handlers.video.transforms import subsample_indices
from tests.support.frames import picked_frames, sampled_frames
from tests.support.videos import VideoPlan, decode_indices, frame_index, frame_indices, make_video

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


def test_a_first_frame_whose_key_frame_is_cut_away_is_shown() -> None:
    """Players show it, and FFmpeg decodes it; the recipe seeks to 0 and lands on the key frame after it."""
    video = cut_after_its_key_frame()
    with av.open(io.BytesIO(video), "r") as container:
        first, second, third = (packet for packet, _ in zip(container.demux(video=0), range(3), strict=False))
    assert (first.is_keyframe, first.is_discard, second.is_keyframe, third.is_keyframe) == (True, True, True, False)
    assert third.pts == 0
    assert decode_indices(video)[:3] == [1, 2, 3]
    found, _ = picked_frames(lambda frame: frame_index(frame.load().array()), video, SPEC, Sampling())
    assert found[0] == [1 + index for index in subsample_indices(48, SPEC.num_frames)]  # 1.6 s at 30 per second
    clip = read_clip(open_encoded_video(video), 0, SPEC.clip_duration_sec)
    assert frame_indices(clip.permute(1, 2, 3, 0).numpy()) == list(range(2, 49))


def cut_after_its_key_frame() -> bytes:
    """An mp4 of I and B frames in turn whose edit list begins after the first I: the first B needs it and is shown."""
    x264 = "keyint=2:min-keyint=1:open-gop=1:bframes=1:b-adapt=0:scenecut=0"
    whole = make_video(VideoPlan(num_frames=61, gop=2, b_frames=1, options={"x264-params": x264}))
    target = io.BytesIO()
    with av.open(io.BytesIO(whole), "r") as original, av.open(target, "w", format="mp4") as copy:
        source: Any = original.streams.video[0]
        stream: Any = copy.add_stream_from_template(source)
        step = int(1 / (Fraction(30) * source.time_base))
        for packet in original.demux(source):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - step, packet.dts - step, stream
                copy.mux(packet)
    return target.getvalue()


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
