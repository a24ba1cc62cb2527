"""Windows: the samplers' arithmetic, exactly."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler

from handlers.errors import EmptyClip, InvalidOption
from handlers.specs import get_spec
from handlers.video.sampling import Sampling, Window
from handlers.video.windows import count_windows, plan_windows

SPEC = get_spec("x3d_s")  # clips of 2.6 s


def _windows(sampling: Sampling, duration: Fraction | None) -> list[Window]:
    return list(plan_windows(sampling, SPEC, duration))


def test_one_clip_passes_the_recipes_own_floats() -> None:
    (window,) = _windows(Sampling(start_sec=1.5), None)
    assert (window.start_sec, window.end_sec) == (1.5, 1.5 + 13 * 6 / 30)
    assert isinstance(window.end_sec, float)


def test_end_sec_cuts_the_clip() -> None:
    (window,) = _windows(Sampling(start_sec=1.0, end_sec=2.0), None)
    assert (window.start_sec, window.end_sec) == (1.0, 2.0)


@given(
    ticks=st.integers(1, 10**7),
    rate=st.sampled_from([15360, 1000, 90000, 30000]),
    clips=st.integers(2, 30),
)
@settings(max_examples=60, deadline=None)
def test_several_clips_are_pytorchvideos_sampler_to_the_fraction(ticks: int, rate: int, clips: int) -> None:
    duration = Fraction(ticks, rate)
    sampler: Any = ConstantClipsPerVideoSampler(clip_duration=SPEC.clip_duration_sec, clips_per_video=clips)
    theirs = [sampler(None, duration, {}) for _ in range(clips)]
    ours = _windows(Sampling(num_clips=clips), duration)
    assert [(w.start_sec, w.end_sec) for w in ours] == [(c.clip_start_sec, c.clip_end_sec) for c in theirs]


def test_several_clips_spread_over_the_part_that_was_asked_for() -> None:
    windows = _windows(Sampling(start_sec=2.0, end_sec=8.0, num_clips=4), Fraction(100))
    starts = [float(window.start_sec) for window in windows]
    assert starts == pytest.approx([2.0, 2.85, 3.7, 4.55])
    assert all(window.end_sec <= 8 for window in windows)


def test_a_stride_slides_whole_clips_within_the_part() -> None:
    windows = _windows(Sampling(stride_sec=0.1), Fraction(4))
    assert [window.start_sec for window in windows] == [Fraction(index, 10) for index in range(15)]
    assert windows[-1].end_sec == 4, "2.6 s after 1.4 s: exact, so the last one still fits"
    assert count_windows(Sampling(stride_sec=0.1), SPEC, Fraction(4)) == 15


def test_a_stride_over_a_part_shorter_than_a_clip_gives_one_window() -> None:
    assert len(_windows(Sampling(stride_sec=1.0), Fraction(1))) == 1


def test_a_start_past_the_end_is_an_empty_clip_that_names_both_times() -> None:
    with pytest.raises(EmptyClip, match=r"start_sec 7 .* lasts 4\.000 s"):
        _windows(Sampling(start_sec=7.0, num_clips=2), Fraction(4))


def test_an_unknown_length_allows_one_clip_only() -> None:
    with pytest.raises(InvalidOption, match="length of this video is unknown"):
        _windows(Sampling(num_clips=2), None)
