"""The embedded model through a real TorchServe, and the page `Your own model`, command by command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from camera_motion.sample_clips import LABELS, make_clip, sample_clip
from serving.package import PackageOptions, package
from serving.server import TorchServe
from serving.shell_exports import key_function
from tests.support.bulk import make_videos
from tests.support.pages import blocks as page_blocks
from tests.support.pages import run_blocks
from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "your-own-model.md"


def blocks(language: str) -> list[str]:
    """The page's fenced blocks of that language that are to be run, in order."""
    return [block.code for block in run_blocks(PAGE, language)]


def ask(server: TorchServe, url: str, clip: bytes) -> dict[str, float]:
    answer = requests.post(url, data=clip, headers=server.headers(), timeout=60)
    assert answer.status_code == 200, answer.text
    scores: dict[str, float] = answer.json()
    return scores


@pytest.mark.parametrize("seed", [7, 11, 23])
def test_pan_and_its_reversal_get_their_names(server: TorchServe, camera_motion: str, seed: int) -> None:
    """A wrong frame order, colour range or normalisation anywhere between the bytes and the model fails here."""
    left = ask(server, camera_motion, make_clip("pan left", seed=seed))
    right = ask(server, camera_motion, make_clip("pan left", seed=seed, reverse=True))
    assert next(iter(left)) == "pan left"
    assert left["pan left"] > 0.8, left
    assert next(iter(right)) == "pan right"
    assert right["pan right"] > 0.8, right


def test_the_readme_shows_the_samples_own_answer(server: TorchServe, camera_motion: str, tmp_path: Path) -> None:
    """To half a percent: each machine encodes the sample clip with other last bits."""
    (shown,) = (
        json.loads(block.code) for block in page_blocks(REPOSITORY / "README.md", "json") if "pan" in block.code
    )
    got = ask(server, camera_motion, sample_clip(tmp_path / "sample.mp4").read_bytes())
    assert next(iter(got)) == next(iter(shown))
    assert {label: got.get(label, 0.0) for label in shown} == pytest.approx(shown, abs=5e-3)


def test_all_ten_labels_are_served(server: TorchServe, camera_motion: str) -> None:
    answer = requests.post(
        camera_motion, data=make_clip("zoom in", seed=5), headers={**server.headers(), "X-Top-K": "10"}, timeout=60
    )
    scores = answer.json()
    assert sorted(scores) == sorted(LABELS)
    assert sum(scores.values()) == pytest.approx(1.0, abs=1e-5)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, server: TorchServe) -> Path:
    """A folder as the page's reader has it: the server's key file and a clip."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copy(server.key_file, folder)
    (folder / "clip.mp4").write_bytes(make_clip("static", seed=1))
    return folder


def run(block: str, folder: Path, server: TorchServe) -> str:
    """The block's output, run by bash in `folder` with this interpreter as `python` and the server's own ports."""
    ports = {":8080": f":{server.ports.inference}", ":8081": f":{server.ports.management}"}
    for documented, real in ports.items():
        block = block.replace(documented, real)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{key_function()}\n{block}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_page_leads_from_a_state_dict_to_an_answer(server: TorchServe, model_store: Path, workplace: Path) -> None:
    fine_tune, _ = blocks("python")
    for label in ("wave", "clap", "point"):
        make_videos(workplace / "videos" / label, 2)
    trained = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", fine_tune], cwd=workplace, check=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip
    assert re.match(r"epoch 0: loss \d\.\d+, validation top-1 \d+\.0%, mean class \d+\.0%", trained.stdout)
    packaging, registering, asking, _ = blocks("bash")
    assert "mine.mar" in run(packaging, workplace, server)
    shutil.copy(workplace / "model_store" / "mine.mar", model_store)
    assert "registered" in run(registering, workplace, server)
    scores = json.loads(run(asking, workplace, server))
    assert sorted(scores) == ["clap", "point", "wave"]
    assert sum(scores.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_network_of_ones_own_is_exported_as_the_page_says(workplace: Path) -> None:
    _, export = blocks("python")
    subprocess.run([sys.executable, "-W", "ignore", "-c", export], cwd=workplace, check=True, timeout=120)
    assert (workplace / "network.pt2").is_file()
    (workplace / "my_network.yaml").write_text(
        "{architecture: graph, graph: network.pt2, num_frames: 4, sampling_rate: 2, short_side: 128, crop_size: 112, "
        "num_classes: 3, mean: 0.45, std: 0.225}"
    )
    (workplace / "three.txt").write_text("wave\nclap\npoint\n")
    options = PackageOptions(
        spec=str(workplace / "my_network.yaml"), labels=workplace / "three.txt", output=workplace, progress=False
    )
    assert package(options).info.num_classes == 3


@pytest.mark.slow
def test_the_worked_example_packages_and_films(workplace: Path, server: TorchServe) -> None:
    run(blocks("bash")[3], workplace, server)
    assert (workplace / "model_store" / "camera_motion.mar").is_file()
    assert (workplace / "pan_left.mp4").stat().st_size > 1000


def test_every_option_on_the_page_is_one_of_the_script(server: TorchServe, workplace: Path) -> None:
    usage = run("python -m scripts.train_camera_motion --help", workplace, server)
    table = PAGE.read_text().partition("| option of")[2]
    documented = set(re.findall(r"`(--[a-z-]+)", table))
    assert documented
    assert documented <= set(re.findall(r"--[a-z-]+", usage))
