"""`python -m scripts.watch` before a scripted server: what is printed, how it ends, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scripts import watch
from tests.support.fake_server import FakeServer, described, refusal
from tests.support.live_http import looped_camera
from tests.support.paths import REPOSITORY
from tests.support.videos import VideoPlan, make_video

CAMERA = make_video(VideoPlan(num_frames=60, gop=15, width=96, height=80))


@pytest.fixture
def serving(fake: FakeServer, full_answer: dict[str, Any]) -> FakeServer:
    def answer(asked: Any) -> tuple[int, Any]:
        if asked.path == "/models":
            return 200, {"models": [{"modelName": "m"}]}
        return (200, [described("1.0")]) if asked.method == "GET" else (200, full_answer)

    fake.answer = answer
    return fake


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording.mp4"
    path.write_bytes(CAMERA)
    return path


def arguments(fake: FakeServer, source: Path | str, *more: str) -> list[str]:
    addresses = ["--url", fake.url, "--management-url", fake.url, "--token", "t"]
    return [str(source), *addresses, "--window-sec", "0.4", "--waiting", "100", *more]


def test_a_line_for_each_window_and_a_summary(
    serving: FakeServer, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only model that is served need not be named."""
    assert watch.main(arguments(serving, recording, "--speed", "10")) == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert len(lines) == 5
    assert lines[0].endswith("  pan left 0.50, static 0.10")
    assert output.err.splitlines()[-1].startswith("5 windows with labels, 0 skipped, in ")


def test_json_has_a_line_for_each_event(
    serving: FakeServer, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(serving, recording, "--speed", "10", "--model", "m", "--stride-sec", "0.8", "--json")
    assert watch.main(command) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["event"] for each in events] == ["window", "window", "window", "end"]
    assert [each["start_sec"] for each in events[:3]] == [0, 0.8, 1.6]
    assert events[0]["predictions"][0] == {"label": "pan left", "score": 0.5, "class_id": 3}
    assert datetime.fromisoformat(events[0]["start_time"]).utcoffset() is not None
    assert "answer" not in events[0]
    assert {name: events[-1][name] for name in ("reason", "windows", "skipped")} == {
        "reason": "ended",
        "windows": 3,
        "skipped": 0,
    }


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--stride-sec", "-1"], "stride_sec must be a positive number"),
        (["--smooth", "0"], "smooth must be at least 1"),
        (["--duration-sec", "0"], "--duration-sec must be positive"),
    ],
)
def test_wrong_usage_is_2(
    serving: FakeServer, recording: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        watch.main(arguments(serving, recording, *more))
    assert raised.value.code == 2
    assert says in capsys.readouterr().err


def test_what_cannot_be_asked_or_opened_is_1(
    serving: FakeServer, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch.main(arguments(serving, "nothing.mp4", "--model", "m")) == 1
    assert capsys.readouterr().err.startswith("watch: nothing.mp4 cannot be watched: No such file")
    serving.answer = lambda asked: refusal(404, "ModelNotFoundException", "Model not found: m")
    assert watch.main(arguments(serving, recording, "--model", "m")) == 1
    assert capsys.readouterr().err == "watch: Model not found: m\n"


def test_not_one_window_with_labels_is_1(
    serving: FakeServer, recording: Path, full_answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    serving.answer = lambda asked: (
        refusal(422, "EmptyClip", "no frame there") if "x-start-sec" in asked.headers else (200, full_answer)
    )
    assert watch.main(arguments(serving, recording, "--speed", "10", "--model", "m")) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "no frame there" in output.err
    assert "0 windows with labels, 5 skipped" in output.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_summary(serving: FakeServer, number: signal.Signals) -> None:
    with looped_camera(CAMERA, speed=4) as camera:
        command = [sys.executable, "-m", "scripts.watch", *arguments(serving, camera.url, "--json")]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = json.loads(process.stdout.readline())
            assert first["event"] == "window"
            process.send_signal(number)
            events = [json.loads(line) for line in process.stdout]
            said = process.stderr.read()
            assert process.wait(timeout=60) == 0, said
    assert events[-1]["event"] == "end"
    assert events[-1]["reason"] == "stopped"
    assert "windows with labels" in said.splitlines()[-1]


def test_it_ends_after_the_duration(serving: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    with looped_camera(CAMERA, speed=4) as camera:
        assert watch.main(arguments(serving, camera.url, "--duration-sec", "1", "--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reason"] == "stopped"
