"""Lines of progress where there is no terminal."""

from __future__ import annotations

import io

import pytest

from bulk.progress import Progress, duration, rate_of


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_line_every_half_minute_and_none_before() -> None:
    clock, log = Clock(), io.StringIO()
    with Progress(100, kept=20, stream=log, now=clock) as progress:
        for seconds, failed in ((10, 0), (19, 1), (1, 0), (29, 0), (1, 1)):
            clock.now += seconds
            progress.add(10, failed=failed)
    assert log.getvalue().splitlines() == [
        "50 of 100 videos (50%), 1 a second, about 50 s left, 1 failed",
        "70 of 100 videos (70%), 0.83 a second, about 36 s left, 2 failed",
    ]
    assert progress.seconds == 60


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal() -> None:
    screen = Terminal()
    with Progress(4, kept=1, stream=screen) as progress:
        progress.add(3, failed=1)
    assert "4/4" in screen.getvalue()
    assert "\r" in screen.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (3590, "1 h 00 min"), (11_100, "3 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_rate() -> None:
    assert rate_of(24, 8.0) == "24 videos in 8 s, 3 a second"
    assert rate_of(0, 0.0) == "0 videos in 0 s, 0 a second"
