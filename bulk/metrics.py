"""Accuracies with confidence intervals. numpy alone.

Definitions are MMAction2's (`top_k_accuracy`, `mean_class_accuracy` of its evaluation functions): top-k is the share of
samples whose true class is among the k highest scores; mean class accuracy is the mean, over every class that occurs
among the true or the predicted labels, of the share of its samples whose highest score is right, where a class that is
predicted but has no sample counts as 0. Ties, which MMAction2 leaves to its sort, go to the lower class id, as argmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The normal distribution's 97.5 % quantile: two-sided intervals of 95 %."""

RESAMPLES = 2000
"""Bootstrap resamples; the interval's ends move by less than a tenth of its width from seed to seed."""

_SEED = 20240501


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share in [0, 1] with the two ends of its 95 % interval."""

    value: float
    low: float
    high: float


def true_class_rank(scores: NDArray[np.floating], label: int) -> int:
    """How many classes come before the true one, 0 when it is the first. `scores` is (num_classes,)."""
    true_score = scores[label]
    return int(np.count_nonzero(scores > true_score) + np.count_nonzero(scores[:label] == true_score))


def wilson(hits: int, samples: float, *, effective_samples: float | None = None) -> Estimate:
    """`hits / samples` with Wilson's score interval, which stays within [0, 1] and is right near its ends too.

    `effective_samples` widens the interval where samples depend on each other: the number that would not.
    """
    share = hits / samples
    n = samples if effective_samples is None else effective_samples
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def top_k_accuracy(ranks: NDArray[np.integer], k: int, *, videos: int | None = None) -> Estimate:
    """Share of samples whose true class is among the first `k`, from the true classes' ranks.

    `videos` is how many videos the samples came from, where one gave several: then the interval is a video's, the
    cautious choice, since views of one video tend to be right or wrong together.
    """
    return wilson(int(np.count_nonzero(ranks < k)), len(ranks), effective_samples=videos)


def confusion_matrix(labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """(classes, classes): rows are true classes, columns predicted ones."""
    flat = labels.astype(np.int64) * classes + predicted
    counts: NDArray[np.int64] = np.bincount(flat, minlength=classes * classes).reshape(classes, classes)
    return counts


def class_shares(matrix: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of each class's samples that were right; 0 for a class without samples."""
    counts = matrix.sum(axis=1)
    shares: NDArray[np.float64] = np.divide(np.diag(matrix), counts, out=np.zeros(len(counts)), where=counts > 0)
    return shares


def mean_class_accuracy(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], classes: int, *, groups: NDArray[np.integer]
) -> Estimate:
    """Mean class accuracy with a bootstrap interval: 2.5 % and 97.5 % of RESAMPLES draws, with a fixed seed.

    `groups` numbers the video of each sample from 0; videos are drawn, not samples, so that views stay together.
    """
    (estimate,) = bootstrap(lambda weights: np.array([_mean_class(labels, predicted, weights, classes)]), groups)
    return estimate


def bootstrap(
    statistics: Callable[[NDArray[np.float64]], NDArray[np.float64]], groups: NDArray[np.integer]
) -> list[Estimate]:
    """`statistics` of weights (samples,) gives (figures,); each figure with all weights 1, and its interval over
    RESAMPLES draws of videos. Draws are the same for the same number of videos, so that figures of two models on the
    same videos can be compared draw by draw."""
    values = statistics(np.ones(len(groups)))
    low, high = np.quantile(bootstrap_draws(statistics, groups), [0.025, 0.975], axis=0)
    return [Estimate(*(float(number) for number in each)) for each in zip(values, low, high, strict=True)]


def bootstrap_draws(
    statistics: Callable[[NDArray[np.float64]], NDArray[np.float64]], groups: NDArray[np.integer]
) -> NDArray[np.float64]:
    """(RESAMPLES, figures): the figures of each draw."""
    videos = int(groups.max()) + 1
    generator = np.random.Generator(np.random.PCG64(_SEED))
    draws = []
    for _ in range(RESAMPLES):
        times_drawn = np.bincount(generator.integers(0, videos, videos), minlength=videos)
        draws.append(statistics(times_drawn[groups].astype(np.float64)))
    return np.array(draws)


def _mean_class(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], weights: NDArray[np.float64], classes: int
) -> float:
    samples = np.bincount(labels, weights=weights, minlength=classes)
    hits = np.bincount(labels, weights=weights * (labels == predicted), minlength=classes)
    occurs = (samples > 0) | (np.bincount(predicted, weights=weights, minlength=classes) > 0)
    shares = np.divide(hits, samples, out=np.zeros(classes), where=samples > 0)
    return float(shares[occurs].mean())
