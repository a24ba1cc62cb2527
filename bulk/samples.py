"""Records of scored videos -> arrays, and every metric of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bulk.class_metrics import (
    LABEL_THRESHOLD,
    average_precisions,
    calibration_error,
    label_precision_recall_f1,
    macro_top_k,
    precision_recall_f1,
)
from bulk.metrics import Estimate, mean_class_accuracy, top_k_accuracy

Metric = Literal[
    "top_k_accuracy",
    "mean_class_accuracy",
    "macro_top5_accuracy",
    "precision_recall_f1",
    "mean_average_precision",
    "calibration_error",
]
TOP_K = (1, 5)
_NO_RANK = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Every sample that was scored, (samples,) each: what was predicted and with which probability, the place of the
    true class (the first of them) among all, and whose sample it is, videos numbered from 0.

    `labels` are the true classes where there is one a video, `truth` is (samples, classes) where there are several,
    the other is None. `scores` is (samples, classes), None where only the best five were kept.
    """

    classes: int
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    ranks: NDArray[np.int64]
    groups: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    truth: NDArray[np.bool_] | None
    scores: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def has(self) -> NDArray[np.bool_]:
        """(samples, classes): which classes each one has."""
        if self.truth is not None:
            return self.truth
        assert self.labels is not None
        return np.asarray(self.labels[:, None] == np.arange(self.classes))

    @property
    def said(self) -> NDArray[np.bool_] | None:
        """(samples, classes): which labels a model of several says to hold."""
        return None if self.scores is None else np.asarray(self.scores >= LABEL_THRESHOLD)


def samples_of(records: Sequence[Mapping[str, Any]], classes: int, *, several_labels: bool) -> Samples:
    """Of the records of scored videos, in their order."""
    rows = [(group, record, sample) for group, record in enumerate(records) for sample in record["samples"]]
    truth = None
    if several_labels:
        truth = np.zeros((len(rows), classes), dtype=np.bool_)
        for index, (_, record, _) in enumerate(rows):
            truth[index, record["labels"]] = True
    scores = None
    if all("scores" in sample for _, _, sample in rows):
        scores = np.array([sample["scores"] for _, _, sample in rows], dtype=np.float32).reshape(-1, classes)
    return Samples(
        classes=classes,
        predicted=_whole(sample["predicted"] for _, _, sample in rows),
        confidence=np.array([_confidence(sample) for _, _, sample in rows], dtype=np.float64),
        ranks=_whole(_NO_RANK if sample["rank"] is None else sample["rank"] for _, _, sample in rows),
        groups=_whole(group for group, _, _ in rows),
        labels=None if several_labels else _whole(record["label"] for _, record, _ in rows),
        truth=truth,
        scores=scores,
    )


def metrics_of(samples: Samples, wanted: Sequence[Metric]) -> dict[str, Any]:
    """Name -> value and interval, JSON values, in the order of `Metric`; what these samples cannot tell is left out."""
    found: dict[str, Any] = {}
    videos = len(np.unique(samples.groups))
    if "top_k_accuracy" in wanted:
        for k in TOP_K:
            estimate = top_k_accuracy(samples.ranks, min(k, samples.classes), videos=videos)
            found[f"top{k}_accuracy"] = {**asdict(estimate), "interval": "Wilson"}
    estimates = _of_one_label(samples, wanted) if samples.truth is None else _of_several(samples, wanted)
    found |= {name: {**asdict(estimate), "interval": "bootstrap"} for name, estimate in estimates.items()}
    if "mean_average_precision" in wanted and samples.scores is not None and samples.has.any():
        found["mean_average_precision"] = _without_interval(float(np.nanmean(class_precisions(samples))))
    if "calibration_error" in wanted and samples.labels is not None:
        right = samples.predicted == samples.labels
        found["calibration_error"] = _without_interval(calibration_error(samples.confidence, right))
    return found


def class_precisions(samples: Samples) -> NDArray[np.float64]:
    """Average precision of each class, (classes,); NaN where it has no sample or the scores were not kept."""
    if samples.scores is None:
        return np.full(samples.classes, np.nan)
    return average_precisions(samples.scores, samples.has)


def _without_interval(value: float) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None, "interval": None}


def _of_one_label(samples: Samples, wanted: Sequence[Metric]) -> dict[str, Estimate]:
    assert samples.labels is not None
    labels, predicted, classes, groups = samples.labels, samples.predicted, samples.classes, samples.groups
    found: dict[str, Estimate] = {}
    if "mean_class_accuracy" in wanted:
        found["mean_class_accuracy"] = mean_class_accuracy(labels, predicted, classes, groups=groups)
    if "macro_top5_accuracy" in wanted:
        found["macro_top5_accuracy"] = macro_top_k(labels, samples.ranks, min(5, classes), classes, groups=groups)
    if "precision_recall_f1" in wanted:
        found |= precision_recall_f1(labels, predicted, classes, groups=groups)
    return found


def _of_several(samples: Samples, wanted: Sequence[Metric]) -> dict[str, Estimate]:
    assert samples.truth is not None
    if "precision_recall_f1" not in wanted or samples.said is None:
        return {}
    return label_precision_recall_f1(samples.truth, samples.said, groups=samples.groups)


def _confidence(sample: Mapping[str, Any]) -> float:
    if "scores" in sample:
        return float(sample["scores"][sample["predicted"]])
    return float(sample["top_scores"][0])


def _whole(values: Any) -> NDArray[np.int64]:
    return np.array(list(values), dtype=np.int64)
