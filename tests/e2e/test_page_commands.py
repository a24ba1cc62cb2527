"""The commands of README.md and of the pages that no other test runs, as they stand and in their order.

Each page has a copy of the repository, with ports of its own and with random weights in the place where a download of
the published ones is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from handlers.specs import get_spec
from serving import weights_cache
from serving.archive_settings import read_archive
from serving.install import REQUIREMENTS, installed
from serving.server import stop_processes
from serving.weights import random_weights
from tests.support.checkout import Checkout, copy_checkout
from tests.support.pages import Block, blocks, run_blocks
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.e2e

SPEC = get_spec("x3d_s")
README = REPOSITORY / "README.md"


@pytest.fixture
def checkout(
    torchserve_installed: None, tmp_path: Path, h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Checkout]:
    """What a reader of the pages has: a clone, a cache with the weights of x3d_s, videos, a checkpoint and labels."""
    if not installed(REQUIREMENTS / "base.txt"):
        pytest.skip("this environment was not made by ./scripts/test, so quickstart would install into it")
    copy = copy_checkout(tmp_path / "checkout")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(copy.root / "torch_home" / "hub"))
    plant_published_weights()
    for name in ("video.mp4", "clips/a.mp4", "val/a.mp4", "kinetics400/val/a.mp4"):
        path = copy.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(h264_video)
    (copy.root / "val.csv").write_text("path,label\na.mp4,archery\n")
    own = random_weights(SPEC, num_classes=3, seed=1).state_dict
    for checkpoint, labels in (("best.pth", "labels.txt"), ("runs/best.pth", "my_labels.txt")):
        (copy.root / checkpoint).parent.mkdir(exist_ok=True)
        torch.save({"model_state": dict(own)}, copy.root / checkpoint)
        (copy.root / labels).write_text("wave\nclap\npoint\n")
    yield copy
    stop_processes(copy.processes())


def plant_published_weights() -> None:
    """Random weights where the download of the published ones is kept, with the record of their SHA-256."""
    assert SPEC.weights.url is not None
    path = weights_cache.cache_path(SPEC.weights.url)
    path.parent.mkdir(parents=True)
    state = random_weights(SPEC, num_classes=SPEC.num_classes, seed=0).state_dict
    torch.save({"model_state": dict(state)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")


def run_page(page: Path, checkout: Checkout) -> dict[str, str]:
    """Run the page's blocks one after the other, as in one terminal; what each printed, by its place.

    `scripts/env` is sourced for a block when the page said to do so before it.
    """
    lines, outputs = page.read_text(encoding="utf-8").splitlines(), {}
    for block in run_blocks(page, "bash", "python"):
        sourced = any("source scripts/env" in line for line in lines[: block.line])
        outputs[str(block)] = run_block(block, checkout, sourced=sourced)
    return outputs


def run_block(block: Block, checkout: Checkout, *, sourced: bool) -> str:
    code = block.code
    for port, own in ((8080, checkout.ports.inference), (8081, checkout.ports.management)):
        code = code.replace(f":{port}", f":{own}")
    if block.language == "python":
        command = [sys.executable, "-c", code]
    else:
        command = ["bash", "-euo", "pipefail", "-c", "source scripts/env\n" * sourced + code]
    log = checkout.root / f"block-{block.page.stem}-{block.line}.log"
    env = {**os.environ, "TORCH_HOME": str(checkout.root / "torch_home")}
    # Into a file of its own: a server that a block starts keeps its output open and goes on writing.
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=checkout.root, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    text = log.read_text(errors="replace")
    assert done.returncode == 0, f"{block}\n{code}\n{text}"
    return text


def json_objects(text: str) -> list[dict[str, object]]:
    """Every JSON object in the text, in order."""
    found, at = [], text.find("{")
    while at >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def answers(text: str) -> list[dict[str, object]]:
    """The objects among them that give a score to each label."""
    return [found for found in json_objects(text) if found and all(isinstance(each, float) for each in found.values())]


def evaluated(checkout: Checkout) -> int:
    """How many videos the result of `scripts.evaluate` scored."""
    return int(json.loads((checkout.root / "x3d_s.json").read_text())["counts"]["scored"])


def test_the_commands_of_the_readme(checkout: Checkout) -> None:
    outputs = list(run_page(README, checkout).values())
    first, by_hand, options, commands, own, many, python = (outputs[index] for index in (0, 1, 2, 3, 5, 6, 4))
    shown = json.loads(blocks(README, "json")[0].code)
    assert "x3d_s: ready" in first or "with x3d_s" in first
    assert [len(scores) for scores in answers(first)] == [len(shown)] * 2  # quickstart's own and curl's
    assert answers(json.dumps(shown)) == [shown]
    assert "x3d_s is ready" in by_hand
    assert [len(scores) for scores in answers(by_hand)] == [5]
    thirty, timeline = json_objects(options)
    assert len(thirty) == 3
    assert timeline["timeline"]
    assert "x3d_s" in commands
    assert float(python.split()[-1]) > 0
    assert "wave" in own
    assert (checkout.root / "labels" / "part-00000.jsonl").is_file()
    assert evaluated(checkout) == 1
    assert "x3d_s.json" in many


@pytest.mark.slow
def test_the_commands_on_checkpoints(checkout: Checkout) -> None:
    run_page(REPOSITORY / "docs" / "checkpoints.md", checkout)
    assert (checkout.root / "model_store" / "gestures.mar").is_file()


@pytest.mark.slow
def test_the_commands_on_operations(checkout: Checkout) -> None:
    """docs/operations.md"""
    outputs = run_page(REPOSITORY / "docs" / "operations.md", checkout)
    (started,) = [output for output in outputs.values() if "x3d_s is ready\n" in output]
    assert re.search(r"^x3d_s +1\.0 +yes +[1-9]/\d+ +0/50 +\d+ ms$", started, re.MULTILINE), started
    assert "x3d_s answered in " in started
    store = checkout.root / "model_store"
    values = read_archive(store / "x3d_s.mar").values
    assert (values["batchSize"], values["jobQueueSize"]) == (4, 50)
    assert values["handler.decoder"] == "encoded_video"
    assert read_archive(store / "x3d_s-2.0.mar").info.version == "2.0"


@pytest.mark.slow
def test_the_commands_on_evaluation(checkout: Checkout) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install -r requirements/ray.txt")
    run_page(REPOSITORY / "docs" / "evaluation.md", checkout)
    assert (checkout.root / "labels" / "part-00000.parquet").is_file()
    assert evaluated(checkout) == 1
