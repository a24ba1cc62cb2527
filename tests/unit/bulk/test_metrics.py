"""Accuracies against values worked out by hand, and against a second way to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk.metrics import (
    Z_95,
    class_shares,
    confusion_matrix,
    mean_class_accuracy,
    top_k_accuracy,
    true_class_rank,
    wilson,
)

# Four samples of three classes. True classes 0, 1, 2, 2; best classes 0, 2, 2, 0.
SCORES = np.array([[0.6, 0.3, 0.1], [0.2, 0.35, 0.45], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
LABELS = np.array([0, 1, 2, 2])
PREDICTED = SCORES.argmax(axis=1)
RANKS = np.array([true_class_rank(row, label) for row, label in zip(SCORES, LABELS, strict=True)])


def test_top_k_by_hand() -> None:
    assert RANKS.tolist() == [0, 1, 0, 2]
    assert top_k_accuracy(RANKS, 1).value == 2 / 4
    assert top_k_accuracy(RANKS, 2).value == 3 / 4
    assert top_k_accuracy(RANKS, 3).value == 1.0


def test_mean_class_accuracy_by_hand() -> None:
    # Class 0: 1 of 1. Class 1: 0 of 1. Class 2: 1 of 2. Mean of 1, 0 and 1/2.
    value = mean_class_accuracy(LABELS, PREDICTED, 3, groups=np.arange(4)).value
    assert value == pytest.approx(0.5)


def test_a_class_that_never_occurs_is_left_out_of_the_mean_and_one_only_predicted_counts_as_zero() -> None:
    labels, groups = np.array([0, 0, 1, 1]), np.arange(4)
    right = mean_class_accuracy(labels, labels, 10, groups=groups).value
    assert right == 1.0  # the eight classes without samples do not count
    predicted = np.array([0, 0, 1, 7])
    # MMAction2: classes 0, 1 and 7 occur; 1, 1/2 and 0.
    assert mean_class_accuracy(labels, predicted, 10, groups=groups).value == pytest.approx((1 + 0.5 + 0) / 3)


def test_unequal_classes_weigh_the_same() -> None:
    labels = np.array([0] * 9 + [1])
    predicted = np.zeros(10, dtype=np.int64)
    assert top_k_accuracy((predicted != labels).astype(np.int64), 1).value == 0.9
    assert mean_class_accuracy(labels, predicted, 2, groups=np.arange(10)).value == 0.5


def test_ties_go_to_the_lower_class_as_argmax_does() -> None:
    scores = np.array([0.2, 0.4, 0.4])
    assert int(scores.argmax()) == 1
    assert [true_class_rank(scores, label) for label in range(3)] == [2, 0, 1]


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]), min_size=1, max_size=12), st.data())
def test_the_rank_is_the_place_in_a_stable_descending_sort(values: list[float], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(values) - 1))
    scores = np.array(values)
    assert true_class_rank(scores, label) == np.argsort(-scores, kind="stable").tolist().index(label)


def test_wilson_against_a_published_example_and_its_defining_equation() -> None:
    # 81 of 263: (0.2553, 0.3662), R. G. Newcombe, Statistics in Medicine 17 (1998), Table I, method 3.
    estimate = wilson(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)
    for end in (estimate.low, estimate.high):  # |share - end| is z standard errors at the end itself
        assert abs(81 / 263 - end) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / 263))


def test_wilson_stays_within_0_and_1() -> None:
    assert wilson(0, 20).low == 0.0
    assert 0 < wilson(0, 20).high < 0.2
    assert wilson(20, 20).high == pytest.approx(1.0)
    assert 0.8 < wilson(20, 20).low < 1


def test_views_of_one_video_do_not_narrow_the_interval() -> None:
    ranks = np.array([0, 1] * 50)
    by_view, by_video = top_k_accuracy(ranks, 1), top_k_accuracy(ranks, 1, videos=10)
    assert by_view.value == by_video.value == 0.5
    assert by_video.high - by_video.low > 2.5 * (by_view.high - by_view.low)


def test_the_bootstrap_interval_is_repeatable_and_as_wide_as_the_normal_one() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 100)
    predicted = np.where(generator.random(400) < 0.7, labels, (labels + 1) % 4)
    estimate = mean_class_accuracy(labels, predicted, 4, groups=np.arange(400))
    assert estimate == mean_class_accuracy(labels, predicted, 4, groups=np.arange(400))
    shares = class_shares(confusion_matrix(labels, predicted, 4))
    error = math.sqrt(sum(share * (1 - share) / 100 for share in shares)) / 4
    assert estimate.low == pytest.approx(estimate.value - Z_95 * error, abs=0.01)
    assert estimate.high == pytest.approx(estimate.value + Z_95 * error, abs=0.01)


def test_the_bootstrap_draws_videos_not_views() -> None:
    labels, groups = np.repeat([0, 1], 40), np.repeat(np.arange(8), 10)  # 8 videos of 10 views
    predicted = np.where(np.isin(groups, (0, 4)), 1 - labels, labels)  # one video of each class is wrong throughout
    by_video = mean_class_accuracy(labels, predicted, 2, groups=groups)
    by_view = mean_class_accuracy(labels, predicted, 2, groups=np.arange(80))
    assert by_video.value == by_view.value == 0.75
    assert by_video.high - by_video.low > 2 * (by_view.high - by_view.low)


def test_confusion_matrix_counts_true_by_row() -> None:
    matrix = confusion_matrix(LABELS, PREDICTED, 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert class_shares(matrix).tolist() == [1.0, 0.0, 0.5]
