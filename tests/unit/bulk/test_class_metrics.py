"""Precision, recall, F1, average precision and calibration against examples by hand and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk.class_metrics import (
    average_precision,
    average_precisions,
    calibration_error,
    class_counts,
    label_counts,
    label_precision_recall_f1,
    macro_top_k,
    precision_recall_f1,
)
from bulk.metrics import mean_class_accuracy

LABELS = np.array([0, 1, 2, 0, 1, 2])
PREDICTED = np.array([0, 2, 1, 0, 0, 1])
GROUPS = np.arange(6)


def test_precision_recall_f1_against_scikit_learns_example() -> None:
    """From the documentation of sklearn.metrics.precision_recall_fscore_support, average="macro"."""
    found = precision_recall_f1(LABELS, PREDICTED, 3, groups=GROUPS)
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == pytest.approx({"precision": 0.2222222, "recall": 0.3333333, "f1": 0.2666667}, abs=1e-6)


def test_average_precision_against_scikit_learns_example() -> None:
    """From the documentation of sklearn.metrics.average_precision_score: 0.83."""
    positives, scores = np.array([False, False, True, True]), np.array([0.1, 0.4, 0.35, 0.8])
    assert average_precision(scores, positives) == pytest.approx((1 + 2 / 3) / 2)


def test_equal_scores_are_taken_together() -> None:
    scores = np.array([0.5, 0.5, 0.5, 0.1])
    for positives in ([True, False, False, False], [False, False, True, False]):
        assert average_precision(scores, np.array(positives)) == pytest.approx(1 / 3)


def test_a_class_without_samples_has_no_average_precision() -> None:
    truth = np.array([[True, False], [False, False]])
    found = average_precisions(np.array([[0.9, 0.1], [0.2, 0.3]]), truth)
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_calibration_by_hand() -> None:
    # Bins of 1/15: 0.62 and 0.65 share one (0.6, 0.6667], 0.95 is in another.
    confidence, right = np.array([0.62, 0.65, 0.95]), np.array([True, False, True])
    assert calibration_error(confidence, right) == pytest.approx((abs(1.27 - 1) + abs(0.95 - 1)) / 3)
    assert calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0.0


def test_a_bins_upper_end_belongs_to_it() -> None:
    # 3/15 is in the third bin with 0.19; were it in the fourth, the two errors would not cancel out.
    assert calibration_error(np.array([3 / 15, 0.19]), np.array([True, False])) == pytest.approx(abs(0.39 - 1) / 2)


def test_macro_top_k_by_hand() -> None:
    labels, ranks = np.array([0, 0, 0, 1]), np.array([0, 1, 6, 6])
    assert macro_top_k(labels, ranks, 5, 3, groups=np.arange(4)).value == pytest.approx((2 / 3 + 0) / 2)


def test_several_labels_by_hand() -> None:
    truth = np.array([[True, False], [True, True], [False, False]])
    said = np.array([[True, True], [False, True], [False, False]])
    counts = label_counts(truth, said)
    assert counts.precision.tolist() == [1.0, 0.5]
    assert counts.recall.tolist() == [0.5, 1.0]
    found = label_precision_recall_f1(truth, said, groups=np.arange(3))
    assert found["f1"].value == pytest.approx((2 / 3 + 2 / 3) / 2)
    nothing = label_precision_recall_f1(np.zeros((2, 2), bool), np.zeros((2, 2), bool), groups=np.arange(2))
    assert nothing["recall"].value == 0.0


_samples = st.integers(1, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=20),
    )
)


@given(_samples)
def test_counts_add_up_and_recall_is_mean_class_accuracy(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = drawn
    labels, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    counts = class_counts(labels, predicted, classes)
    right = int((labels == predicted).sum())
    assert counts.hits.sum() == right
    assert counts.misses.sum() == counts.false_alarms.sum() == len(pairs) - right
    one_hot = label_counts(labels[:, None] == np.arange(classes), predicted[:, None] == np.arange(classes))
    assert one_hot.f1.tolist() == counts.f1.tolist()
    precision, recall, f1 = counts.macro()
    assert recall == pytest.approx(mean_class_accuracy(labels, predicted, classes, groups=np.arange(len(pairs))).value)
    assert 0 <= f1 <= (precision + recall) / 2 + 1e-12  # of each class it is the harmonic mean


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.3, 0.8]), st.booleans()), min_size=1, max_size=15))
def test_average_precision_is_its_definition(pairs: list[tuple[float, bool]]) -> None:
    """Threshold by threshold: the precision of everything at or above it, times what recall gains there."""
    if not any(positive for _, positive in pairs):
        return
    total, found, expected = sum(positive for _, positive in pairs), 0, 0.0
    for threshold in sorted({score for score, _ in pairs}, reverse=True):
        above = [positive for score, positive in pairs if score >= threshold]
        expected += (sum(above) - found) / total * sum(above) / len(above)
        found = sum(above)
    scores, positives = (np.array(column) for column in zip(*pairs, strict=True))
    assert average_precision(scores, positives) == pytest.approx(expected)
    assert average_precision(scores * 0.5, positives) == pytest.approx(expected)  # only the order counts


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_calibration_error_is_between_the_overall_gap_and_one(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column) for column in zip(*pairs, strict=True))
    error = calibration_error(confidence, right)
    assert abs(confidence.mean() - right.mean()) - 1e-9 <= error <= 1 + 1e-9
