"""The sizing command once through, on the smallest model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.sizing import main

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_one_model(torchserve_installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sizing.json"
    output.write_text(json.dumps({"specs": {}}))
    assert main(["x3d_xs", "--output", str(output), "--no-progress"]) == 0
    row = json.loads(output.read_text())["specs"]["x3d_xs"]
    assert row["requests"] >= 3
    assert 100 < row["further_worker_mb"] < row["first_worker_mb"] < 1000
    assert row["clip_core_sec"] > 0
    assert row["ready_core_sec"] > 0
    assert 15 < row["archive_mb"] < 60  # 3.8 million float32, once or twice
    assert "`x3d_xs`" in capsys.readouterr().out
