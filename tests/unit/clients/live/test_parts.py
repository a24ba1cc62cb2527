"""Timestamps, times of day, smoothing, parameter sets and addresses of live sources."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.support.videos import PLANS, make_video
from video_action_client import ScoredLabel, SourceFailed
from video_action_client.live.connection import Encoded
from video_action_client.live.parameters import ParameterSets, is_annex_b
from video_action_client.live.smoothing import Smoothing
from video_action_client.live.source import LiveSource
from video_action_client.live.stamps import stamped
from video_action_client.live.timeline import Timeline, TimesOfDay


def test_the_first_picture_is_second_zero() -> None:
    timeline = Timeline()
    placed = timeline.place(Fraction(1000), Fraction("1000.08"), 5.0)
    assert (placed.show_sec, placed.decode_sec, placed.jumped) == (Fraction(0), Fraction("-0.08"), False)
    assert timeline.place(Fraction("1000.04"), Fraction("1000.04"), 5.0).show_sec == Fraction("-0.04")


@pytest.mark.parametrize("to_sec", [0, 95443, 1000 + 11])
def test_a_jump_is_replaced_by_the_time_that_passed(to_sec: int) -> None:
    """Back to zero, as after 26.5 hours of MPEG-TS; or forward."""
    timeline = Timeline()
    timeline.place(Fraction(1000), Fraction(1000), 50.0)
    placed = timeline.place(Fraction(to_sec), Fraction(to_sec), 50.25)
    assert placed.jumped
    assert placed.show_sec == Fraction("0.25")
    after = timeline.place(Fraction(to_sec + 1), Fraction(to_sec + 1), 50.25)
    assert (after.show_sec, after.jumped) == (Fraction("1.25"), False)


def test_another_connection_goes_on_with_the_time_that_passed() -> None:
    timeline = Timeline()
    timeline.place(Fraction(10), Fraction(10), 100.0)
    timeline.place(Fraction(12), Fraction(12), 102.0)
    timeline.begin_anew()
    placed = timeline.place(Fraction(0), Fraction(0), 109.0)
    assert (placed.show_sec, placed.jumped) == (Fraction(9), False)


def test_times_of_day_follow_the_packet_that_came_soonest() -> None:
    times = TimesOfDay()
    times.note(Fraction(0), 1_000_000.9)  # late
    times.note(Fraction(1), 1_000_001.2)
    times.note(Fraction(2), 1_000_002.7)
    assert times.of(Fraction(3)) == datetime.fromtimestamp(1_000_003.2, tz=UTC)


def test_times_of_day_follow_a_slow_clock() -> None:
    """The camera's clock loses a hundredth: after an hour the times are not off by the 36 s that it has lost."""
    times = TimesOfDay()
    for second in range(3600):
        times.note(Fraction(second) * Fraction(99, 100), 1_000_000.0 + second)
    late = times.of(Fraction(3599) * Fraction(99, 100)).timestamp() - 1_003_599.0
    assert -0.7 < late <= 0


def encoded(pts: int | None, dts: int | None) -> Encoded:
    return Encoded(data=b"", pts=pts, dts=dts, duration=3000, is_key=False, head=b"", new_parameters=None)


def test_missing_timestamps_are_found() -> None:
    """As GStreamer's RTSP server gives them, with two B-frames."""
    given = [(None, None), (9000, None), (3000, None), (6000, 3000), (18000, 6000), (None, None)]
    found = [(each.decode, each.show) for each in stamped(encoded(*each) for each in given)]
    assert found == [(0, 0), (9000, 9000), (3000, 3000), (3000, 6000), (6000, 18000), (21000, 21000)]
    assert [each.show for each in stamped([encoded(None, None), encoded(7000, None)])] == [4000, 7000]
    with pytest.raises(SourceFailed, match="no timestamps"):
        list(stamped([encoded(None, None)] * 50))


def label(name: str, score: float, class_id: int) -> ScoredLabel:
    return ScoredLabel(name, score, class_id)


def test_smoothing_is_the_mean_over_the_latest_windows() -> None:
    smoothing = Smoothing(2)
    assert smoothing.add([label("a", 0.9, 0), label("b", 0.1, 1)])[0] == label("a", 0.9, 0)
    assert smoothing.add([label("b", 0.8, 1), label("a", 0.2, 0)]) == (label("a", 0.55, 0), label("b", 0.45, 1))
    assert smoothing.add([label("b", 1.0, 1)])[0] == label("b", 0.9, 1)
    smoothing.clear()
    assert smoothing.add([label("c", 0.5, 2)]) == (label("c", 0.5, 2),)


@pytest.mark.parametrize("name", ["h264_ts", "hevc"])
def test_parameter_sets_are_put_before_key_frames_that_lack_them(name: str) -> None:
    """The packets of MPEG-TS have them; taken out of one, they come from the packet before."""
    video = make_video(PLANS[name])
    if name == "hevc":
        video = remuxed(video, "mpegts")
    with av.open(io.BytesIO(video), "r") as container:
        stream = container.streams.video[0]
        packets = [bytes(each) for each in container.demux(stream) if each.is_keyframe and each.size]
        sets = ParameterSets(stream.codec.canonical_name, b"")
    assert is_annex_b(packets[0])
    assert sets.note(packets[0]) == b""
    picture = packets[1][packets[1].rfind(b"\x00\x00\x01") :]
    head = sets.note(picture)
    assert head.count(b"\x00\x00\x00\x01") == (2 if name == "h264_ts" else 3)
    assert sets.note(head + picture) == b""


def remuxed(video: bytes, format: str) -> bytes:
    file = io.BytesIO()
    with av.open(io.BytesIO(video), "r") as source, av.open(file, "w", format=format) as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nothing/there.mp4", "No such file"),
        ("gopher://camera/1", "gopher is not known"),
        ("concat:a.ts|b.ts", "No such file"),
        (".", "is a folder"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_what_can(text: str, why: str) -> None:
    with pytest.raises(SourceFailed, match=why) as raised:
        LiveSource.of(text)
    assert "allowed are addresses (rtsp://" in raised.value.message


def test_messages_hold_no_password() -> None:
    source = LiveSource.of("rtsp://admin:secret@camera/stream")
    assert source.shown == "rtsp://camera/stream"
    assert source.address == "rtsp://admin:secret@camera/stream"


def test_a_playlist_from_the_network_cannot_read_files(tmp_path: Path) -> None:
    allowed = LiveSource.of("http://camera/live.m3u8").options["protocol_whitelist"].split(",")
    assert "file" not in allowed
    (tmp_path / "clip.mp4").touch()
    assert LiveSource.of(tmp_path / "clip.mp4").options == {"protocol_whitelist": "file,crypto,data"}
