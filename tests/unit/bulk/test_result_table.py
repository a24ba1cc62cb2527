"""Results as rows of a table: what is in them, and each format's own escapes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from bulk.result_table import result_table
from scripts.table import main


def metric(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "interval": None if low is None else "Wilson"}


def result(name: str, metrics: dict[str, Any], *, kind: str = "checkpoint", **others: Any) -> dict[str, Any]:
    return {
        "complete": True,
        "labels": ["a", "b"],
        "videos": [],
        "job": {"model": {"archive": {"name": name, "weights": {"kind": kind}}}, "options": {"views": "10x3"}},
        "counts": {"scored": 60},
        "metrics": metrics,
        "by_views": {},
        **others,
    }


MINE = result(
    "my_model",
    {"top1_accuracy": metric(0.9833, 0.9114, 0.9971), "calibration_error": metric(0.0125)},
    by_views={"1x1": {"top1_accuracy": metric(0.95)}},
)
OTHER = result("other|one", {"top1_accuracy": metric(0.5), "f1": metric(0.25)}, kind="random")


def test_markdown_has_a_row_for_each_model_and_views() -> None:
    assert result_table([MINE, OTHER], "markdown").splitlines() == [
        "| model                       | views | videos | top-1 | ECE  | F1    |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| my_model                    | 10x3  | 60     | 98.33 | 1.25 |       |",
        "| my_model                    | 1x1   | 60     | 95.00 |      |       |",
        "| other\\|one (random weights) | 10x3  | 60     | 50.00 |      | 25.00 |",
    ]


def test_latex_is_escaped_and_has_intervals() -> None:
    lines = result_table([MINE], "latex", intervals=True).splitlines()
    assert lines[0] == r"\begin{tabular}{llrrr}"
    assert [line.split(" & ")[0].strip() for line in lines[4:6]] == ["my\\_model"] * 2
    assert lines[4] == r"my\_model & 10x3  & 60     & 98.33 [91.14--99.71] & 1.25 \\"
    assert lines[-1] == r"\end{tabular}"


def test_csv_has_shares_and_bounds_in_columns_of_their_own() -> None:
    text = result_table([MINE, result('a,"b"', {"top1_accuracy": metric(0.5)})], "csv", intervals=True)
    first, second, third = csv.DictReader(io.StringIO(text))
    assert (first["model"], first["videos"]) == ("my_model", "60")
    assert [float(first[f"top1_accuracy{part}"]) for part in ("", "_low", "_high")] == [0.9833, 0.9114, 0.9971]
    assert (second["views"], second["calibration_error"], second["top1_accuracy_low"]) == ("1x1", "", "")
    assert third["model"] == 'a,"b"'


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished, half = tmp_path / "mine.json", tmp_path / "half.json"
    finished.write_text(json.dumps(MINE))
    half.write_text(json.dumps({**MINE, "complete": False}))
    assert main([str(finished), "--format", "latex"]) == 0
    assert capsys.readouterr().out == result_table([MINE], "latex") + "\n"
    assert main([str(finished), str(half)]) == 2
    assert "half.json is not a finished result" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([])
