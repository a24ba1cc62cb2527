"""Live sources for longer: a real RTSP server that goes and comes back, and a soak with restarts of both ends.

The soak is as long as WATCH_SOAK_SEC says, in seconds of the stream, which runs at ten times real time: 3600 is an hour
in six minutes. Without it, ten minutes of the stream in one.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from camera_motion.sample_clips import two_part_clip
from serving.environment import REPOSITORY
from serving.server import TorchServe
from tests.support.live_http import looped_camera
from tests.support.videos import PLANS, make_video
from video_action_client import (
    VideoClient,
    WatchEvent,
    WatchLost,
    WatchReconnected,
    WatchSkipped,
    WatchWindow,
)

pytestmark = pytest.mark.slow

RTSP_SERVER = REPOSITORY / "tests" / "support" / "rtsp_server.py"
DEBIAN_PYTHON = "/usr/bin/python3"
SOAK_SEC = float(os.environ.get("WATCH_SOAK_SEC", "600"))
SPEED, STRIDE_SEC = 10, 4.0


@pytest.fixture(scope="module")
def gstreamer() -> None:
    """Skips where GStreamer's RTSP server and its bindings for Debian's Python are missing."""
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    packages = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
    found = Path(DEBIAN_PYTHON).exists() and subprocess.run(
        [DEBIAN_PYTHON, "-c", code], capture_output=True, check=False
    )
    if not found or found.returncode:
        pytest.skip(f"GStreamer's RTSP server is not installed: apt-get install {packages}")


@contextmanager
def rtsp_camera(file: Path, port: int) -> Iterator[str]:
    command = [DEBIAN_PYTHON, str(RTSP_SERVER), str(port), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield f"rtsp://127.0.0.1:{port}/camera"
        finally:
            process.kill()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Six seconds with B-frames, a key frame every second."""
    path = tmp_path / "recording.mp4"
    path.write_bytes(make_video(replace(PLANS["h264"], num_frames=180)))
    return path


def http_client(server: TorchServe) -> VideoClient:
    return VideoClient(server.inference_url, server.management_url, key_file=server.key_file)


def told(events: list[WatchEvent]) -> list[int]:
    """Every window that was told of, in order."""
    return [
        index
        for each in events
        for index in (
            [each.index]
            if isinstance(each, WatchWindow)
            else range(each.first_index, each.first_index + each.count)
            if isinstance(each, WatchSkipped)
            else []
        )
    ]


@pytest.mark.usefixtures("gstreamer")
def test_rtsp_has_the_labels_of_the_file_s_timeline(server: TorchServe, recording: Path, port: int) -> None:
    with rtsp_camera(recording, port) as url, http_client(server) as client:
        timeline = client.timeline(recording, model="x3d_xs", stride_sec=0.5)
        with client.watch(url, model="x3d_xs", stride_sec=0.5, waiting=100) as watch:
            events = list(watch)
    windows = [each for each in events if isinstance(each, WatchWindow)]
    assert len(windows) >= len(timeline.windows) - 1  # the last one may end with the stream
    assert told(events) == list(range(len(windows)))
    for window, expected in zip(windows, timeline.windows, strict=False):
        assert window.predictions == expected.predictions


@pytest.mark.usefixtures("gstreamer")
def test_an_rtsp_server_that_is_killed_is_taken_up_again(server: TorchServe, recording: Path, port: int) -> None:
    events: list[WatchEvent] = []
    with http_client(server) as client:
        with rtsp_camera(recording, port) as url:
            watch = client.watch(url, model="x3d_xs", stride_sec=0.5, waiting=100)
            for event in watch:
                events.append(event)
                if isinstance(event, WatchWindow) and event.index == 2:
                    break
        with rtsp_camera(recording, port), watch:
            for event in watch:
                events.append(event)
                if isinstance(event, WatchWindow) and any(isinstance(each, WatchReconnected) for each in events):
                    watch.stop()
    assert any(isinstance(each, WatchLost) for each in events)
    assert told(events) == list(range(len(told(events))))
    assert "lost" in {each.reason for each in events if isinstance(each, WatchSkipped)}


class Soak:
    """The command as a process of its own, its events, and how much memory it had after each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._memory = psutil.Process(process.pid)
        self.told: list[int] = []
        self.kinds: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.megabytes: list[float] = []
        self.settled: list[float] = []
        self.end: dict[str, Any] = {}

    def follow(self, until_sec: float) -> None:
        """Read events until the stream has come that far."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            self.kinds[event["event"]] += 1
            if event["event"] == "window":
                self.told.append(event["index"])
            elif event["event"] == "skipped":
                self.reasons[event["reason"]] += event["count"]
                self.told += range(event["first_index"], event["first_index"] + event["count"])
            elif event["event"] == "end":
                self.end = event
                return
            self.megabytes.append(self._memory.memory_info().rss / 2**20)
            if event.get("end_sec", 0) >= until_sec:
                return
        pytest.fail("the command ended by itself")


@pytest.mark.timeout(600 + 2 * SOAK_SEC / SPEED)
def test_soak_with_restarts_of_server_and_source(
    torchserve_installed: None, camera_motion_archive: Path, tmp_path: Path
) -> None:
    with (
        TorchServe(camera_motion_archive.parent, [camera_motion_archive.name], directory=tmp_path / "ts") as server,
        looped_camera(two_part_clip(), speed=SPEED) as camera,
    ):
        command = [sys.executable, "-m", "scripts.watch", camera.url, "--model", "camera_motion", "--json"]
        command += ["--url", server.inference_url, "--management-url", server.management_url]
        command += ["--key-file", str(server.key_file), "--stride-sec", str(STRIDE_SEC), "--smooth", "3"]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
            soak = Soak(process)
            try:
                for part in (1, 2, 3):
                    soak.follow((part - 0.7) * SOAK_SEC / 3)
                    server.stop()
                    server.start()
                    soak.follow((part - 0.4) * SOAK_SEC / 3)
                    camera.stop()
                    camera.start()
                    soak.follow(part * SOAK_SEC / 3)
                    soak.settled.append(soak.megabytes[-1])
                process.terminate()
                soak.follow(float("inf"))
                assert process.wait(timeout=60) == 0
            finally:
                process.kill()
    print(dict(soak.kinds), dict(soak.reasons), f"memory {statistics.median(soak.megabytes):.0f} MiB", soak.end)
    # Every window once, with labels or counted as skipped.
    assert soak.told == list(range(len(soak.told)))
    assert (soak.end["windows"], soak.end["skipped"]) == (
        soak.kinds["window"],
        len(soak.told) - soak.kinds["window"],
    )
    assert soak.reasons["server"] > 0
    assert (soak.kinds["lost"], soak.kinds["reconnected"], soak.end["reconnections"]) == (3, 3, 3)
    # What the first restarts take stays: clips that waited for the server, and what a new connection loads.
    print("memory after each part:", *(f"{megabytes:.1f} MiB" for megabytes in soak.settled))
    assert max(soak.settled) <= 1.05 * soak.settled[0]
