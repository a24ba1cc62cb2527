"""Two evaluations of the same videos -> what differs, and whether that is more than chance.

The videos are the sample: McNemar's exact test asks whether one model is right where the other is wrong more often than
a fair coin would be; the paired bootstrap draws videos, both models' answers together, so that hard videos are hard for
both. Q. McNemar, Psychometrika 12 (1947); B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulk.class_metrics import class_counts, label_counts
from bulk.metrics import Estimate, bootstrap_draws
from bulk.samples import Samples, class_precisions, samples_of
from handlers.errors import SetupError


class NotComparable(SetupError):
    """The two results are not of the same videos, classes and truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A metric of both, and B minus A with the ends of its 95 % interval, None where none is computed."""

    name: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How many videos both, one alone, or none got right (top-1), and McNemar's exact two-sided p-value."""

    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`videos` were scored by both; those that only one scored are left out."""

    videos: int
    only_scored_by_a: int
    only_scored_by_b: int
    differences: tuple[Difference, ...]
    agreement: Agreement


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> Comparison:
    """Of two results of scripts.evaluate. Raises NotComparable."""
    if a["labels"] != b["labels"]:
        raise NotComparable("the two models have different classes, or the same in another order")
    first, second = (_scored(result, which) for result, which in ((a, "first"), (b, "second")))
    shared = [video for video in first if video in second]
    if not shared:
        raise NotComparable("no video was scored by both")
    several = "labels" in first[shared[0]]
    key = "labels" if several else "label"
    for video in shared:
        if first[video].get(key) != second[video].get(key):
            raise NotComparable(f"{video} has other labels in the second result than in the first")
    classes = len(a["labels"])
    samples = [
        samples_of([each[video] for video in shared], classes, several_labels=several) for each in (first, second)
    ]
    return Comparison(
        videos=len(shared),
        only_scored_by_a=len(first) - len(shared),
        only_scored_by_b=len(second) - len(shared),
        differences=_differences(samples[0], samples[1]),
        agreement=agreement(samples[0].ranks == 0, samples[1].ranks == 0),
    )


def agreement(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> Agreement:
    """Of two models' answers to the same videos, (videos,) each."""
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    return Agreement(
        both=int((right_a & right_b).sum()),
        only_a=only_a,
        only_b=only_b,
        neither=int((~right_a & ~right_b).sum()),
        p_value=mcnemar_exact(only_a, only_b),
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided: the probability that a fair coin, thrown once for each video that one model alone got right, falls at
    least as unevenly."""
    throws = only_a + only_b
    tail = sum(comb(throws, index) for index in range(min(only_a, only_b) + 1))
    return min(1.0, float(Fraction(2 * tail, 2**throws)))


def _scored(result: Mapping[str, Any], which: str) -> dict[str, Mapping[str, Any]]:
    records = {record["video"]: record for record in result["videos"] if "samples" in record}
    if any(len(record["samples"]) != 1 for record in records.values()):
        raise NotComparable(f"the {which} result has a sample for each view; evaluate with --average prob or score")
    return records


def _differences(a: Samples, b: Samples) -> tuple[Difference, ...]:
    names = ["top1_accuracy", "top5_accuracy"]
    names += ["precision", "recall", "f1"] if a.labels is None else ["mean_class_accuracy", "precision", "f1"]

    def figures(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([_figures(a, weights), _figures(b, weights)])

    values = figures(np.ones(len(a))).reshape(2, -1)
    draws = bootstrap_draws(figures, np.arange(len(a))).reshape(-1, 2, values.shape[1])
    low, high = np.quantile(draws[:, 1] - draws[:, 0], [0.025, 0.975], axis=0)
    found = [
        _difference(name, values[0, index], values[1, index], Estimate(0.0, low[index], high[index]))
        for index, name in enumerate(names)
    ]
    if a.scores is not None and b.scores is not None and a.has.any():
        first, second = (float(np.nanmean(class_precisions(each))) for each in (a, b))
        found.append(_difference("mean_average_precision", first, second, None))
    return tuple(found)


def _difference(name: str, a: float, b: float, interval: Estimate | None) -> Difference:
    return Difference(
        name=name,
        a=float(a),
        b=float(b),
        difference=float(b - a),
        low=None if interval is None else float(interval.low),
        high=None if interval is None else float(interval.high),
    )


def _figures(samples: Samples, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Top-1, top-5 and three macro means, in the order of the names in `_differences`."""
    top = [float(weights @ (samples.ranks < min(k, samples.classes))) / weights.sum() for k in (1, 5)]
    if samples.labels is None:
        if samples.said is None:
            raise NotComparable("several labels a video need all scores")
        return np.array([*top, *label_counts(samples.has, samples.said, weights).macro()])
    precision, recall, f1 = class_counts(samples.labels, samples.predicted, samples.classes, weights).macro()
    return np.array([*top, recall, precision, f1])


def text_of(found: Comparison, names: Sequence[str]) -> str:
    """For people; `names` of the two results."""
    lines = [f"{found.videos} videos scored by both, A = {names[0]}, B = {names[1]}"]
    for which, count in (("A", found.only_scored_by_a), ("B", found.only_scored_by_b)):
        if count:
            lines.append(f"  {count} videos were scored by {which} alone and are left out")
    lines.append(f"  {'':<24}{'A':>8} {'B':>10} {'B - A':>10}   95 % interval (paired bootstrap), percentage points")
    for each in found.differences:
        interval = ""
        if each.low is not None and each.high is not None:
            verdict = "" if each.low <= 0 <= each.high else "   without 0"
            interval = f"   {each.low * 100:+.2f} to {each.high * 100:+.2f}{verdict}"
        name = each.name.replace("_", " ")
        figures = f"{each.a * 100:6.2f} % {each.b * 100:8.2f} % {each.difference * 100:+10.2f}"
        lines.append(f"  {name:<24}{figures}{interval}")
    both = found.agreement
    lines.append(
        f"  right: both {both.both}, only A {both.only_a}, only B {both.only_b}, neither {both.neither}; "
        f"McNemar's exact test: p = {both.p_value:.3g}"
    )
    return "\n".join(lines)
