"""Live sources before a real TorchServe: the labels are those of the same windows of the whole file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from camera_motion.sample_clips import PARTS, two_part_clip
from serving.server import TorchServe
from tests.support.live_http import looped_camera
from tests.support.videos import PLANS, make_video
from video_action_client import GrpcVideoClient, VideoClient, WatchEnd, WatchEvent, WatchSkipped, WatchWindow

MOVING = replace(PLANS["h264"], num_frames=105, gop=40)
"""Three and a half seconds with B-frames; key frames are farther apart than the windows."""


def http_client(server: TorchServe) -> VideoClient:
    return VideoClient(server.inference_url, server.management_url, key_file=server.key_file)


def grpc_client(server: TorchServe) -> GrpcVideoClient:
    return GrpcVideoClient(
        f"127.0.0.1:{server.grpc_inference_port}",
        f"127.0.0.1:{server.grpc_management_port}",
        http_management_url=server.management_url,
        key_file=server.key_file,
    )


def windows_of(events: list[WatchEvent]) -> list[WatchWindow]:
    assert [each for each in events if isinstance(each, WatchSkipped)] == []
    return [each for each in events if isinstance(each, WatchWindow)]


@pytest.mark.parametrize(("plan", "speed"), [("mp4", 1), ("mpegts", 3), ("matroska", 3)])
def test_a_played_file_has_the_labels_of_its_timeline(
    server: TorchServe, tmp_path: Path, plan: str, speed: float
) -> None:
    """To the last bit: cutting changes neither a frame nor its time."""
    path = tmp_path / f"moving.{plan}"
    path.write_bytes(make_video(replace(MOVING, container=plan)))
    with http_client(server) as client:
        timeline = client.timeline(path, model="x3d_xs", stride_sec=0.3)
        with client.watch(path, model="x3d_xs", stride_sec=0.3, waiting=100, speed=speed) as watch:
            assert watch.window_sec == timeline.sampling.clip_duration_sec
            events = list(watch)
    windows = windows_of(events)
    assert len(windows) == len(timeline.windows) == 7
    for window, expected in zip(windows, timeline.windows, strict=True):
        assert (window.start_sec, window.end_sec) == pytest.approx((expected.start_sec, expected.end_sec))
        assert window.predictions == expected.predictions
    assert isinstance(events[-1], WatchEnd)


def test_over_grpc_too(server: TorchServe, tmp_path: Path) -> None:
    path = tmp_path / "moving.mp4"
    path.write_bytes(make_video(MOVING))
    with http_client(server) as http, grpc_client(server) as client:
        timeline = http.timeline(path, model="x3d_xs", stride_sec=1)
        with client.watch(path, model="x3d_xs", stride_sec=1, waiting=100, speed=2) as watch:
            windows = windows_of(list(watch))
    assert [each.predictions for each in windows] == [each.predictions for each in timeline.windows]


@pytest.mark.usefixtures("camera_motion")
def test_an_http_stream_gets_the_right_labels_smoothed(server: TorchServe) -> None:
    """The camera pans, then zooms, over and over: with all ten labels asked for, the means sum to 1."""
    with (
        looped_camera(two_part_clip(), speed=2) as camera,
        http_client(server) as client,
        client.watch(camera.url, model="camera_motion", stride_sec=1.0, smooth=2, top_k=10, waiting=100) as watch,
    ):
        windows = []
        for event in watch:
            if isinstance(event, WatchWindow):
                windows.append(event)
                if event.index == 7:
                    watch.stop()
    assert [each.index for each in windows[:8]] == list(range(8))
    assert windows[0].predictions[0].label == PARTS[0]
    assert PARTS[1] in {each.predictions[0].label for each in windows}
    for each in windows:
        assert sum(label.score for label in each.predictions) == pytest.approx(1, abs=1e-4)
