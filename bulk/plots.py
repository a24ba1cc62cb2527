"""The result's pictures: accuracy per class and the confusion matrix. The only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

_NAMED_CLASSES = 40
"""More labels than this on one axis cannot be read."""


def plots_available() -> bool:
    return find_spec("matplotlib") is not None


def write_plots(result: Mapping[str, Any], labels: Sequence[str], out: Path) -> list[Path]:
    """`OUT.classes.png` and `OUT.confusion.png` beside the result `OUT.json`; their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    paths = [out.with_name(f"{out.stem}.classes.png"), out.with_name(f"{out.stem}.confusion.png")]
    _per_class(result, paths[0])
    _confusion(result, labels, paths[1])
    return paths


def _per_class(result: Mapping[str, Any], path: Path) -> None:
    """Classes from worst to best; the line is their mean."""
    from matplotlib import pyplot as plt

    rows = sorted((row for row in result["classes"] if row["samples"]), key=lambda row: row["accuracy"])
    figure, axes = plt.subplots(figsize=(8, max(3.0, 0.25 * min(len(rows), 4 * _NAMED_CLASSES))), layout="constrained")
    heights = [row["accuracy"] * 100 for row in rows]
    axes.barh(range(len(rows)), heights, color="tab:blue", height=0.8)
    if len(rows) <= 4 * _NAMED_CLASSES:
        axes.set_yticks(range(len(rows)), [f"{row['label']} ({row['samples']})" for row in rows], fontsize=7)
    else:
        axes.set_ylabel(f"{len(rows)} classes, worst at the bottom")
    if heights:
        axes.axvline(float(np.mean(heights)), color="black", linewidth=1, linestyle="--")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel("right answers, percent")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _confusion(result: Mapping[str, Any], labels: Sequence[str], path: Path) -> None:
    """Classes that occur, each row as a share of its true class."""
    from matplotlib import pyplot as plt

    ids = [row["class_id"] for row in result["classes"]]
    counts = np.array(result["confusion"]["counts"], dtype=np.float64).reshape(len(labels), -1)[np.ix_(ids, ids)]
    shares = np.divide(
        counts,
        counts.sum(axis=1, keepdims=True),
        out=np.zeros_like(counts),
        where=counts.sum(axis=1, keepdims=True) > 0,
    )
    figure, axes = plt.subplots(figsize=(8, 7), layout="constrained")
    image = axes.imshow(shares * 100, vmin=0, vmax=100, cmap="Blues")
    if len(ids) <= _NAMED_CLASSES:
        axes.set_xticks(range(len(ids)), [labels[index] for index in ids], rotation=90, fontsize=7)
        axes.set_yticks(range(len(ids)), [labels[index] for index in ids], fontsize=7)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(image, label="percent of the true class")
    figure.savefig(path, dpi=110)
    plt.close(figure)
