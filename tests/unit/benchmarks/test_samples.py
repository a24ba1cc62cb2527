"""Summaries of samples."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.samples import shuffled, summarise


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


def test_every_round_has_another_order() -> None:
    names = ["a", "b", "c", "d"]
    orders = [shuffled(names, turn) for turn in range(-3, 30)]
    assert all(sorted(order) == names for order in orders)
    followers = {
        name: {after for order in orders for before, after in pairwise(order) if before == name} for name in names
    }
    assert all(followers[name] == set(names) - {name} for name in names)


def test_the_order_is_the_same_in_each_run() -> None:
    assert [shuffled("abcd", turn) for turn in range(5)] == [shuffled("abcd", turn) for turn in range(5)]


def test_shuffling_nothing() -> None:
    assert shuffled([], 5) == []
