"""Bulk classification on a real Ray cluster of two nodes: every video once, also when a node is lost half-way."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.ray_cluster import TwoNodes
from bulk.shards import JOURNAL
from tests.support.bulk import (
    command,
    make_videos,
    rows_of,
    run,
    run_apart,
    timeless,
    unfinished_rows,
    wait_until,
)
from tests.support.paths import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def expected(archive: Path, two_hundred: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows of a run on this machine, without Ray."""
    out = tmp_path_factory.mktemp("expected") / "out"
    run("classify", archive, two_hundred, "--out", out)
    return out


def assert_same_rows(out: Path, expected: Path) -> None:
    """Each video once, with the answer it gets without Ray."""
    found, wanted = timeless(rows_of(out)), timeless(rows_of(expected))
    assert found.keys() == wanted.keys()
    assert len(found) == 200
    for path, row in found.items():
        assert (row["status"], row["error_type"]) == (wanted[path]["status"], wanted[path]["error_type"])
        assert row["class_ids"] == wanted[path]["class_ids"]
        assert (row["scores"] or []) == pytest.approx(wanted[path]["scores"] or [], rel=1e-5)


def test_two_hundred_videos_on_two_nodes(
    two_nodes: TwoNodes, archive: Path, two_hundred: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run_apart(
        *("classify", archive, two_hundred, "--out", out, "--ray", two_nodes.address, "--format", "parquet"),
        *("--batch-size", "4"),
    )
    assert "200 rows, 200 new, 1 of all failed" in done.stdout
    assert_same_rows(out, expected)


def test_a_node_is_lost_half_way(
    two_nodes: TwoNodes, archive: Path, two_hundred: Path, expected: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ("classify", archive, two_hundred, "--out", out, "--ray", two_nodes.address, "--batch-size", "4")
    process = subprocess.Popen(command(*map(str, arguments)), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (out / JOURNAL).exists() and unfinished_rows(out) >= 100, process, 300)
        two_nodes.lose_one()
        assert unfinished_rows(out) < 200, "the node was lost after the work was done"
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "raylet" not in errors.lower(), errors  # Ray's own report of a lost node is pages long
    finally:
        process.kill()
        process.wait()
    assert_same_rows(out, expected)


def test_evaluate_runs_on_the_same_engine(two_nodes: TwoNodes, archive: Path, tmp_path: Path) -> None:
    paths = make_videos(tmp_path / "videos", 12)
    (tmp_path / "val.txt").write_text("".join(f"{path.name} {index}\n" for index, path in enumerate(paths)))
    arguments: list[str | Path] = ["--annotations", tmp_path / "val.txt", "--videos", tmp_path / "videos", "--no-plots"]
    run("evaluate", archive, *arguments, "--out", tmp_path / "here.json")
    run_apart(
        "evaluate", archive, *arguments, "--out", tmp_path / "ray.json", "--ray", two_nodes.address, "--shared-storage"
    )
    here, there = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("here", "ray"))
    assert there["metrics"] == here["metrics"]
    assert [record["video"] for record in there["videos"]] == [path.name for path in paths]
    for mine, other in zip(here["videos"], there["videos"], strict=True):
        assert other["samples"][0]["scores"] == pytest.approx(mine["samples"][0]["scores"], rel=1e-5)
