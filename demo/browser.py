"""A headless Chromium for the demo page's tests and pictures: the system's own, with a fresh profile for each page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TIMEOUT_MS = 90_000
"""For every wait of a page: on a busy machine a browser alone takes many seconds to begin."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")

# No sandbox: containers run as root. The rest keeps the browser itself from talking to anyone.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A camera that shows a moving test picture, allowed without asking.
_FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


class NoBrowser(RuntimeError):
    """Playwright or Chromium is missing; the message says what to install."""


def chromium_path() -> str:
    for name in _NAMES:
        if (path := shutil.which(name)) is not None:
            return path
    raise NoBrowser("no Chromium on this machine: apt-get install chromium")


@contextlib.contextmanager
def running_browser(*, camera: Path | None = None) -> Iterator[Any]:
    """A Playwright browser, whose pages `page_of` opens. One at a time in a thread.

    `camera` is a Y4M file that the fake camera shows over and over, instead of a test picture.
    """
    shown = [] if camera is None else [f"--use-file-for-fake-video-capture={camera}"]
    path = chromium_path()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NoBrowser("playwright is not installed: pip install -r requirements/dev.txt") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*_ARGUMENTS, *_FAKE_CAMERA, *shown], headless=True
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page_of(
    browser: Any, *, width: int = 1280, height: int = 900, dark: bool = False, scale: float = 1
) -> Iterator[Any]:
    """A page of that size in pixels, with a profile of its own that is gone afterwards."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
    )
    context.set_default_timeout(_TIMEOUT_MS)
    try:
        yield context.new_page()
    finally:
        context.close()
