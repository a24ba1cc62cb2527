"""The demo page in a real browser, before a real TorchServe: what a visitor does, and what the page must not do."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from camera_motion.sample_clips import PART_SEC, PARTS, make_clip, two_part_clip
from demo.browser import NoBrowser, chromium_path, page_of, running_browser
from scripts.screenshots import await_answer, choose_model, classify, open_demo, running_demo
from serving.environment import REPOSITORY
from serving.server import TorchServe
from tests.support.archives import tiny_archive
from tests.support.fake_server import running_fake
from tests.support.videos import PLANS, make_video
from video_action_client import VideoClient

pytestmark = pytest.mark.browser

# Tells the page's own process apart: whom did it try to reach?
AUDIT = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open(os.environ["AUDIT_LOG"], "a") as log:
            print(event, arguments[0] if event == "socket.getaddrinfo" else arguments[1], file=log)
sys.addaudithook(watch)
"""
LOOPBACK = re.compile(r"127\.0\.0\.1|localhost|::1|0\.0\.0\.0|None|/run/|/tmp/|/dev/|b''")

ON_THIS_MACHINE = re.compile(r"(http|ws)://127\.0\.0\.1:|blob:|data:")

# A timeline of three segments, whatever the video is.
THREE_SEGMENTS = """
import json
class Handler:
    def initialize(self, context):
        pass
    def handle(self, rows, context):
        def clip(start, label):
            entry = [{"label": label, "score": 0.8, "class_id": 1}]
            return {"start_sec": start, "end_sec": start + 2.0, "predictions": entry}
        timeline = [clip(0.0, "one"), clip(2.0, "two <b>"), clip(4.0, "one")]
        answer = {"model": "three", "version": "1.0", "predictions": timeline[0]["predictions"], "clips": timeline}
        answer |= {"timeline": timeline, "segments": [
            {"start_sec": c["start_sec"], "end_sec": c["end_sec"], "label": c["predictions"][0]["label"], "score": 0.8}
            for c in timeline]}
        answer["video"] = {"duration_sec": 8.0, "width": 640, "height": 360, "fps": 30.0, "codec": "h264",
            "frames_decoded": 9, "warnings": []}
        answer["sampling"] = {"num_frames": 4, "sampling_rate": 12, "clip_duration_sec": 2.0, "start_sec": 0.0,
            "end_sec": 8.0, "num_clips": 3, "num_crops": 1, "stride_sec": 2.0, "average": "prob"}
        answer["timing_ms"] = {"decode": 1.0, "transform": 1.0, "inference": 1.0, "total": 3.0}
        for index in range(len(rows)):
            context.set_response_content_type(index, "application/json")
        return [json.dumps(answer) for _ in rows]
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds: the camera pans left, then zooms in."""
    path = tmp_path_factory.mktemp("clips") / "two parts.mp4"
    path.write_bytes(two_part_clip())
    return path


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "sitecustomize.py").write_text(AUDIT)
    return folder / "log"


@pytest.fixture(scope="module")
def browser_installed() -> None:
    """Skips where Gradio, Playwright or Chromium is missing."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -r requirements/demo.txt")
    pytest.importorskip("playwright", reason="playwright is not installed: pip install -r requirements/dev.txt")
    try:
        chromium_path()
    except NoBrowser as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def demo(browser_installed: None, server: TorchServe, audit_log: Path, model_store: Path) -> Iterator[str]:
    """The page's address; its server has x3d_xs, and `three` with three fixed segments."""
    tiny_archive(model_store, "three", THREE_SEGMENTS)
    server.register("three.mar")
    paths = [str(audit_log.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    env = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "AUDIT_LOG": str(audit_log)}
    with running_demo(server, env=env) as url:
        yield url
    server.unregister("three")


@pytest.fixture(scope="module")
def panning_camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a camera sees that pans left all the time, as Chromium's fake device reads it: bare pictures in Y4M."""
    path = tmp_path_factory.mktemp("camera") / "pan.y4m"
    with av.open(io.BytesIO(make_clip("pan left", seed=7)), "r") as container, path.open("wb") as file:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        rate = stream.average_rate or 30
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A1:1 C420jpeg\n".encode())
        for frame in container.decode(stream):
            file.write(b"FRAME\n" + frame.to_ndarray(format="yuv420p").tobytes())
    return path


@pytest.fixture(scope="module")
def browser(browser_installed: None, panning_camera: Path) -> Iterator[Any]:
    """Every page has a profile of its own in it; its camera pans."""
    with running_browser(camera=panning_camera) as running:
        yield running


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh profile; afterwards, every address that it asked for was on this machine, and no script failed."""
    addresses: list[str] = []
    failures: list[str] = []
    with page_of(browser) as opened:
        opened.on("request", lambda request: addresses.append(request.url))
        opened.on("pageerror", lambda error: failures.append(str(error)))
        opened.on("websocket", lambda websocket: addresses.append(websocket.url))
        yield opened
    assert [each for each in addresses if not ON_THIS_MACHINE.match(each)] == []
    assert failures == []


def test_shows_the_label_that_the_api_answers(server: TorchServe, demo: str, page: Any, clip: Path) -> None:
    classify(page, demo, clip, model="x3d_xs")
    with VideoClient(server.inference_url, server.management_url, key_file=server.key_file) as client:
        answer = client.timeline(clip, model="x3d_xs", stride_sec=1.0)
    names = page.locator("#va-labels .va-name").all_inner_texts()
    scores = page.locator("#va-labels .va-score").all_inner_texts()
    assert names == [each.label for each in answer.predictions]
    assert scores == [f"{each.score:.1%}" for each in answer.predictions]
    assert page.locator(".va-segment").count() == len(answer.segments)
    facts = page.inner_text("#va-facts")
    assert "x3d_xs, version 1.0" in facts
    assert "640x360, h264, 30 fps, 8.00 s" in facts
    assert "a window every 1 s (7 in all), each 4 frames over 1.60 s" in facts
    assert re.search(r"\d+ ms in the server: decode \d+, transform \d+, inference \d+", facts)


def test_a_click_on_a_segment_seeks_the_player(demo: str, page: Any, clip: Path) -> None:
    classify(page, demo, clip, model="three")
    segments = page.locator(".va-segment")
    assert segments.all_inner_texts() == ["one", "two <b>", "one"]

    def seconds() -> float:
        return float(page.evaluate("() => document.querySelector('#va-video video').currentTime"))

    assert seconds() == 0
    for index, expected in ((2, 4.0), (1, 2.0), (0, 0.0)):
        segments.nth(index).click()
        page.wait_for_function("() => !document.querySelector('#va-video video').seeking")
        assert seconds() == pytest.approx(expected, abs=0.05)
    # By keyboard too; and the line over the timeline stands where the player is.
    segments.nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.va-playhead').style.left === '25%'")
    assert seconds() == pytest.approx(2.0, abs=0.05)


@pytest.mark.usefixtures("camera_motion")
def test_the_right_label_for_each_part(demo: str, page: Any, clip: Path) -> None:
    """The embedded model: what the camera does, and when."""
    classify(page, demo, clip, model="camera_motion")
    names = page.locator(".va-segment").all_inner_texts()
    assert names[0] == PARTS[0]
    assert names[-1] == PARTS[1]
    page.locator(".va-segment").last.click()
    page.wait_for_function("() => !document.querySelector('#va-video video').seeking")
    seconds = page.evaluate("() => document.querySelector('#va-video video').currentTime")
    assert seconds == pytest.approx(PART_SEC, abs=2)


def test_the_command_line_repeats_the_answer(demo: str, page: Any, clip: Path) -> None:
    open_demo(page, demo)
    choose_model(page, "x3d_xs")
    page.click("#va-mode label:has-text('Some clips')")
    page.set_input_files("#va-video input[type=file]", clip)
    page.wait_for_selector("#va-video video")
    page.click("#va-classify")
    await_answer(page)
    page.wait_for_selector("#va-curl .cm-line:has-text('curl')")
    line = " ".join(page.locator("#va-curl .cm-line").all_inner_texts())
    shown = page.locator("#va-labels .va-name").all_inner_texts()
    assert page.locator(".va-segment").count() == 0
    # The page knows the file by a name that is safe on disk.
    name = re.search(r"-T (\S+)", line)
    assert name is not None
    (clip.parent / name[1]).write_bytes(clip.read_bytes())
    done = subprocess.run(
        ["bash", "-c", f"{line} --silent --show-error"], cwd=clip.parent, capture_output=True, text=True, check=False
    )
    assert [each["label"] for each in json.loads(done.stdout)["predictions"]] == shown, done.stderr


def test_a_text_file_is_refused_in_words(demo: str, page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a video " * 50)
    (tmp_path / "notes.mp4").write_text("not a video " * 50)
    open_demo(page, demo)
    page.set_input_files("#va-video input[type=file]", tmp_path / "notes.txt")
    page.wait_for_selector("text=Invalid file type: notes.txt")
    page.click("#va-classify")
    page.wait_for_selector(".va-error:has-text('There is no video yet')")
    # A name does not make it a video.
    classify(page, demo, tmp_path / "notes.mp4", model="x3d_xs")
    message = page.inner_text("#va-labels .va-error")
    assert "not a video file that can be decoded here" in message
    assert "Traceback" not in page.content()


def test_a_recording_from_the_camera_is_classified(demo: str, page: Any) -> None:
    """Recorded for some seconds: WebM without a duration."""
    open_demo(page, demo)
    choose_model(page, "x3d_xs")
    page.click("#va-video button[aria-label='Capture from camera']")
    page.click("#va-video button:has-text('Access Webcam')")
    page.click("#va-video button:has-text('Record')")
    page.wait_for_timeout(4000)  # a busy machine's camera may take a second to give its first frame
    page.click("#va-video button:has-text('Stop')")
    page.wait_for_selector("#va-video video[src*='file=']")
    page.click("#va-classify")
    await_answer(page)
    assert page.locator("#va-labels .va-error").count() == 0, page.inner_text("#va-labels")
    assert page.locator("#va-labels .va-label").count() == 5


@pytest.mark.usefixtures("camera_motion")
def test_the_camera_has_live_labels(demo: str, page: Any) -> None:
    """Window after window from the browser's camera device, with the labels of the embedded model."""
    open_demo(page, demo)
    page.click("button[role=tab]:has-text('The camera, live')")
    page.wait_for_selector(".va-live-model option[value='camera_motion']", state="attached")
    page.select_option(".va-live-model", "camera_motion")
    page.click(".va-live-start")
    page.wait_for_selector(".va-live-labels .va-label")
    # The file begins again every few seconds, and such a window shows a cut; most show the pan.
    page.wait_for_function(
        "() => [...document.querySelectorAll('.va-live-log li')].filter("
        "each => each.textContent.includes('pan left')).length >= 3",
    )
    lines = page.locator(".va-live-log li").all_inner_texts()
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d - \d\d:\d\d:\d\d\.\d", line) for line in lines)
    assert re.fullmatch(r"\d+ windows with labels, \d+ skipped", page.inner_text(".va-live-count"))
    assert page.locator(".va-live-answer .va-error").count() == 0
    page.click(".va-live-start:has-text('Stop the camera')")
    page.wait_for_selector(".va-live-start:has-text('Start the camera')")
    assert page.evaluate("() => document.querySelector('.va-live-video').srcObject") is None
    # The other tab is as it was.
    page.click("button[role=tab]:has-text('A video')")
    page.wait_for_selector("#va-classify")


def test_the_timeline_fills_while_the_video_is_computed(demo: str, page: Any, clip: Path) -> None:
    """Windows are drawn before the answer is whole; another video ends the question about this one."""
    open_demo(page, demo)
    choose_model(page, "x3d_xs")
    page.fill("#va-ask input[aria-label*='One window every']", "0.04")
    page.set_input_files("#va-video input[type=file]", clip)
    page.wait_for_selector("#va-video video")
    page.click("#va-classify")
    page.wait_for_selector("#va-labels .va-progress[value]")
    page.wait_for_selector(".va-segment")
    assert page.locator("#va-facts .va-facts").count() == 0
    assert page.is_disabled("#va-classify")
    windows = int(page.get_attribute("#va-labels .va-progress", "max"))
    assert windows == 161
    assert 0 < int(page.get_attribute("#va-labels .va-progress", "value")) <= windows
    page.click("#va-sample")
    page.wait_for_selector("#va-labels .va-hint:has-text('Labels appear here')")
    page.wait_for_selector("#va-classify:not([disabled])")
    page.fill("#va-ask input[aria-label*='One window every']", "1")
    page.click("#va-classify")
    await_answer(page)
    assert "a window every 1 s (7 in all)" in page.inner_text("#va-facts")


def test_a_sample_is_a_click_away_and_the_answer_can_be_taken_along(demo: str, page: Any) -> None:
    open_demo(page, demo)
    choose_model(page, "camera_motion")
    page.click("#va-sample")
    page.wait_for_selector("#va-video video[src*='file=']")
    page.click("#va-classify")
    await_answer(page)
    with page.expect_download() as downloading:
        page.click("#va-json a[download], #va-json button[aria-label*='ownload' i]")
    answer = json.loads(Path(downloading.value.path()).read_text())
    names = page.locator("#va-labels .va-name").all_inner_texts()
    assert names == [each["label"] for each in answer["predictions"]]
    assert answer["model"] == "camera_motion"


def test_the_heat_lies_over_the_player_and_goes_with_the_video(demo: str, page: Any, clip: Path) -> None:
    """Maps as a picture over the video's own, weights as parts of its time; another video takes both away."""
    open_demo(page, demo)
    choose_model(page, "x3d_xs")
    page.set_input_files("#va-video input[type=file]", clip)
    page.wait_for_selector("#va-video video")
    page.click("#va-explain")
    page.wait_for_selector("#va-heat .va-weights")
    assert "Grad-CAM" in page.inner_text("#va-heat .va-hint")
    weights = page.locator("#va-heat .va-weight")
    assert weights.count() > 1
    assert max(float(each.get_attribute("style").rpartition(":")[2]) for each in weights.all()) == 1
    page.wait_for_selector(".va-heat-canvas", state="attached")
    # Something of the picture is seen through, and something is hot.
    alphas = page.evaluate(
        "() => { const canvas = document.querySelector('.va-heat-canvas');"
        "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "const alphas = data.filter((_, at) => at % 4 === 3).sort(); return [alphas[0], alphas.at(-1)]; }"
    )
    assert alphas[0] < 50
    assert alphas[1] > 100  # 200 is the hottest place of all maps, which may be another moment's
    weights.nth(1).click()
    page.wait_for_function("() => document.querySelector('#va-video video').currentTime > 0")
    page.uncheck(".va-heat-on")
    page.wait_for_selector(".va-heat-canvas", state="detached")
    page.check(".va-heat-on")
    page.wait_for_selector(".va-heat-canvas", state="attached")
    page.click("#va-sample")
    page.wait_for_selector(".va-heat-canvas", state="detached")
    page.wait_for_selector("#va-heat .va-weights", state="detached")


def test_a_file_that_the_browser_cannot_show_is_classified(demo: str, page: Any, clip: Path, tmp_path: Path) -> None:
    """MPEG-4 part 2 in AVI. And an empty file is called empty."""
    avi = tmp_path / "old.avi"
    avi.write_bytes(make_video(PLANS["mpeg4_avi"]))
    open_demo(page, demo)
    choose_model(page, "x3d_xs")
    page.set_input_files("#va-video input[type=file]", avi)
    page.wait_for_selector(".toast-message-text:has-text('It can be classified all the same')")
    page.click("#va-classify")
    await_answer(page)
    assert page.locator("#va-labels .va-label").count() == 5
    empty = tmp_path / "empty.mp4"
    empty.touch()
    classify(page, demo, empty, model="x3d_xs")
    assert page.inner_text("#va-labels .va-error") == "The file is empty. Choose another video, or record one."


def test_a_server_that_is_gone_is_said_so(page: Any) -> None:
    """The page loads before, and without, a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "scripts.demo", "--url", f"http://127.0.0.1:{port}"]
    command += ["--management-url", f"http://127.0.0.1:{port}", "--token", "none"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("The page: ").strip()
        open_demo(page, url)
        page.wait_for_selector(f"#va-status .va-error:has-text('nothing answers at http://127.0.0.1:{port}')")
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_fits_its_width(demo: str, browser: Any, clip: Path, width: int, dark: bool) -> None:
    """Nothing is wider than the window, and nothing that is shown lies over something else."""
    with page_of(browser, width=width, dark=dark) as page:
        classify(page, demo, clip, model="three")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        boxes = [page.locator(each).bounding_box() for each in ("#va-video", "#va-classify", "#va-labels", "#va-model")]
        for box in boxes:
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        video, button, labels, model = boxes
        assert video["y"] + video["height"] <= button["y"]
        if width >= 1280:
            assert labels["x"] >= video["x"] + video["width"]
        else:  # the answer stands between the video and the form
            assert button["y"] + button["height"] <= labels["y"]
            assert labels["y"] + labels["height"] <= model["y"]


def test_the_page_is_for_this_machine_and_reaches_nobody(demo: str, audit_log: Path) -> None:
    import urllib.error
    import urllib.request

    with urllib.request.urlopen(demo) as answer:
        policy = answer.headers["Content-Security-Policy"]
        outside = set(
            re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"(?:https?:)?//([^/\"]+)", answer.read().decode())
        )
    assert "default-src 'self'" in policy
    assert "connect-src 'self' blob: data:" in policy
    assert outside <= {demo.split("/")[2]}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(demo, headers={"Host": "elsewhere.example"}))
    # Gradio must not hand out files that it was not given.
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{demo}gradio_api/file=/etc/passwd")
    for line in audit_log.read_text().splitlines():
        assert LOOPBACK.search(line), line


def test_a_page_of_another_port_cannot_upload(server: TorchServe, page: Any, tmp_path: Path) -> None:
    """What the browser sends for it is refused, although the page never sees the answer."""
    send = """async (address) => {
        const body = new FormData();
        body.append('files', new Blob(['video']), 'clip.mp4');
        const answer = await fetch(address + 'gradio_api/upload', {method: 'POST', mode: 'no-cors', body});
        return answer.type;
    }"""
    with running_demo(server, env={"TMPDIR": str(tmp_path)}) as url, running_fake() as other:
        page.goto(other.url)
        assert page.evaluate(send, url) == "opaque"
        assert not list(tmp_path.glob("demo-uploads-*/**/*.mp4"))
        open_demo(page, url)
        assert page.evaluate(send, url) == "basic"
        assert list(tmp_path.glob("demo-uploads-*/**/*.mp4"))


def test_uploads_are_gone_when_the_page_is_stopped(server: TorchServe, page: Any, clip: Path, tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path)}
    with running_demo(server, env=env) as url:
        classify(page, url, clip, model="x3d_xs")
        assert list(tmp_path.glob("demo-uploads-*/**/*.mp4"))
    deadline = time.monotonic() + 10
    while list(tmp_path.glob("demo-uploads-*")):
        assert time.monotonic() < deadline, "the uploads are still there"
        time.sleep(0.1)
