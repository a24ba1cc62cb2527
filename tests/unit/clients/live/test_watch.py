"""`client.watch` before a scripted server: order, bounds, what is skipped and said, sources that go and come back."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from tests.support.fake_server import Answer, Asked, FakeServer, refusal
from tests.support.live_http import looped_camera
from tests.support.videos import PLANS, VideoPlan, make_video
from video_action_client import (
    SourceFailed,
    VideoClient,
    Watch,
    WatchEnd,
    WatchEvent,
    WatchLost,
    WatchReconnected,
    WatchSkipped,
    WatchWindow,
)
from video_action_client.errors import ModelNotFound
from video_action_client.retry import NO_RETRY

CAMERA = make_video(VideoPlan(num_frames=60, gop=15, width=96, height=80))
"""Two seconds, with a key frame every half second."""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.mp4"
    path.write_bytes(CAMERA)
    return path


@contextmanager
def watching(fake: FakeServer, source: str | Path, **options: Any) -> Iterator[Watch]:
    settings = {"model": "m", "window_sec": 0.4, "stride_sec": 0.2, "waiting": 100, **options}
    with (
        VideoClient(fake.url, fake.url, token="t", retry=NO_RETRY) as client,
        client.watch(source, **settings) as watch,
    ):
        yield watch


def start_sec(asked: Asked) -> float | None:
    """Where the window begins in the clip; None for the still that is asked about first."""
    text = asked.headers.get("x-start-sec")
    return None if text is None else round(float(text), 3)


def indices(events: list[WatchEvent]) -> list[int]:
    """Every window that was told of, in order."""
    told: list[int] = []
    for event in events:
        if isinstance(event, WatchWindow):
            told.append(event.index)
        elif isinstance(event, WatchSkipped):
            told += range(event.first_index, event.first_index + event.count)
    return told


def labelled(full_answer: dict[str, Any], label: str, score: float) -> Answer:
    return 200, full_answer | {"predictions": [{"label": label, "score": score, "class_id": len(label)}]}


def test_a_file_is_played_in_real_time_and_every_window_is_asked_about(
    fake: FakeServer, full_answer: dict[str, Any], recording: Path
) -> None:
    fake.answer = lambda asked: (200, full_answer)
    before = datetime.now(UTC)
    began_at = time.monotonic()
    with watching(fake, recording) as watch:
        events = list(watch)
    assert time.monotonic() - began_at >= 1.9  # two seconds but for the last frame
    windows = [each for each in events if isinstance(each, WatchWindow)]
    assert [each.index for each in windows] == list(range(9))
    assert [(each.start_sec, each.end_sec) for each in windows[:2]] == [(0, 0.4), (0.2, 0.6)]
    for one, next_one in pairwise(windows):
        assert one.start_time < next_one.start_time
        assert (one.end_time - one.start_time).total_seconds() == pytest.approx(0.4, abs=1e-5)
    assert windows[0].start_time >= before
    assert all(each.delay_sec >= 0 for each in windows)
    end = events[-1]
    assert isinstance(end, WatchEnd)
    assert (end.reason, end.windows, end.skipped, end.reconnections) == ("ended", 9, 0, 0)
    # The still that asks what the model is like, then the windows, each with its place behind the key frame.
    assert [asked.path for asked in fake.asked] == ["/predictions/m"] * 10
    starts = sorted(float(asked.headers["x-start-sec"]) for asked in fake.asked[1:])
    assert starts == pytest.approx(sorted([0, 0.2, 0.4, 0.1, 0.3, 0, 0.2, 0.4, 0.1]), abs=1e-6)
    for asked in fake.asked[1:]:
        length = float(asked.headers["x-end-sec"]) - float(asked.headers["x-start-sec"])
        assert length == pytest.approx(0.4)


def test_the_window_is_the_model_s_clip_unless_it_is_given(
    fake: FakeServer, full_answer: dict[str, Any], recording: Path
) -> None:
    clip_sec = full_answer["sampling"]["clip_duration_sec"]
    fake.answer = lambda asked: (200, full_answer)
    with watching(fake, recording, window_sec=None, stride_sec=None) as watch:
        assert watch.window_sec == clip_sec
    with watching(fake, recording, window_sec=3 * clip_sec) as watch:
        assert watch._every["num_clips"] == 3


def test_answers_are_told_in_the_order_of_windows(
    fake: FakeServer, full_answer: dict[str, Any], recording: Path
) -> None:
    """The first window is answered after the second one."""
    second_came = threading.Event()

    def answer(asked: Asked) -> Answer:
        start = start_sec(asked)
        if start == 0 and not second_came.wait(30):
            return refusal(400, "InvalidOption", "the second window never came")
        if start == 0.2:
            second_came.set()
        return 200, full_answer

    fake.answer = answer
    with watching(fake, recording, speed=10) as watch:
        events = list(watch)
    assert indices(events) == list(range(9))
    assert sum(isinstance(each, WatchWindow) for each in events) == 9


def test_what_cannot_be_kept_up_with_is_skipped_and_said(
    fake: FakeServer, full_answer: dict[str, Any], recording: Path
) -> None:
    """The server answers once the whole recording has been read: two are asked about, the newest two wait."""
    read_to_the_end = threading.Event()

    def answer(asked: Asked) -> Answer:
        if "x-start-sec" in asked.headers:
            read_to_the_end.wait(30)
        return 200, full_answer

    fake.answer = answer
    with watching(fake, recording, speed=20, waiting=2) as watch:
        watch._threads[0].join(30)
        read_to_the_end.set()
        events = list(watch)
    assert indices(events) == list(range(9))
    skipped = [each for each in events if isinstance(each, WatchSkipped)]
    assert [each.reason for each in skipped] == ["behind"]
    assert skipped[0].count == 9 - 4
    assert "longer for a window than the stride" in skipped[0].message
    assert [each.index for each in events if isinstance(each, WatchWindow)][-2:] == [7, 8]
    assert isinstance(events[-1], WatchEnd)
    assert (events[-1].windows, events[-1].skipped) == (4, 5)


def test_a_refused_window_and_a_server_that_fails_cost_that_window_alone(
    fake: FakeServer, full_answer: dict[str, Any], recording: Path
) -> None:
    number = 0

    def answer(asked: Asked) -> Answer:
        nonlocal number
        number += 1
        if number == 3:
            return refusal(422, "EmptyClip", "there is no frame")
        if number == 5:
            return refusal(503, "InternalServerException", "Prediction failed")
        return 200, full_answer

    fake.answer = answer
    with watching(fake, recording, speed=10, under_way=1) as watch:
        events = list(watch)
    assert indices(events) == list(range(9))
    skipped = [(each.first_index, each.reason, each.message) for each in events if isinstance(each, WatchSkipped)]
    assert skipped == [(1, "refused", "there is no frame"), (3, "server", "Prediction failed")]


def test_the_source_or_the_model_that_is_not_there_is_an_error_at_once(
    fake: FakeServer, full_answer: dict[str, Any], recording: Path
) -> None:
    fake.answer = lambda asked: (200, full_answer)
    with pytest.raises(SourceFailed, match="No such file"), watching(fake, "nothing.mp4"):
        pass
    with (
        pytest.raises(SourceFailed, match=r"http://127.0.0.1:9/live cannot be opened: Connection refused") as raised,
        watching(fake, "http://me:secret@127.0.0.1:9/live"),
    ):
        pass
    assert "secret" not in raised.value.message
    fake.answer = lambda asked: refusal(404, "ModelNotFoundException", "Model not found: m")
    with pytest.raises(ModelNotFound), watching(fake, recording):
        pass


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"stride_sec": 0}, "stride_sec must be a positive"),
        ({"window_sec": float("nan")}, "window_sec must be a positive"),
        ({"smooth": 0}, "smooth must be at least 1"),
        ({"speed": -1}, "speed must be positive"),
    ],
)
def test_impossible_options_are_refused(fake: FakeServer, recording: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why), watching(fake, recording, **options):
        pass


def test_labels_are_smoothed_over_windows(fake: FakeServer, full_answer: dict[str, Any], recording: Path) -> None:
    """Asked for all labels, as many as the model's description says; without it, those that the server lists."""
    odd: dict[float | None, float] = {0.4: 0.1}  # windows 2 and 7

    def answer(asked: Asked) -> Answer:
        if asked.method == "GET":
            return refusal(404, "ResourceNotFoundException", "no management here")
        score = odd.get(start_sec(asked), 0.9)
        return labelled(full_answer, "usual" if score == 0.9 else "odd", score)

    fake.answer = answer
    with watching(fake, recording, speed=10, smooth=3, threshold=0.2) as watch:
        windows = [each for each in watch if isinstance(each, WatchWindow)]
    assert {each.predictions[0].label for each in windows} == {"usual"}
    assert windows[2].answer.top.label == "odd"
    assert windows[2].predictions[0].score == pytest.approx(0.6)
    assert len(windows[2].predictions) == 1  # "odd" has a mean of 0.03


def test_hls_is_followed_over_its_segments(fake: FakeServer, full_answer: dict[str, Any], tmp_path: Path) -> None:
    """A playlist that says that it is complete is a recording: it is played, and its end is the end."""
    with av.open(io.BytesIO(CAMERA), "r") as source:
        options = {"hls_time": "0.5", "hls_list_size": "0", "hls_playlist_type": "vod"}
        with av.open(str(tmp_path / "list.m3u8"), "w", format="hls", options=options) as playlist:
            stream = playlist.add_stream_from_template(source.streams.video[0], opaque=True)
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    playlist.mux(packet)
    assert len(list(tmp_path.glob("*.ts"))) == 4
    fake.answer = lambda asked: (200, full_answer)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with watching(fake, f"http://127.0.0.1:{server.server_address[1]}/list.m3u8", speed=10) as watch:
            events = list(watch)
        server.shutdown()
    assert [each.index for each in events if isinstance(each, WatchWindow)] == list(range(9))
    assert isinstance(events[-1], WatchEnd)
    assert events[-1].reason == "ended"


def test_a_lost_source_is_taken_up_again(fake: FakeServer, full_answer: dict[str, Any]) -> None:
    fake.answer = lambda asked: (200, full_answer)
    events: list[WatchEvent] = []
    with looped_camera(CAMERA, speed=4) as camera, watching(fake, camera.url) as watch:
        for event in watch:
            events.append(event)
            if isinstance(event, WatchWindow) and event.index == 5:
                camera.stop()
            if isinstance(event, WatchLost):
                camera.start()
            reconnected = any(isinstance(each, WatchReconnected) for each in events)
            if reconnected and isinstance(event, WatchWindow):
                watch.stop()
    kinds = [type(each) for each in events]
    lost, found = kinds.index(WatchLost), kinds.index(WatchReconnected)
    assert lost < found
    assert indices(events) == list(range(len(indices(events))))
    skipped = [each for each in events if isinstance(each, WatchSkipped) and each.reason == "lost"]
    assert skipped
    end = events[-1]
    assert isinstance(end, WatchEnd)
    assert (end.reason, end.reconnections) == ("stopped", 1)
    assert end.windows + end.skipped == len(indices(events))


def test_a_source_that_hangs_is_lost(fake: FakeServer, full_answer: dict[str, Any]) -> None:
    fake.answer = lambda asked: (200, full_answer)
    with (
        looped_camera(CAMERA, speed=10, most_loops=3, hangs=True) as camera,
        watching(fake, camera.url, source_timeout_sec=1) as watch,
    ):
        lost = next(each for each in watch if isinstance(each, WatchLost))
    assert "cannot be read: nothing came for 1 s" in lost.message


def test_a_source_that_stays_away_is_given_up(fake: FakeServer, full_answer: dict[str, Any]) -> None:
    fake.answer = lambda asked: (200, full_answer)
    with looped_camera(CAMERA, speed=10, most_loops=1) as camera, watching(fake, camera.url, give_up_sec=0.3) as watch:
        told = iter(watch)
        first = next(told)
        assert isinstance(first, WatchWindow)
        camera.stop()
        with pytest.raises(SourceFailed, match=r"given up after 0\.3 s"):
            list(told)
        camera.start()


def test_stopping_tells_what_was_left_and_ends(fake: FakeServer, full_answer: dict[str, Any]) -> None:
    fake.answer = lambda asked: (200, full_answer)
    with looped_camera(CAMERA, speed=10) as camera, watching(fake, camera.url) as watch:
        events = []
        for event in watch:
            events.append(event)
            if len(events) == 4:
                watch.stop()
    assert isinstance(events[-1], WatchEnd)
    assert events[-1].reason == "stopped"
    assert indices(events) == list(range(len(indices(events))))
    for thread in watch._threads:
        thread.join(15)
        assert not thread.is_alive()


def test_a_broken_recording_is_an_error_not_an_endless_loop(
    fake: FakeServer, full_answer: dict[str, Any], tmp_path: Path
) -> None:
    fake.answer = lambda asked: (200, full_answer)
    path = tmp_path / "cut off.ts"
    path.write_bytes(make_video(PLANS["h264_ts"])[:-20_000])
    with watching(fake, path, speed=20) as watch:
        events = list(watch)
    assert isinstance(events[-1], WatchEnd)
    assert events[-1].reason == "ended"
