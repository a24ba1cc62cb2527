"""Evaluation on videos whose label is known for certain: clips rendered with a chosen camera motion.

Ten clips, with `--all` also 20 and 500, or EVALUATE_CLIPS; rendering a clip takes about a second of one core.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import requests

from camera_motion.sample_clips import LABELS, make_clip
from serving.server import TorchServe
from tests.support.bulk import run

FEW = 20
FEWEST = 10
MANY = int(os.environ.get("EVALUATE_CLIPS", "500"))
_PATIENCE_SEC = 1500  # for rendering, evaluating and asking the server: eight minutes of two cores


@pytest.fixture(scope="module", params=[FEWEST])
def clips(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of that many clips and their list, val.csv, by name."""
    count: int = request.param
    folder = tmp_path_factory.mktemp("clips")
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        rendered = pool.map(_clip, range(count))
        for index, clip in enumerate(rendered):
            (folder / _name(index)).write_bytes(clip)
    rows = [f"{_name(index)},{_label(index)}" for index in range(count)]
    (folder / "val.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return folder


def _clip(index: int) -> bytes:
    return make_clip(_label(index), seed=10_000 + index, strength=0.3 + 0.4 * (index % 3) / 2)


def _label(index: int) -> str:
    return LABELS[index % len(LABELS)]


def _name(index: int) -> str:
    return f"c{index:03d}.mp4"


@pytest.mark.parametrize(
    "clips",
    [
        pytest.param(FEW, marks=pytest.mark.slow),
        pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(_PATIENCE_SEC)]),
    ],
    indirect=True,
    ids=["few", "many"],
)
def test_accuracy_is_the_servers(
    server: TorchServe, camera_motion: str, camera_motion_archive: Path, clips: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    annotations = clips / "val.csv"
    run("evaluate", camera_motion_archive, "--annotations", annotations, "--videos", clips, "--out", out, "--no-plots")
    result = json.loads(out.read_text())
    count = len(list(clips.glob("*.mp4")))
    right = 0
    for record in result["videos"]:
        answer = requests.post(
            camera_motion,
            data=(clips / record["video"]).read_bytes(),
            headers={**server.headers(), "Content-Type": "video/mp4"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        first = next(iter(answer.json()))
        right += first == LABELS[record["label"]]
        assert first == LABELS[record["samples"][0]["predicted"]]
    assert result["counts"]["scored"] == count
    assert result["metrics"]["top1_accuracy"]["value"] == right / count
    assert right / count > 0.7  # chance is 0.1


def test_ten_by_three_views(camera_motion_archive: Path, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    options = ("--views", "10x3", "--average-clips", "none", "--no-plots")
    annotations = clips / "val.csv"
    run("evaluate", camera_motion_archive, "--annotations", annotations, "--videos", clips, "--out", out, *options)
    result = json.loads(out.read_text())
    assert result["counts"] == {
        "annotated": FEWEST,
        "scored": FEWEST,
        "missing": 0,
        "broken": 0,
        "samples": 30 * FEWEST,
    }
