"""Which frames a window takes, and which packets they need."""

from __future__ import annotations

from fractions import Fraction

import pytest

from handlers.video.packet_plan import PacketTable, PlanMismatch, plan_clips, window_bounds
from handlers.video.sampling import Window
from handlers.video.transforms import subsample_indices

TIME_BASE = Fraction(1, 1000)


def _table(pts: list[int], keys: set[int]) -> PacketTable:
    table = PacketTable()
    for index, stamp in enumerate(pts):
        table.add(stamp, is_key=index in keys, is_discarded=False)
    return table


@pytest.mark.parametrize(
    ("window", "time_base", "expected"),
    [
        # The recipe's 64 frames of slow_r50 are 65 on millisecond containers: 64 / 30 s ends past the 65th stamp.
        (Window(0.0, 8 * 8 / 30), TIME_BASE, (0, 2134)),
        # The sampler's Fraction of the float 2.6 is a hair more than 13/5, and takes one timestamp more.
        (Window(Fraction(0), Fraction(2.6)), Fraction(1, 15360), (0, 39937)),
        (Window(0.0, 2.6), Fraction(1, 15360), (0, 39936)),
    ],
)
def test_bounds_round_as_the_recipe_does(window: Window, time_base: Fraction, expected: tuple[int, int]) -> None:
    assert window_bounds(window, time_base, 0) == expected
    assert window_bounds(window, time_base, 5000) == (expected[0] + 5000, expected[1] + 5000)


def test_few_frames_repeat_and_empty_windows_are_left_out() -> None:
    windows = [(0, Window(0.0, 0.1)), (1, Window(5.0, 6.0))]
    (clip,) = plan_clips(windows, [0, 33, 66], time_base=TIME_BASE, origin=0, pick=lambda n: subsample_indices(n, 4))
    assert (clip.index, clip.picks) == (0, (0, 0, 33, 66))


def test_ranges_begin_at_key_frames_and_leave_out_what_nobody_needs() -> None:
    table = _table([0, 1, 2, 3, 4, 5, 6, 7, 8], keys={0, 3, 6})
    assert table.intervals({1, 7}, trust_keys=True) == [range(2), range(6, 8)]
    assert table.intervals({1, 4}, trust_keys=True) == [range(2), range(3, 5)]
    assert table.intervals({2, 3}, trust_keys=True) == [range(4)]
    assert table.intervals({7}, trust_keys=False) == [range(8)]


def test_a_picture_shown_before_its_key_frame_needs_the_key_frame_before() -> None:
    table = _table([0, 1, 2, 5, 3, 4, 6], keys={0, 3})
    assert table.intervals({4}, trust_keys=True) == [range(6)]
    assert table.intervals({6}, trust_keys=True) == [range(3, 7)]


def test_the_example_of_the_documentation() -> None:
    table = _table([0, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12], keys={0, 7})
    assert table.intervals({5, 8}, trust_keys=True) == [range(10)]
    assert table.intervals({5}, trust_keys=True) == [range(7)]
    assert table.intervals({8}, trust_keys=True) == [range(10)]


def test_stamps_that_are_missing_or_repeated_make_no_plan() -> None:
    _table([0, 1, 2], keys={0}).check_plannable()
    with pytest.raises(PlanMismatch, match="repeated_timestamps"):
        _table([0, 1, 1], keys={0}).check_plannable()
    table = _table([0, 1], keys={0})
    table.add(None, is_key=False, is_discarded=False)
    with pytest.raises(PlanMismatch, match="missing_timestamps"):
        table.check_plannable()


def test_packets_that_an_edit_list_cuts_away_are_not_shown() -> None:
    table = _table([0, 2], keys={0})
    table.add(1, is_key=False, is_discarded=True)
    assert table.shown() == [0, 2]
