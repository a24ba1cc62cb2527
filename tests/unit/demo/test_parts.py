"""What the demo page is made of, without Gradio and without a browser: HTML, the form's request, the command line."""

from __future__ import annotations

import copy
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from demo import html, progress
from demo.progress import Progress, progress_of
from demo.requests import Form, ask, curl_line
from scripts.demo import DemoError, archives
from tests.support.fake_server import FakeServer, KeyFile
from tests.support.paths import REPOSITORY
from tests.support.streams import streamed
from video_action_client import (
    Clip,
    Prediction,
    ScoredLabel,
    StreamEnd,
    StreamSegment,
    StreamWindow,
    Timeline,
    VideoClient,
    text,
)


def styles(markup: str, name: str) -> list[dict[str, str]]:
    """The attributes of every element of that class."""
    found: list[dict[str, str]] = []

    class Finder(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            attributes = {key: value or "" for key, value in attrs}
            if attributes.get("class") == name:
                found.append(attributes)

    Finder().feed(markup)
    return found


def timeline_of(answer: dict[str, Any]) -> str:
    parsed = Timeline.from_json(answer)
    return html.timeline(parsed.segments, parsed.video.duration_sec)


def test_the_timeline_is_to_scale_and_carries_the_seconds_to_seek_to(full_answer: dict[str, Any]) -> None:
    drawn = timeline_of(full_answer)
    first, second = styles(drawn, "va-segment")
    # Windows overlap: the first segment ends at 3 s, but its block ends where the next begins, at 2 s of 4.
    assert (first["data-seek"], second["data-seek"]) == ("0.000", "2.000")
    assert "left:0.000%;width:50.000%" in first["style"]
    assert "left:50.000%;width:50.000%" in second["style"]
    assert first["aria-label"] == "pan left 70%, 0:00.00 to 0:03.00"
    assert styles(drawn, "va-timeline")[0]["data-end"] == "4.000"


def test_a_label_keeps_its_colour(full_answer: dict[str, Any]) -> None:
    full_answer["segments"] = [
        {"start_sec": float(at), "end_sec": at + 1.0, "label": label, "score": 0.5}
        for at, label in enumerate(["a", "b", "a"])
    ]
    drawn = timeline_of(full_answer)
    colours = [re.search(r"background:(#\w+)", each["style"]) for each in styles(drawn, "va-segment")]
    first, second, third = (match[1] for match in colours if match is not None)
    assert first == third != second


def test_text_on_segments_can_be_read() -> None:
    """White on every colour has a contrast of 4.5 and more (WCAG 2, level AA)."""
    for colour in html._COLOURS:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        luminance = sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        assert 1.05 / (luminance + 0.05) >= 4.5, colour


def test_everything_from_the_server_is_escaped(full_answer: dict[str, Any]) -> None:
    evil = "<img src=x onerror=\"alert('x')\">"
    marked = copy.deepcopy(full_answer)
    marked["model"] = marked["version"] = evil
    marked["video"]["codec"] = evil
    marked["video"]["warnings"] = [evil]
    for entry in (marked["predictions"][0], marked["segments"][0]):
        entry["label"] = evil
    answer = Timeline.from_json(marked)
    window = Clip(0.0, 2.0, answer.predictions)
    for markup in (
        html.bars(answer.predictions),
        html.timeline(answer.segments, 4.0),
        html.facts(answer),
        html.error(evil),
        html.progress(1, 2, window),
    ):
        assert "<img" not in markup
        assert 'onerror="' not in markup


def test_a_video_without_duration_ends_with_its_last_segment(full_answer: dict[str, Any]) -> None:
    full_answer["video"]["duration_sec"] = None
    drawn = timeline_of(full_answer)
    assert styles(drawn, "va-timeline")[0]["data-end"] == "4.000"


def test_facts_tell_the_effective_sampling_and_timing(full_answer: dict[str, Any]) -> None:
    facts = html.facts(Prediction.from_json(full_answer))
    assert "a window every 1 s (3 in all), each 8 frames over 2.00 s, from 0.00 s to 4.00 s" in facts
    assert "45 ms in the server: decode 10, transform 2, inference 30" in facts
    assert "the last frame is damaged" in facts


def test_the_pages_own_style_and_script_load_nothing() -> None:
    for name in ("style.css", "page.js"):
        assert not re.search(r"url\(|@import|https?:|//[a-z]", (REPOSITORY / "demo" / name).read_text()), name


@pytest.mark.parametrize(
    ("form", "options"),
    [
        (Form(model="m", version=None), {"stride_sec": 1.0}),
        (Form(model="m", version=None, mode="clips"), {}),
        (Form(model="m", version=None, mode="clips", top_k=3), {"top_k": 3}),
        (
            Form(
                model="m", version=None, mode="clips", num_clips=4, num_crops=3, start_sec=1.5, end_sec=2,
                average="score",
            ),
            {
                "num_clips": 4, "num_crops": 3, "start_sec": 1.5, "end_sec": 2, "average": "score",
            },
        ),
        (
            Form(model="m", version=None, num_clips=4, stride_sec=0.25),
            {"stride_sec": 0.25},
        ),
    ],
)  # fmt: skip
def test_the_form_asks_for_what_differs_from_the_defaults(form: Form, options: dict[str, object]) -> None:
    assert form.options() == options


def test_the_command_line_repeats_the_request_that_the_page_made(
    fake: FakeServer, full_answer: dict[str, Any], write_keys: KeyFile, tmp_path: Path
) -> None:
    fake.answer = lambda asked: (200, full_answer)
    video = tmp_path / "my 'own' clip.mp4"
    video.write_bytes(b"video")
    key_file = write_keys(inference="k3y", management="m")
    # A name that a shell would run, and one that would be another path.
    form = Form(model="$(touch ran); m", version="2.0/../3.0", num_crops=3, start_sec=0.5)
    with VideoClient(fake.url, fake.url, key_file=key_file) as client:
        *_, end = ask(client, video, form)
    assert isinstance(end, StreamEnd)
    assert end.json == full_answer
    line = curl_line(fake.url, video, form, key_file=key_file)
    assert "k3y" not in line
    done = subprocess.run(["bash", "-c", f"{line} --silent"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"camera_motion"' in done.stdout
    ours, curls = fake.asked

    def essence(asked: Any) -> tuple[str, bytes, str | None, dict[str, str]]:
        # The page has the answer come in lines; it is the same in the end.
        options = {name: value for name, value in asked.headers.items() if name.startswith("x-") and name != "x-stream"}
        return asked.path, asked.body, asked.key, options

    assert essence(ours) == essence(curls)
    assert not (tmp_path / "ran").exists()


def test_an_answer_that_is_coming_is_drawn_as_far_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_INTERVAL_SEC", 0.0)
    events = streamed(["a", "a", "b", "b", "b", "a"])
    # As a server sends them: a segment when the next one begins.
    start, *rest = events
    windows = [each for each in rest if isinstance(each, StreamWindow)]
    first, second, third = (each for each in rest if isinstance(each, StreamSegment))
    *states, end = progress_of([start, *windows[:2], first, *windows[2:5], second, windows[5], third, rest[-1]])
    assert isinstance(end, StreamEnd)
    known = [each for each in states if isinstance(each, Progress)]
    assert [(each.done, each.windows, each.duration_sec) for each in known] == [(at, 6, 9.0) for at in range(1, 7)]
    assert [[segment.label for segment in each.segments] for each in known] == [
        ["a"], ["a"], ["a", "b"], ["a", "b"], ["a", "b"], ["a", "b", "a"],
    ]  # fmt: skip
    assert isinstance(end.answer, Timeline)
    assert known[-1].segments == end.answer.segments  # with the same times and scores
    open_segment = known[3].segments[-1]
    assert (open_segment.start_sec, open_segment.end_sec) == (2.0, 5.0)
    assert open_segment.score == pytest.approx(0.525)


def test_the_page_is_not_drawn_for_every_window() -> None:
    events = streamed(["a"] * 500)
    assert sum(isinstance(each, Progress) for each in progress_of(events)) < 5


def test_progress_names_the_window_and_its_labels() -> None:
    drawn = html.progress(3, 88, Clip(2.0, 4.6, (ScoredLabel("run <b>", 0.5, 1),)))
    assert styles(drawn, "va-progress") == [
        {"class": "va-progress", "max": "88", "value": "3", "aria-label": "Windows that are done"}
    ]
    assert "Window 3 of 88, at 0:02.00" in drawn
    assert "run &lt;b&gt;" in drawn


def test_archives_to_start_with(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="holds no archive"):
        archives([], tmp_path)
    for name in ("b.mar", "a.mar", "README.md"):
        (tmp_path / name).touch()
    assert archives([], tmp_path) == ["a.mar", "b.mar"]
    assert archives(["b.mar"], tmp_path) == ["b.mar"]
    with pytest.raises(DemoError, match=r"there is no c\.mar"):
        archives(["c.mar"], tmp_path)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00.00"), (75.5, "1:15.50"), (59.999, "1:00.00"), (3661.25, "1:01:01.25")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert text.clock(seconds) == shown


@pytest.mark.parametrize(
    ("share", "drawn"), [(0, "    "), (1, "████"), (0.5, "██  "), (1 / 32, "▏   "), (2, "████"), (-1, "    ")]
)
def test_bar(share: float, drawn: str) -> None:
    assert text.bar(share, 4) == drawn
    assert text.bar(0.5, 4, plain=True) == "##.."


def test_random_weights_are_an_alert(full_answer: dict[str, Any]) -> None:
    assert "RANDOM WEIGHTS" not in html.facts(Timeline.from_json(full_answer))
    shown = html.facts(Timeline.from_json({**full_answer, "weights": "random"}))
    assert shown.startswith('<div class="va-error" role="alert">RANDOM WEIGHTS')
