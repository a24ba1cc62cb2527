"""Summaries of samples."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.samples import rotated, summarise


def test_of_known_samples() -> None:
    summary = summarise([float(value) for value in range(1, 102)])
    assert (summary.count, summary.median, summary.mean) == (101, 51.0, 51.0)
    assert (summary.p90, summary.p95, summary.p99) == (91.0, 96.0, 100.0)
    assert (summary.minimum, summary.maximum) == (1.0, 101.0)


def test_of_one_sample_is_that_sample() -> None:
    content = summarise([2.0]).to_json()
    assert content.pop("count") == 1
    assert set(content.values()) == {2.0}


def test_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_in_order(samples: list[float]) -> None:
    summary = summarise(samples)
    ordered = [summary.minimum, summary.median, summary.p90, summary.p95, summary.p99, summary.maximum]
    assert all(one <= other * (1 + 1e-12) for one, other in pairwise(ordered))


def test_every_contender_begins_a_round_equally_often() -> None:
    names = ["a", "b", "c"]
    firsts = [rotated(names, turn)[0] for turn in range(-3, 6)]
    assert {name: firsts.count(name) for name in names} == {"a": 3, "b": 3, "c": 3}
    assert all(sorted(rotated(names, turn)) == names for turn in range(-3, 6))


def test_rotating_nothing() -> None:
    assert rotated([], 5) == []
