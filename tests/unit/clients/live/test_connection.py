"""Small files made of a source's packets: in them every window has exactly the frames that it has in the source."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.support.videos import PLANS, VideoPlan, frame_index, make_video
from video_action_client import SourceFailed
from video_action_client.live import connection as connection_module
from video_action_client.live.connection import Connection, still
from video_action_client.live.cutter import Cut, Cutter, LivePacket
from video_action_client.live.source import LiveSource
from video_action_client.live.stamps import stamped
from video_action_client.live.timeline import Timeline

WINDOW, STRIDE = Fraction("0.5"), Fraction("0.2")
FPS = 30


def clips_of(path: Path) -> list[tuple[Cut, bytes]]:
    """Every window of the file, cut."""
    cutter, timeline = Cutter(window_sec=WINDOW, stride_sec=STRIDE, max_bytes=2**24), Timeline()
    clips = []
    with Connection(LiveSource.of(path), timeout_sec=10) as connection:

        def take(settled: list[object]) -> None:
            for each in settled:
                assert isinstance(each, Cut)
                clips.append((each, connection.file_of(each.packets)))

        for each in stamped(connection.packets()):
            packet, unit = each.packet, connection.time_base
            placed = timeline.place(each.decode * unit, each.show * unit, 0.0)
            live = LivePacket(
                data=packet.data,
                pts=each.show,
                show_sec=placed.show_sec,
                decode_sec=placed.decode_sec,
                is_key=packet.is_key,
                duration=packet.duration,
                duration_sec=packet.duration * unit,
                head=packet.head,
                new_parameters=packet.new_parameters,
            )
            take(list(cutter.push(live)))
        take(list(cutter.finish()))
    return clips


def indices_in(clip: bytes, cut: Cut) -> list[int]:
    """The frames that the window has in the clip, by the numbers that they show."""
    with av.open(io.BytesIO(clip), "r") as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        start = stream.start_time or 0
        first = math.ceil(cut.offset_sec / stream.time_base) + start
        last = math.ceil((cut.offset_sec + WINDOW) / stream.time_base) + start
        return [
            frame_index(frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
            if frame.pts is not None and first <= frame.pts < last
        ]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("h264", "mov"),
        ("h264_mkv", "mov"),
        ("h264_flv", "mov"),
        ("h264_audio", "mov"),
        ("h264_ts", "mpegts"),
        ("hevc", "mov"),
        ("mpeg2", "mpegts"),
        ("mpeg4", "mov"),
        ("mjpeg", "mov"),
        ("vp8", "matroska"),
        ("vp9", "matroska"),
    ],
)
def test_every_window_has_the_source_s_frames(name: str, format: str, tmp_path: Path) -> None:
    """B-frames, sound beside, length-prefixed units and start codes; key frames are rarer than windows."""
    plan = replace(PLANS[name], num_frames=60, gop=20, width=160, height=120)
    path = tmp_path / name
    path.write_bytes(make_video(plan))
    clips = clips_of(path)
    assert len(clips) == 8
    for index, (cut, clip) in enumerate(clips):
        assert cut.index == index
        numbers = [number for number in range(60) if cut.start_sec <= Fraction(number, FPS) < cut.end_sec]
        assert indices_in(clip, cut) == numbers
    with av.open(io.BytesIO(clips[0][1]), "r") as container:
        assert format in container.format.name
        assert [stream.type for stream in container.streams] == ["video"]


# The same codec with another picture size, from second 1 on.
CHANGED = VideoPlan(num_frames=30, gop=10, width=160, height=120, container="mpegts")


@pytest.mark.parametrize("container", ["mpegts", "flv"])
def test_clips_after_a_change_of_parameters_can_be_decoded(container: str, tmp_path: Path) -> None:
    """MPEG-TS has them in the stream, FLV in a new header."""
    first = make_video(replace(CHANGED, container=container))
    second = make_video(replace(CHANGED, container=container, width=192, height=144, start_ms=1100))
    if container == "flv":
        second = second[13:]  # the file's header; tags follow
    path = tmp_path / "changes"
    path.write_bytes(first + second)
    clips = clips_of(path)
    sizes = []
    for cut, clip in clips:
        with av.open(io.BytesIO(clip), "r") as opened:
            frames = list(opened.decode(video=0))
        sizes.append((cut.packets[0].show_sec, frames[0].width))
        assert len(frames) == len(cut.packets)
    before = {width for show_sec, width in sizes if show_sec < 1}
    after = {width for show_sec, width in sizes if show_sec >= 1}
    assert (before, after) == ({160}, {192})


def test_bare_pictures_of_a_device_become_jpeg() -> None:
    """FFmpeg's test picture, a device without a camera: its clip has as many pictures, and they look the same."""
    source = LiveSource.of("lavfi:testsrc=size=160x120:rate=10:duration=2")
    with Connection(source, timeout_sec=10) as connection:
        packets = [
            LivePacket(
                data=each.packet.data,
                pts=each.show,
                show_sec=each.show * connection.time_base,
                decode_sec=each.decode * connection.time_base,
                is_key=each.packet.is_key,
                duration=each.packet.duration,
            )
            for each in stamped(connection.packets())
        ]
        clip = connection.file_of(packets[5:15])
    with av.open(io.BytesIO(clip), "r") as container, av.open(source.address, "r", format="lavfi") as bare:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "mjpeg"
        frames = list(container.decode(stream))
        expected = [frame.to_ndarray(format="rgb24") for frame in bare.decode(video=0)][5:15]
    assert [frame.time for frame in frames] == pytest.approx([index / 10 for index in range(10)])
    for frame, picture in zip(frames, expected, strict=True):
        difference = np.abs(frame.to_ndarray(format="rgb24").astype(int) - picture.astype(int))
        assert difference.mean() < 6


def test_a_source_without_pictures_or_with_others_than_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "not a video.mp4"
    path.write_bytes(b"not a video " * 100)
    with pytest.raises(SourceFailed, match="cannot be opened: Invalid data"):
        Connection(LiveSource.of(path), timeout_sec=5)
    path.write_bytes(make_video(VideoPlan(num_frames=2, codec="ffv1", container="matroska", b_frames=0)))
    with pytest.raises(SourceFailed, match="sends ffv1; allowed are h264, hevc"):
        Connection(LiveSource.of(path), timeout_sec=5)


def test_the_still_is_a_video_of_one_picture() -> None:
    with av.open(io.BytesIO(still()), "r") as container:
        assert len(list(container.decode(video=0))) == 1


def test_without_pyav_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceFailed, match=r"pip install 'video-action-client\[watch\]'"):
        connection_module.still()
