"""The sizing command's table and its refusals; what it measures is run on a server elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.result_file import InvalidResult
from benchmarks.sizing import main, read_sizing, sizing_table
from handlers.specs import SPECS


def row(clip_core_sec: float, load: float) -> dict[str, Any]:
    return {
        "archive_mb": 31.2,
        "first_worker_mb": 293,
        "further_worker_mb": 212,
        "ready_sec": 2.24,
        "ready_core_sec": 1.4,
        "clip_core_sec": clip_core_sec,
        "machine": {"cpu": "a processor", "cores": 2},
        "versions": {"openvino": "1", "torch": "2"},
        "load_average": [load, 0, 0],
    }


def test_the_table_goes_from_cheap_to_dear_and_says_on_what() -> None:
    lines = sizing_table({"specs": {"b": row(1.5, 4.0), "a": row(0.051, 0.5)}}).splitlines()
    assert lines[2] == "| `a` | 31 MB | 293 MB | 212 MB | 2.2 s | 1.4 core-s | 0.05 core-s |"
    assert lines[3].startswith("| `b` |")
    conditions, _, missing = lines[-1].partition(" Not measured: ")
    assert conditions == "a processor, 2 cores; openvino 1, torch 2; load average 0.5 to 4.0."
    assert missing.count("`") == 2 * len(SPECS)
    everything = sizing_table({"specs": dict.fromkeys(SPECS, row(1.0, 1.0))})
    assert "Not measured" not in everything
    assert sizing_table({"specs": {}}) == "Nothing has been measured yet."


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InvalidResult, match="is not a result of"):
        read_sizing(tmp_path / "other.json")
    for arguments in (["nope"], ["x3d_xs", "--output", str(tmp_path / "other.json")]):
        with pytest.raises(SystemExit) as exited:
            main(arguments)
        assert exited.value.code == 2
    assert "unknown spec 'nope'; known: x3d_xs" in capsys.readouterr().err
