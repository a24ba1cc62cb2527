"""What the camera's tab asks: models and windows, refusals in words, and how much is taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.fake_server import Answer, Asked, FakeServer, described, refusal
from video_action_client import VideoClient

pytest.importorskip("gradio", reason="gradio is not installed: pip install -r requirements/demo.txt")

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from demo import camera
from demo.security import SameOriginOnly


@pytest.fixture
def page(fake: FakeServer, full_answer: dict[str, Any]) -> Iterator[TestClient]:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/models":
            return 200, {"models": [{"modelName": "m"}]}
        return (200, [described("1.0")]) if asked.method == "GET" else (200, full_answer)

    fake.answer = answer
    client = VideoClient(fake.url, fake.url, token="t")
    app = Starlette(routes=camera.camera_routes(client), middleware=[Middleware(SameOriginOnly)])
    with TestClient(app) as opened:
        yield opened


def test_a_window_gets_its_labels(page: TestClient, fake: FakeServer) -> None:
    assert page.get("/camera/models").json() == {"models": ["m"]}
    answer = page.post("/camera/window?model=m", content=b"a recording")
    assert answer.status_code == 200
    content = answer.json()
    assert (content["label"], content["score"], content["window_sec"]) == ("pan left", 0.5, 2.0)
    assert content["html"].count('class="va-label"') == 2
    assert fake.asked[-1].path == "/predictions/m"
    assert fake.asked[-1].body == b"a recording"


def test_refusals_are_said(page: TestClient, fake: FakeServer) -> None:
    assert "no model to ask" in page.post("/camera/window", content=b"x").json()["message"]
    fake.answer = lambda asked: refusal(415, "UnsupportedVideo", "this is not a video")
    answer = page.post("/camera/window?model=m", content=b"x")
    assert (answer.status_code, answer.json()) == (502, {"message": "this is not a video"})
    assert page.get("/camera/models").status_code == 502


def test_other_pages_cannot_ask(page: TestClient, fake: FakeServer) -> None:
    answer = page.post("/camera/window?model=m", content=b"x", headers={"Origin": "http://127.0.0.1:9"})
    assert answer.status_code == 403
    assert fake.asked == []


def test_a_window_is_bounded(page: TestClient, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "MAX_WINDOW_BYTES", 1000)
    assert page.post("/camera/window?model=m", content=bytes(1000)).status_code == 200
    answer = page.post("/camera/window?model=m", content=bytes(1001))
    assert answer.status_code == 413
    assert "may have 1000 bytes" in answer.json()["message"]


def test_few_windows_are_asked_about_at_once(page: TestClient, fake: FakeServer, full_answer: dict[str, Any]) -> None:
    """Four are at the server; the fifth is refused, and answered for once they are done."""
    came, go_on = threading.Semaphore(0), threading.Event()

    def answer(asked: Asked) -> Answer:
        came.release()
        go_on.wait(30)
        return 200, full_answer

    fake.answer = answer

    def post() -> int:
        return page.post("/camera/window?model=m", content=b"x").status_code

    with ThreadPoolExecutor(camera.MAX_UNDER_WAY) as pool:
        first = [pool.submit(post) for _ in range(camera.MAX_UNDER_WAY)]
        for _ in first:
            assert came.acquire(timeout=30)
        assert post() == 503
        go_on.set()
        assert [each.result() for each in first] == [200] * camera.MAX_UNDER_WAY
    assert post() == 200
