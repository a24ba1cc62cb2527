"""The result's pictures: accuracy per class and the confusion matrix. The only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bulk.confused import most_confused

PictureFormat = Literal["svg", "png", "pdf"]

_NAMED_CLASSES = 40
"""More classes than this in one matrix cannot be read: the most confused ones are shown."""
_NUMBERED_CLASSES = 30
"""Up to so many, a cell has room for its number."""
_COLUMN_ROWS = 80
"""Classes below each other; more go into further columns."""
_DPI = 110


def plots_available() -> bool:
    return find_spec("matplotlib") is not None


def write_plots(result: Mapping[str, Any], out: Path, picture: PictureFormat = "svg") -> list[Path]:
    """`OUT.classes.svg`, and where a video has one label `OUT.confusion.svg`, beside the result `OUT.json`; their
    paths. The same result gives the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    paths = [out.with_name(f"{out.stem}.classes.{picture}")]
    # Text stays text, so that a browser can search it; names in the file do not depend on the time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "plots"}):
        _per_class(result, paths[0])
        if result["confusion"] is not None:
            paths.append(out.with_name(f"{out.stem}.confusion.{picture}"))
            _confusion(result, paths[1])
    return paths


def _title(result: Mapping[str, Any]) -> str:
    """Which model, which views, how many videos."""
    job = result["job"]
    name = job.get("model", {}).get("archive", {}).get("name", "")
    views = job.get("options", {}).get("views", "")
    return ", ".join(part for part in (name, f"{views} views" if views else "", _videos(result)) if part)


def _videos(result: Mapping[str, Any]) -> str:
    count = result["counts"]["scored"]
    return f"{count} video{'' if count == 1 else 's'}"


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    when = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:])
    figure.savefig(path, dpi=_DPI, metadata=when)
    plt.close(figure)


def _per_class(result: Mapping[str, Any], path: Path) -> None:
    """Classes from best to worst, with 95 % intervals where they are known; the line is their mean. Of several labels
    a video, average precision stands for accuracy."""
    from matplotlib import pyplot as plt

    key = "accuracy" if result["confusion"] is not None else "average_precision"
    rows = [row for row in result["classes"] if row[key] is not None]
    rows.sort(key=lambda row: (-row[key], row["label"]))
    columns = max(1, -(-len(rows) // _COLUMN_ROWS))
    height = -(-len(rows) // columns)
    figure, grid = plt.subplots(
        1, columns, squeeze=False, figsize=(max(6.5, 4.2 * columns), 1.4 + 0.17 * max(height, 4)), layout="constrained"
    )
    mean = float(np.mean([row[key] for row in rows])) * 100 if rows else 0.0
    for index, axes in enumerate(grid[0]):
        part = rows[index * height : (index + 1) * height]
        _bars(axes, part, key)
        axes.axvline(mean, color="black", linewidth=0.8, linestyle="--")
        axes.set_ylim(height - 0.4, -0.6)
        axes.set_xlabel(f"{'right answers' if key == 'accuracy' else 'average precision'}, percent", fontsize=8)
    figure.suptitle(f"{_title(result)}: {len(rows)} classes, mean {mean:.1f} % (dashed)", fontsize=10)
    _save(figure, path)


def _bars(axes: Any, rows: Sequence[Mapping[str, Any]], key: str) -> None:
    values = np.array([row[key] * 100 for row in rows])
    axes.barh(range(len(rows)), values, color="#8ab6dd", height=0.75)
    if key == "accuracy":
        ends = np.array([[row["accuracy_low"] * 100, row["accuracy_high"] * 100] for row in rows]).reshape(-1, 2)
        below, above = np.maximum(values - ends[:, 0], 0), np.maximum(ends[:, 1] - values, 0)
        axes.errorbar(
            values, range(len(rows)), xerr=[below, above], fmt="none", ecolor="0.35", elinewidth=0.7, capsize=1.2
        )
    axes.set_yticks(range(len(rows)), [f"{_short(row['label'])} ({row['samples']})" for row in rows], fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)


def _confusion(result: Mapping[str, Any], path: Path) -> None:
    """Rows are true classes, as shares of them. Of many classes those that are most often confused, next to whom they
    are confused with, and what else their samples were taken for."""
    from matplotlib import pyplot as plt

    labels = result["labels"]
    counts = np.array(result["confusion"]["counts"], dtype=np.int64).reshape(len(labels), -1)
    occurring = [row["class_id"] for row in result["classes"]]
    is_part = len(occurring) > _NAMED_CLASSES
    ids = most_confused(counts, _NUMBERED_CLASSES) if is_part else occurring
    shown = counts[np.ix_(ids, ids)]
    names = [_short(labels[index]) for index in ids]
    columns = list(names)
    if is_part:
        shown = np.column_stack([shown, counts[ids].sum(axis=1) - shown.sum(axis=1)])
        columns.append("(other classes)")
    totals = counts[ids].sum(axis=1, keepdims=True)
    shares = np.divide(shown * 100.0, totals, out=np.zeros(shown.shape), where=totals > 0)
    size = 2.6 + 0.3 * max(len(ids), 6)
    figure, axes = plt.subplots(figsize=(size + 1.2, size), layout="constrained")
    image = axes.imshow(shares, vmin=0, vmax=100, cmap="Blues")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), [f"{name} ({total})" for name, total in zip(names, totals[:, 0], strict=True)])
    axes.tick_params(axis="y", labelsize=7)
    if len(ids) <= _NUMBERED_CLASSES:
        _numbers(axes, shares)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class (samples)")
    what = f"the {len(ids)} most confused of {len(occurring)} classes" if is_part else f"{len(ids)} classes"
    axes.set_title(f"{_title(result)}\n{what}, percent of the true class", fontsize=9)
    figure.colorbar(image, shrink=0.6)
    _save(figure, path)


def _numbers(axes: Any, shares: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(shares), strict=True):
        share = shares[row, column]
        colour = "white" if share > 55 else "black"
        axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=6, color=colour)


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"
