"""What a question on the demo page shows when its visitor goes on to another video before it is answered."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo import progress
from tests.support.streams import streamed
from video_action_client import Explanation, StreamEvent, VideoClient

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install -r requirements/demo.txt")

FIELDS = ("timeline", 1.0, 1, 1, 5, 0.0, 0.0, "prob")
"""`form_fields`'s, as they are when the page is opened."""
WINDOWS = ["a", "a", "b", "b"]
EXPLANATION = Explanation.from_json(
    {"label": "pan", "class_id": 1, "score": 0.75, "method": "grad_cam", "times": [], "maps": []}
)


class Client:
    """Answers each question with the four windows; `left` are the questions that were ended early."""

    url = "http://server"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left: list[str] = []

    def explain(self, video: Path, **_: object) -> Explanation:
        self.asked.append(video.name)
        return EXPLANATION

    def stream(self, video: Path, **_: object) -> Generator[StreamEvent, None, None]:
        self.asked.append(video.name)
        try:
            yield from streamed(WINDOWS)
        except GeneratorExit:
            self.left.append(video.name)
            raise


class Browser:
    """What an open page shows: components in `Shown.values`'s order, as the updates for them arrive."""

    def __init__(self) -> None:
        self.components: list[Any] = [None] * 7

    def show(self, values: tuple[Any, ...]) -> None:
        skipped = gradio.skip()
        self.components = [old if new == skipped else new for old, new in zip(self.components, values, strict=True)]

    def show_button(self, button: Any) -> None:
        self.components[6] = button

    @property
    def labels(self) -> str:
        return str(self.components[1])

    def is_busy(self) -> bool:
        return not self.components[6].interactive


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def page(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from demo.page import Page, PageSettings

    monkeypatch.setattr(progress, "_INTERVAL_SEC", 0.0)
    for name in ("one.mp4", "other.mp4"):
        (tmp_path / name).write_bytes(b"video")
    return Page(PageSettings(client=cast("VideoClient", client), key_file=None, uploads=tmp_path))


@pytest.fixture
def classify(page: Any, tmp_path: Path) -> Any:
    """Begins a question; what it gives are updates."""

    def begin(name: str, session: str = "s") -> Iterator[tuple[Any, ...]]:
        return iter(page.classify(visitor(session), str(tmp_path / name), "m", None, *FIELDS))

    return begin


def visitor(session: str = "s") -> Any:
    return SimpleNamespace(session_hash=session)


def first_window(question: Iterator[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The update with the first of its windows, which comes after that the page is busy and that it is sending."""
    return [next(question) for _ in range(3)][-1]


def test_an_answer_stays_and_the_button_takes_clicks_again(client: Client, classify: Any) -> None:
    browser = Browser()
    for values in classify("one.mp4"):
        browser.show(values)
        # What skips could take away an update that is not drawn yet.
        assert gradio.skip() not in values
    assert not browser.is_busy()
    assert "va-label" in browser.labels
    assert browser.components[5].endswith("one.mp4")
    assert client.left == []


def test_an_update_that_another_video_overtook_is_taken_back(
    client: Client, page: Any, classify: Any, tmp_path: Path
) -> None:
    """The state was computed before the page told that it shows another video, and arrives after the answer to that."""
    browser = Browser()
    question = classify("one.mp4")
    late = first_window(question)
    browser.show_button(page.choose(str(tmp_path / "other.mp4"), visitor()))
    browser.show(late)
    assert browser.is_busy()
    for values in question:
        browser.show(values)
    assert not browser.is_busy()
    assert "Labels appear here" in browser.labels
    assert browser.components[0] == ""
    assert client.left == ["one.mp4"]


def test_a_question_that_was_given_up_takes_nothing_back_from_a_newer_one(
    client: Client, page: Any, classify: Any, tmp_path: Path
) -> None:
    browser = Browser()
    old = classify("one.mp4")
    first_window(old)
    page.choose(str(tmp_path / "other.mp4"), visitor())
    new = classify("other.mp4")
    browser.show(first_window(new))
    for values in old:
        browser.show(values)
    assert browser.is_busy()
    assert "va-progress" in browser.labels
    for values in new:
        browser.show(values)
    assert not browser.is_busy()
    assert browser.components[5].endswith("other.mp4")
    assert client.left == ["one.mp4"]


def test_the_browser_may_say_late_that_the_video_is_another_one(
    client: Client, page: Any, classify: Any, tmp_path: Path
) -> None:
    """It is the one that is asked about: the question goes on."""
    question = classify("one.mp4")
    first_window(question)
    page.choose(str(tmp_path / "one.mp4"), visitor())
    browser = Browser()
    for values in question:
        browser.show(values)
    assert browser.components[5].endswith("one.mp4")
    assert client.left == []


def test_the_same_video_again_does_not_take_up_a_question_that_was_given_up(
    client: Client, page: Any, classify: Any, tmp_path: Path
) -> None:
    question = classify("one.mp4")
    first_window(question)
    for name in ("other.mp4", "one.mp4"):
        page.choose(str(tmp_path / name), visitor())
    list(question)
    assert client.left == ["one.mp4"]


def test_pages_do_not_touch_each_other_and_a_closed_one_asks_no_more(
    client: Client, page: Any, classify: Any, tmp_path: Path
) -> None:
    closed, other = classify("one.mp4", "closed"), classify("one.mp4", "other")
    first_window(closed)
    first_window(other)
    page.choose(str(tmp_path / "other.mp4"), visitor("closed"))
    page.leave(visitor("closed"))
    with closing(closed):
        list(closed)
    browser = Browser()
    for values in other:
        browser.show(values)
    assert not browser.is_busy()
    assert client.left == ["one.mp4"]
    assert client.asked == ["one.mp4", "one.mp4"]


def test_no_heat_of_one_video_lies_over_another(client: Client, page: Any, tmp_path: Path) -> None:
    def explain() -> Iterator[str]:
        return iter(page.explain(visitor(), str(tmp_path / "one.mp4"), "m", None, *FIELDS))

    *_, shown = explain()
    assert "pan (75.0%)" in shown
    question = explain()
    assert "Looking" in next(question)
    page.choose(str(tmp_path / "other.mp4"), visitor())
    assert set(question) == {""}
    # What was on its way is taken back.
    question = explain()
    next(question)
    assert "pan (75.0%)" in next(question)
    page.choose(str(tmp_path / "other.mp4"), visitor())
    assert list(question) == [""]
