"""Results of evaluations -> rows of a table for a paper or a README: one row per model and views."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

TableFormat = Literal["markdown", "latex", "csv"]

_NAMES = {
    "top1_accuracy": "top-1",
    "top5_accuracy": "top-5",
    "mean_class_accuracy": "mean class",
    "mean_average_precision": "mAP",
    "macro_top5_accuracy": "macro top-5",
    "f1": "F1",
    "calibration_error": "ECE",
}
_LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


@dataclass(frozen=True, slots=True)
class _Row:
    model: str
    views: str
    videos: int
    metrics: Mapping[str, Mapping[str, Any]]
    """By name: value, low, high, interval; shares from 0 to 1."""


def result_table(results: Sequence[Mapping[str, Any]], style: TableFormat, *, intervals: bool = False) -> str:
    """The rows with a header, figures in percent; a metric that a row lacks is left empty.

    `intervals` puts the ends of the 95 % interval behind each figure that has one. `csv` has them in columns of their
    own. A model with random weights is called so: its figures mean nothing.
    """
    rows = [row for result in results for row in _rows(result)]
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    if style == "csv":
        return _csv(rows, names, intervals=intervals)
    header = ["model", "views", "videos", *(_NAMES.get(name, name.replace("_", " ")) for name in names)]
    cells = [
        [row.model, row.views, str(row.videos), *(_figure(row.metrics.get(name), style, intervals) for name in names)]
        for row in rows
    ]
    return (_markdown if style == "markdown" else _latex)(header, cells)


def _rows(result: Mapping[str, Any]) -> list[_Row]:
    """The run's own views first, then those that were averaged from the same pass."""
    archive = result["job"]["model"]["archive"]
    name = str(archive["name"])
    if archive.get("weights", {}).get("kind") == "random":
        name += " (random weights)"
    videos = result["counts"]["scored"]
    own = _Row(name, result["job"]["options"]["views"], videos, result["metrics"])
    return [own, *(_Row(name, views, videos, metrics) for views, metrics in result["by_views"].items())]


def _figure(metric: Mapping[str, Any] | None, style: TableFormat, intervals: bool) -> str:
    if metric is None:
        return ""
    figure = f"{metric['value'] * 100:.2f}"
    if not intervals or metric["interval"] is None:
        return figure
    dash = "--" if style == "latex" else " to "
    return f"{figure} [{metric['low'] * 100:.2f}{dash}{metric['high'] * 100:.2f}]"


def _lines(header: Sequence[str], cells: Sequence[Sequence[str]], line: Callable[[Sequence[str]], str]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (header, *cells)]
    return [line(row) for row in padded]


def _markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    first, *rest = _lines(header, escaped, lambda row: f"| {' | '.join(row)} |")
    under = " | ".join(["---"] * 2 + ["---:"] * (len(header) - 2))
    return "\n".join([first, f"| {under} |", *rest])


def _latex(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A tabular of the booktabs package."""
    escaped = [[cell.translate(_LATEX) for cell in row] for row in cells]
    first, *rest = _lines(header, escaped, lambda row: f"{' & '.join(row).rstrip()} \\\\")
    begin = f"\\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}"
    return "\n".join([begin, "\\toprule", first, "\\midrule", *rest, "\\bottomrule", "\\end{tabular}"])


def _csv(rows: Sequence[_Row], names: Sequence[str], *, intervals: bool) -> str:
    parts = ("value", "low", "high") if intervals else ("value",)
    header = ["model", "views", "videos"]
    header += [name if part == "value" else f"{name}_{part}" for name in names for part in parts]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        figures = [row.metrics.get(name, {}).get(part) for name in names for part in parts]
        writer.writerow([row.model, row.views, row.videos, *figures])
    return text.getvalue().rstrip("\n")
