"""The benchmark command, once through everything, quickly: a real TorchServe, every contender, a result file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.baselines.ffmpeg_libraries import library_path
from benchmarks.result_file import read_result
from benchmarks.targets import TARGETS
from tests.support.paths import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_quick_run_measures_every_contender(torchserve_installed: None, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    command = [
        sys.executable,
        "-m",
        "scripts.benchmark",
        "all",
        "--quick",
        "--output",
        str(output),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_result(output)

    stages = result["stages"]["resolutions"]["320x240"]
    assert {"ours", "recipe", "floor"} <= set(stages)
    assert set(stages) | set(result["stages"]["absent"]) == {"ours", "recipe", "floor", "torchcodec"}
    if library_path(tmp_path / "lib"):  # FFmpeg's libraries are at hand, so torchcodec has no excuse
        assert stages["torchcodec"]["top5"] == stages["ours"]["top5"]
    assert stages["ours"]["top5"] == stages["recipe"]["top5"]
    assert all(found["total"]["median"] > 0 for found in stages.values())

    for protocol in ("http", "grpc"):
        latency = result["load"]["latency"][protocol]["320x240"]
        assert {name: found["errors"] for name, found in latency.items()} == dict.fromkeys(latency, 0)
        assert latency["ours"]["top5"] == latency["recipe"]["top5"]
        assert len(latency["ours"]["top5"]) == 5
        assert latency["echo"]["latency"]["median"] < latency["ours"]["latency"]["median"]
    throughput = result["load"]["throughput"]
    assert all(throughput[name]["rate"]["median"] > 0 and not throughput[name]["errors"] for name in ("ours", "recipe"))
    assert result["load"]["views"]["320x240"]["errors"] == 0

    ours = result["memory"]["contenders"]["ours"]
    assert ours["processes"] >= 2  # the worker, and what decodes for it
    assert 50 < ours["idle"] < ours["high_water_peak"]
    assert ours["row"]["errors"] == 0
    assert 0 < result["startup"]["ours"]["median"] < 120

    assert [target["name"] for target in result["targets"]] == [target.name for target in TARGETS]
    measured = {target["name"] for target in result["targets"] if target["measured"] is not None}
    memory = {"memory of a worker", "memory of all workers"}
    assert measured == {"latency 320x240", "floor 320x240", "startup", "30 views"} | memory
