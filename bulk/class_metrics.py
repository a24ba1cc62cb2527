"""Precision, recall and F1, top-k per class, average precision, calibration. numpy alone.

Definitions are scikit-learn's with `average="macro"` and `zero_division=0`, over the classes that occur among the true
or the predicted labels; average precision is its `average_precision_score`, which is MMAction2's
`mean_average_precision` too: the area under the steps of the precision-recall curve, equal scores taken together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bulk.metrics import Estimate, bootstrap

CALIBRATION_BINS = 15
"""Of equal width, as in C. Guo et al., On Calibration of Modern Neural Networks (2017)."""

LABEL_THRESHOLD = 0.5
"""A model of several labels says that one holds from this probability on."""


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """Per class, (classes,) each: samples that have it and were said to, were said to and have it not, have it and
    were not said to."""

    hits: NDArray[np.float64]
    false_alarms: NDArray[np.float64]
    misses: NDArray[np.float64]

    @property
    def precision(self) -> NDArray[np.float64]:
        """0 for a class that is never predicted."""
        return _ratio(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> NDArray[np.float64]:
        """0 for a class without samples."""
        return _ratio(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> NDArray[np.float64]:
        return _ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)

    @property
    def occurs(self) -> NDArray[np.bool_]:
        """Classes that are true or predicted anywhere."""
        return np.asarray(self.hits + self.false_alarms + self.misses > 0)

    def macro(self) -> NDArray[np.float64]:
        """(3,): precision, recall and F1, means over the classes that occur; 0 where none does."""
        if not self.occurs.any():
            return np.zeros(3)
        return np.array([each[self.occurs].mean() for each in (self.precision, self.recall, self.f1)])


def class_counts(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: int,
    weights: NDArray[np.float64] | None = None,
) -> ClassCounts:
    """Of one label a sample: `labels` and `predicted` are (samples,) class ids."""
    each = np.ones(len(labels)) if weights is None else weights
    hits = _sums(labels, each * (labels == predicted), classes)
    said, true = _sums(predicted, each, classes), _sums(labels, each, classes)
    return ClassCounts(hits, said - hits, true - hits)


def label_counts(
    truth: NDArray[np.bool_], said: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
) -> ClassCounts:
    """Of several labels a sample: both are (samples, classes)."""
    each = np.ones(len(truth)) if weights is None else weights
    return ClassCounts(each @ (truth & said), each @ (~truth & said), each @ (truth & ~said))


def precision_recall_f1(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: int, *, groups: NDArray[np.integer]
) -> dict[str, Estimate]:
    """The macro means with bootstrap intervals over the videos in `groups`."""
    found = bootstrap(lambda weights: class_counts(labels, predicted, classes, weights).macro(), groups)
    return dict(zip(("precision", "recall", "f1"), found, strict=True))


def label_precision_recall_f1(
    truth: NDArray[np.bool_], said: NDArray[np.bool_], *, groups: NDArray[np.integer]
) -> dict[str, Estimate]:
    """The same where a sample has several labels; both are (samples, classes)."""
    found = bootstrap(lambda weights: label_counts(truth, said, weights).macro(), groups)
    return dict(zip(("precision", "recall", "f1"), found, strict=True))


def macro_top_k(
    labels: NDArray[np.integer], ranks: NDArray[np.integer], k: int, classes: int, *, groups: NDArray[np.integer]
) -> Estimate:
    """Mean over the classes that have samples of the share whose true class is among the first `k`."""

    def mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        samples, hits = _sums(labels, weights, classes), _sums(labels, weights * (ranks < k), classes)
        return np.array([_ratio(hits, samples)[samples > 0].mean()])

    (estimate,) = bootstrap(mean, groups)
    return estimate


def average_precision(scores: NDArray[np.floating], positives: NDArray[np.bool_]) -> float:
    """Of one class; both are (samples,), with at least one positive. Sum over the distinct scores, from the highest
    down, of the step in recall times the precision there."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(positives[order])
    last_of_score = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    found = hits[last_of_score]
    precision = found / (last_of_score + 1)
    return float(np.sum(np.diff(found, prepend=0) / hits[-1] * precision))


def average_precisions(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(classes,) from (samples, classes); NaN for a class that no sample has."""
    return np.array(
        [
            average_precision(scores[:, index], truth[:, index]) if truth[:, index].any() else np.nan
            for index in range(truth.shape[1])
        ]
    )


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error: the mean over samples of the distance between the mean confidence and the share of
    right answers in the sample's bin. Bins are `(low, high]`, the first one `[0, high]`."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    sums = np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS)
    hits = np.bincount(bins, weights=right, minlength=CALIBRATION_BINS)
    return float(np.abs(sums - hits).sum() / len(confidence))


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
    return ratio


def _sums(ids: NDArray[np.integer], weights: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """(classes,): the weights of each class added up."""
    sums: NDArray[np.float64] = np.bincount(ids, weights=weights, minlength=classes).astype(np.float64)
    return sums
