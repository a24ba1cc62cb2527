"""What each class's samples say: a row of the result and of the CSV beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bulk.class_metrics import ClassCounts, class_counts, label_counts
from bulk.metrics import confusion_matrix, wilson
from bulk.samples import Samples, class_precisions

COLUMNS = (
    *("class_id", "label", "samples", "right", "accuracy", "accuracy_low", "accuracy_high", "precision", "recall"),
    *("f1", "average_precision", "most_often_taken_for", "times_taken_for"),
)


def class_rows(samples: Samples, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Every class that occurs, true or predicted, in the order of the ids. None where there is nothing to say.

    `accuracy` is the share of the class's samples whose highest score is right, with Wilson's 95 % interval as for
    independent samples; where a video has several labels there is none. `right` are samples that have the class and
    were said to.
    """
    counts = _counts(samples)
    if counts is None:
        return []
    averages = class_precisions(samples)
    confused = None
    if samples.labels is not None:
        confused = confusion_matrix(samples.labels, samples.predicted, samples.classes)
        np.fill_diagonal(confused, 0)
    rows = []
    for index in np.flatnonzero(counts.occurs).tolist():
        number = int(counts.hits[index] + counts.misses[index])
        accuracy = wilson(int(counts.hits[index]), number) if number and confused is not None else None
        wrong = None if confused is None or not confused[index].any() else int(confused[index].argmax())
        rows.append(
            {
                "class_id": index,
                "label": labels[index],
                "samples": number,
                "right": int(counts.hits[index]),
                "accuracy": None if accuracy is None else accuracy.value,
                "accuracy_low": None if accuracy is None else accuracy.low,
                "accuracy_high": None if accuracy is None else accuracy.high,
                "precision": float(counts.precision[index]),
                "recall": float(counts.recall[index]) if number else None,
                "f1": float(counts.f1[index]),
                "average_precision": None if np.isnan(averages[index]) else float(averages[index]),
                "most_often_taken_for": None if wrong is None else labels[wrong],
                "times_taken_for": 0 if confused is None or wrong is None else int(confused[index, wrong]),
            }
        )
    return rows


def class_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as CSV with a header; nothing stands for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _counts(samples: Samples) -> ClassCounts | None:
    """None where there is no sample, or several labels and no scores to tell which hold."""
    if not len(samples):
        return None
    if samples.labels is not None:
        return class_counts(samples.labels, samples.predicted, samples.classes)
    return None if samples.said is None else label_counts(samples.has, samples.said)
