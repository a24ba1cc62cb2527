"""The demo page's pictures in docs/images: `python -m scripts.screenshots`. Needs Chromium."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from camera_motion.sample_clips import two_part_clip
from demo.browser import NoBrowser, page_of, running_browser
from serving.environment import REPOSITORY
from serving.server import ServerError, TorchServe

IMAGES = REPOSITORY / "docs" / "images"
MODEL = "camera_motion"

_START_TIMEOUT_SEC = 120.0
_ANSWER_TIMEOUT_MS = 90_000


class ScreenshotError(RuntimeError):
    """The pictures cannot be made; one sentence that says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.screenshots", description=__doc__)
    parser.add_argument("--model", default=MODEL, help="the model to show (default %(default)s)")
    parser.add_argument("--weights", choices=("published", "random"), default="published", help="default %(default)s")
    parser.add_argument("--output", type=Path, default=IMAGES, metavar="DIR", help="where the pictures go")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder)
            package(options.model, options.weights, store)
            clip = store / "clip.mp4"
            clip.write_bytes(two_part_clip())
            with TorchServe(store, [f"{options.model}.mar"]) as server, running_demo(server) as url:
                take(url, clip, options.output, model=options.model)
    except (ScreenshotError, NoBrowser, ServerError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    return 0


def package(model: str, weights: str, store: Path) -> None:
    command = [sys.executable, "-m", "scripts.package", model, "--weights", weights, "--output", str(store)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ScreenshotError(f"{model} cannot be packaged: {done.stderr.strip()}")


@contextlib.contextmanager
def running_demo(server: TorchServe, *, env: dict[str, str] | None = None) -> Iterator[str]:
    """The page for that server, in a process of its own; its address."""
    addresses = ["--url", server.inference_url, "--management-url", server.management_url]
    command = [sys.executable, "-m", "scripts.demo", *addresses, "--key-file", str(server.key_file)]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield _address(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[str]) -> str:
    """What the page prints once it is served."""
    assert process.stdout is not None
    printed = []
    deadline = time.monotonic() + _START_TIMEOUT_SEC
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        printed.append(line)
        if line.startswith("The page: "):
            return line.removeprefix("The page: ").strip()
        if not line:
            break
    raise ScreenshotError(f"the page did not start: {''.join(printed)}")


def take(url: str, clip: Path, output: Path, *, model: str) -> None:
    """Classify the clip at both widths and write the pictures."""
    output.mkdir(parents=True, exist_ok=True)
    with running_browser() as browser:
        for width, height in ((1280, 900), (390, 844)):
            with page_of(browser, width=width, height=height, scale=1.5) as page:
                classify(page, url, clip, model=model)
                seek_to_last_segment(page)
                path = output / f"demo-{width}.png"
                page.screenshot(path=path, full_page=True)
                print(path)


def classify(page: Any, url: str, clip: Path, *, model: str) -> None:
    """Open the page, choose the model, give it the clip, and wait for the answer or an error."""
    open_demo(page, url)
    choose_model(page, model)
    page.set_input_files("#va-video input[type=file]", clip)
    page.wait_for_selector("#va-video video")
    page.click("#va-classify")
    await_answer(page)


def await_answer(page: Any) -> None:
    """Wait until the whole answer, or an error, is shown."""
    page.wait_for_selector("#va-facts .va-facts, #va-labels .va-error", timeout=_ANSWER_TIMEOUT_MS)
    page.wait_for_selector("#va-classify:not([disabled])")


def choose_model(page: Any, name: str) -> None:
    page.click("#va-model input")
    page.locator("#va-model [role=option]", has_text=re.compile(rf"^\W*{re.escape(name)}$")).click()
    page.wait_for_function("name => document.querySelector('#va-model input').value === name", arg=name)


def open_demo(page: Any, url: str) -> None:
    """Open the page and wait until its list of models has come."""
    page.goto(url)
    page.wait_for_selector("#va-classify")
    page.wait_for_function(
        "() => document.querySelector('#va-model input')?.value || document.querySelector('#va-status .va-error')"
    )


def seek_to_last_segment(page: Any) -> None:
    """Click it, and wait until the player shows that second."""
    segment = page.locator(".va-segment").last
    start_sec = float(segment.get_attribute("data-seek"))
    segment.click()
    page.wait_for_function(
        "start => { const video = document.querySelector('#va-video video');"
        " return !video.seeking && Math.abs(video.currentTime - start) < 0.1; }",
        arg=start_sec,
    )


if __name__ == "__main__":
    sys.exit(main())
