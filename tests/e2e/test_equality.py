"""All scores over HTTP against the documented recipe run by hand: EncodedVideo, the documented transforms, torch eager.

The networks have random weights, so their logits differ clearly. By default some models and files; EQUALITY=all runs
every model on every file of the shared corpus that the recipe can read (many minutes).
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from handlers.model.network import build_model
from handlers.specs import ModelSpec, get_spec
from handlers.video.recipe import recipe_tensor
from serving.server import TorchServe
from tests.support.archives import package
from tests.support.paths import CORPUS
from tests.support.traffic import Client, variant

pytestmark = pytest.mark.e2e

TOLERANCE = 1e-4
ALL = os.environ.get("EQUALITY") == "all"
LARGE = ("x3d_m", "slow_r50", "slowfast_r50")

AVI_WITH_B_FRAMES = {"real/mm_test.avi"}
"""Where the default differs from the recipe on purpose, see the corpus's README: AVI that stores B-frames."""


def files(spec: str, every: int) -> list[str]:
    """Names of files that the recipe reads with that spec; each `every`-th of them."""
    path = CORPUS / "reference.json"
    if not path.is_file():
        return []
    reference = json.loads(path.read_text())
    unstable = {*reference["_thread_dependent"], *AVI_WITH_B_FRAMES}
    names = [name for name, models in reference.items() if not name.startswith("_") and name not in unstable
             and "tensor" in models.get(spec, {})]  # fmt: skip
    allowed = [name for name in sorted(names) if "x_image" not in name]  # still images are no videos here
    return allowed if ALL else allowed[::every]


def archive(spec: str, store: Path) -> Path:
    """The spec with random weights, as packaged, but for rotation: the recipe ignores it."""
    shared = spec == "x3d_xs"  # the archive that the server starts with
    packaged = package(spec, store, "--seed", "0" if shared else "7")
    return variant(packaged, f"equal_{spec}", settings={"autorotate": "false"})


def model_of(archive: Path, spec: ModelSpec, folder: Path) -> torch.nn.Module:
    """The archive's weights in the network, as a user of pytorchvideo would load them."""
    with zipfile.ZipFile(archive) as content:
        weights = load_file(content.extract("weights.safetensors", folder))
    model = build_model(spec, num_classes=400, head="pytorchvideo")
    model.load_state_dict(weights)
    return model.eval()


def by_hand(
    model: torch.nn.Module, spec: ModelSpec, video: bytes, expected: dict[str, Any] | None
) -> np.ndarray[Any, Any]:
    """The recipe's 400 probabilities; `expected`: what another program's recipe gave as the model's input."""
    clip = recipe_tensor(video, spec)
    if expected is not None:
        check_tensor(clip, expected)
    inputs: Any = clip[None]
    if spec.alpha is not None:
        slow = torch.linspace(0, clip.shape[1] - 1, clip.shape[1] // spec.alpha).long()
        inputs = [clip[None, :, slow], clip[None]]
    with torch.inference_mode():
        scores: np.ndarray[Any, Any] = torch.softmax(model(inputs).double(), dim=-1)[0].numpy()
    return scores


def check_tensor(clip: torch.Tensor, expected: dict[str, Any]) -> None:
    tensor = expected.get("fast", expected)
    assert list(clip.shape) == tensor["shape"]
    at = np.random.RandomState(20240501).randint(0, clip.numel(), 64)
    np.testing.assert_allclose(clip.reshape(-1).numpy()[at], tensor["samples"], atol=TOLERANCE)


def compare(
    server: TorchServe, store: Path, folder: Path, name: str, videos: dict[str, bytes], reference: dict[str, Any]
) -> tuple[float, list[float]]:
    """The greatest difference over all videos and classes, and the span of each video's scores."""
    spec = get_spec(name)
    path = archive(name, store)
    server.register(path.name)
    model = model_of(path, spec, folder)
    client = Client(server, path.stem)
    worst, spans = 0.0, []
    unequal: dict[str, float] = {}
    for file, content in videos.items():
        answer = client.post(content, Top_K="400", format="list")
        assert answer.status == 200, f"{file}: {answer.body!r}"
        served = np.zeros(400)
        for entry in answer.json():
            served[entry["class_id"]] = entry["score"]
        assert abs(served.sum() - 1) < 1e-9
        recipe = by_hand(model, spec, content, reference.get(file, {}).get(name, {}).get("tensor"))
        difference = float(np.abs(served - recipe).max())
        if difference >= TOLERANCE:
            unequal[file] = difference
        worst = max(worst, difference)
        spans.append(float(recipe.max() - recipe.min()))
    server.unregister(path.stem)
    assert not unequal, f"{name}: {unequal}"
    return worst, spans


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "every"),
    [
        ("x3d_xs", 5),
        ("x3d_s", 30),
        pytest.param("x3d_s", 5, marks=pytest.mark.slow),
        *(pytest.param(name, 40, marks=pytest.mark.slow) for name in LARGE),
    ],
)
def test_scores_equal_the_recipe(
    server: TorchServe,
    model_store: Path,
    tmp_path: Path,
    corpus: Path,
    name: str,
    every: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen = files(name, every)
    videos = {file: (corpus / file).read_bytes() for file in chosen}
    reference = json.loads((corpus / "reference.json").read_text())
    worst, spans = compare(server, model_store, tmp_path, name, videos, reference)
    with capsys.disabled():
        print(f"\n{name}: {len(videos)} files, greatest difference of 400 scores {worst:.1e}")
    assert len(videos) >= 3
    assert float(np.median(spans)) > 100 * TOLERANCE, "the scores hardly differ, so their being equal says little"


def test_scores_equal_the_recipe_on_videos_made_here(
    server: TorchServe, model_store: Path, tmp_path: Path, indexed_video: Callable[[str], bytes]
) -> None:
    videos = {name: indexed_video(name) for name in ("h264", "h264_mkv", "hevc", "vp9", "av1", "mpeg4", "h264_audio")}
    worst, spans = compare(server, model_store, tmp_path, "x3d_xs", videos, {})
    assert worst < TOLERANCE
    assert float(np.median(spans)) > 100 * TOLERANCE
