"""The pace of a bulk run, from how many rows there were when."""

from __future__ import annotations

import pytest

from benchmarks.ray_scaling import seconds_per_video


def test_start_and_end_do_not_count() -> None:
    slow_start = [(50.0, 4), (100.0, 10)]
    steady = [(100.0 + 2 * step, 10 + step) for step in range(1, 81)]
    slow_end = [(500.0, 96), (900.0, 100)]
    assert seconds_per_video([*slow_start, *steady, *slow_end], 100) == pytest.approx(2.0)


def test_counts_between_readings_not_between_thresholds() -> None:
    assert seconds_per_video([(1.0, 8), (5.0, 16), (9.0, 32), (30.0, 60)], 60) == pytest.approx(8 / 24)


def test_one_reading_is_no_pace() -> None:
    with pytest.raises(SystemExit, match="more videos than 60"):
        seconds_per_video([(1.0, 2), (5.0, 16), (9.0, 60)], 60)
