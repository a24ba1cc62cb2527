"""Models that are no rows of this repository, over HTTP: Hugging Face's, and an architecture of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from handlers.specs import get_spec
from handlers.video.recipe import recipe_tensor
from serving.package import PackageOptions, package
from serving.server import TorchServe
from tests.support import huggingface
from tests.support.traffic import ONE_WORKER, Client, change_settings


class Own(nn.Module):
    """Frames one by one, their features averaged: (N, 3, T, S, S) -> (N, 3). No worker can import it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv3d(3, 8, (1, 5, 5), stride=2), nn.Linear(8, 3)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(torch.relu(self.stem(clips)).mean(dim=(2, 3, 4))) * 8.0
        return logits


SPEC = """\
architecture: graph
graph: own.pt2
num_frames: 4
sampling_rate: 5
short_side: 40
crop_size: 40
num_classes: 3
mean: 0.45
std: 0.225
"""


@pytest.mark.parametrize("runtime", ["auto", "eager"])
def test_an_architecture_of_ones_own_is_served(
    server: TorchServe, runtime: str, h264_video: bytes, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    model = Own().eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.zeros(2, 3, 4, 40, 40),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "own.pt2")
    (tmp_path / "own_network.yaml").write_text(SPEC)
    (tmp_path / "labels.txt").write_text("calm\nfast\nloud\n")
    options = PackageOptions(
        spec=str(tmp_path / "own_network.yaml"), labels=tmp_path / "labels.txt", runtime=runtime, progress=False,
        output=Path(server.model_store),
    )  # fmt: skip
    archive = package(options).path
    change_settings(archive, ONE_WORKER)
    server.register(archive.name)
    try:
        answer = Client(server, "own_network").post(h264_video)
    finally:
        server.unregister("own_network")
        archive.unlink()
    spec = replace(get_spec("x3d_xs"), num_frames=4, sampling_rate=5, short_side=40, crop_size=40)
    with torch.no_grad():
        expected = model(recipe_tensor(h264_video, spec)[None])[0].softmax(0).tolist()
    assert answer.status == 200, answer.body
    assert answer.json() == pytest.approx(dict(zip(("calm", "fast", "loud"), expected, strict=True)), abs=2e-3)


@pytest.mark.parametrize(
    "name",
    [
        huggingface.NAMES[0],  # the others through the pipeline, in tests/archive/test_huggingface.py
        *(pytest.param(name, marks=pytest.mark.slow) for name in huggingface.NAMES[1:]),
    ],
)
def test_a_hugging_face_model_is_served(server: TorchServe, name: str, h264_video: bytes, tmp_path: Path) -> None:
    folder = huggingface.save_model(name, tmp_path / name)
    options = PackageOptions(spec=str(folder), name=f"hf_{name}", output=Path(server.model_store), progress=False)
    archive = package(options).path
    change_settings(archive, ONE_WORKER)
    server.register(archive.name)
    try:
        answer = Client(server, f"hf_{name}").post(h264_video)
    finally:
        server.unregister(f"hf_{name}")
        archive.unlink()
    expected = huggingface.probabilities(folder, huggingface.tensor(name, folder, h264_video))
    assert answer.status == 200, answer.body
    assert answer.json() == pytest.approx(dict(zip(huggingface.LABELS, expected, strict=True)), abs=2e-3)
