"""An architecture of one's own: converted, packaged, and served without its code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
import torchvision.transforms.functional as transforms
from torch import nn

from handlers.errors import InvalidCheckpoint, InvalidConfig, InvalidLabels, InvalidOption, RuntimeUnavailable
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, aggregate
from handlers.request.options import RequestOptions, VideoRequest
from serving.package import PackageOptions, package
from tests.support.originals import every_frame
from tests.support.paths import REPOSITORY

SPEC = """\
architecture: graph
graph: own.xml
num_frames: 4
sampling_rate: 5
temporal: whole_video
short_side: 40
crop_size: 32
resize_as: torchvision
layout: NT3SS
num_classes: 3
mean: [0.4, 0.45, 0.5]
std: 0.25
"""


class Own(nn.Module):
    """Frames one by one, their features averaged: (N, T, 3, S, S) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 8, 5, stride=2), nn.Linear(8, 3)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        frames = torch.relu(self.stem(clips.flatten(0, 1))).mean(dim=(2, 3))
        answer: torch.Tensor = self.last(frames.reshape(-1, 4, 8).mean(dim=1)) * 8.0
        return answer


@pytest.fixture(scope="module")
def model() -> Own:
    torch.manual_seed(0)
    return Own().eval()


@pytest.fixture(scope="module")
def folder(model: Own, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec file, the labels and the graph, exported as docs/your-own-model.md says."""
    folder = tmp_path_factory.mktemp("graph")
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.zeros(2, 4, 3, 32, 32),), dynamic_shapes=({0: batch},))
    openvino.save_model(openvino.convert_model(program), folder / "own.xml", compress_to_fp16=False)
    (folder / "own_model.yaml").write_text(SPEC)
    (folder / "labels.txt").write_text("calm\nfast\nloud\n")
    return folder


def _options(folder: Path, **changes: object) -> PackageOptions:
    given = {"spec": str(folder / "own_model.yaml"), "labels": folder / "labels.txt", "output": folder / "store"}
    return PackageOptions(**{**given, "progress": False, "force": True, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    return package(_options(folder)).path


def test_its_scores_are_those_of_the_model(model: Own, archive: Path, h264_video: bytes) -> None:
    frames, _ = every_frame(h264_video)
    clip = torch.from_numpy(np.stack([frames[0], frames[15], frames[30], frames[45]])).permute(0, 3, 1, 2)
    clip = transforms.center_crop(transforms.resize(clip, [40], antialias=False), [32, 32])
    clip = transforms.normalize(transforms.convert_image_dtype(clip), (0.4, 0.45, 0.5), (0.25,) * 3)
    with torch.no_grad():
        expected = model(clip[None])[0].softmax(0).numpy()
    with VideoClassifier.from_archive(archive) as classifier:
        assert classifier.describe()["weights"]["source"] == "own.xml"
        (scores,) = classifier.classify([VideoRequest(h264_video, RequestOptions())])
    assert isinstance(scores, VideoScores)
    np.testing.assert_allclose(aggregate(scores, "prob"), expected, atol=2e-3)
    assert expected.max() > 0.4, "a flat answer would prove little"


def test_a_worker_needs_neither_its_code_nor_torch(archive: Path, h264_video: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(h264_video)
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from handlers.pipeline import VideoClassifier\n"
        "from handlers.request.options import RequestOptions, VideoRequest\n"
        f"with VideoClassifier.from_archive(Path({str(archive)!r})) as classifier:\n"
        "    request = VideoRequest(Path('clip.mp4').read_bytes(), RequestOptions())\n"
        "    print(len(classifier.classify([request])[0].windows), classifier.labels)\n"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1 ('calm', 'fast', 'loud')", done.stderr


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("num_frames: 8", InvalidCheckpoint, r"must answer logits \(N, classes\); for two clips it gave \(4, 3\)"),
        ("num_classes: 5", InvalidConfig, "own.xml answers 3 classes, the spec says 5"),
        ("graph: none.xml", InvalidCheckpoint, "there is no file none.xml"),
        ("graph: own.onnx", InvalidConfig, "needs `graph: model.xml`"),
        ("mean:", InvalidConfig, "mean must be a number or three"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, line: str, error: type[Exception], words: str) -> None:
    name = line.partition(":")[0]
    lines = [line if each.startswith(f"{name}:") else each for each in SPEC.splitlines()]
    (folder / "wrong.yaml").write_text("\n".join(lines))
    with pytest.raises(error, match=words):
        package(_options(folder, spec=str(folder / "wrong.yaml")))


def test_a_graph_of_other_shapes_is_refused(folder: Path) -> None:
    """One whose shapes are open, as own.xml's are, says nothing of its layout."""
    graph = openvino.Core().read_model(folder / "own.xml")
    graph.reshape([-1, 4, 3, 32, 32])
    openvino.save_model(graph, folder / "fixed.xml", compress_to_fp16=False)
    text = SPEC.replace("own.xml", "fixed.xml")
    (folder / "fixed.yaml").write_text(text)
    package(_options(folder, spec=str(folder / "fixed.yaml")))
    (folder / "wrong.yaml").write_text(text.replace("layout: NT3SS", "layout: N3TSS"))
    with pytest.raises(InvalidCheckpoint, match=r"fixed.xml takes .* clips are \(N, 3, T, S, S\) with T 4 and S 32"):
        package(_options(folder, spec=str(folder / "wrong.yaml")))


class WithFeatures(Own):
    """The same model, which also gives what goes into its last layer."""

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        frames = torch.relu(self.stem(clips.flatten(0, 1))).mean(dim=(2, 3))
        features = frames.reshape(-1, 4, 8).mean(dim=1)
        return self.last(features) * 8.0, features


def test_a_second_output_named_features_is_the_embedding(
    model: Own, folder: Path, archive: Path, h264_video: bytes
) -> None:
    both = WithFeatures().eval()
    both.load_state_dict(model.state_dict())
    clip = torch.randn(2, 4, 3, 32, 32)
    program = torch.export.export(both, (clip,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    graph = openvino.convert_model(program)
    graph.outputs[1].get_tensor().set_names({"features"})
    openvino.save_model(graph, folder / "both.xml", compress_to_fp16=False)
    (folder / "both.yaml").write_text(SPEC.replace("own.xml", "both.xml"))
    request = VideoRequest(h264_video, RequestOptions(output="embedding"))
    with VideoClassifier.from_archive(package(_options(folder, spec=str(folder / "both.yaml"))).path) as classifier:
        assert classifier.describe()["embedding_length"] == 8
        (scores,) = classifier.classify([request])
    assert isinstance(scores, VideoScores)
    features, logits = scores.windows[0].features, scores.windows[0].logits
    assert features is not None
    with torch.no_grad():
        np.testing.assert_allclose(model.last(torch.from_numpy(features)).numpy() * 8.0, logits, atol=1e-4)
    with VideoClassifier.from_archive(archive) as classifier:
        (refused,) = classifier.classify([request])
    assert isinstance(refused, InvalidOption)
    graph.outputs[1].get_tensor().set_names({"other"})
    openvino.save_model(graph, folder / "other.xml", compress_to_fp16=False)
    (folder / "other.yaml").write_text(SPEC.replace("own.xml", "other.xml"))
    with pytest.raises(InvalidCheckpoint, match="if it has a second one, one named features; got 1 inputs and 2"):
        package(_options(folder, spec=str(folder / "other.yaml")))


def test_a_spec_that_says_too_little(folder: Path) -> None:
    (folder / "short.yaml").write_text("architecture: graph\ngraph: own.xml\nnum_frames: 4\nstd: 1\n")
    with pytest.raises(InvalidConfig, match="has to say sampling_rate, short_side, crop_size, num_classes, mean"):
        package(_options(folder, spec=str(folder / "short.yaml")))
    (folder / "known.yaml").write_text("architecture: x3d_s\ngraph: own.xml\n")
    with pytest.raises(InvalidConfig, match="graph belongs to `architecture: graph`"):
        package(_options(folder, spec=str(folder / "known.yaml")))


def test_options_that_a_graph_does_not_have(folder: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="the runtime eager cannot run it"):
        package(_options(folder, runtime="eager"))
    with pytest.raises(InvalidConfig, match="give neither --checkpoint nor --weights"):
        package(_options(folder, weights="random"))
    with pytest.raises(InvalidLabels, match="give its labels"):
        package(_options(folder, labels=None))


def test_a_file_that_is_no_graph(folder: Path) -> None:
    (folder / "bad.xml").write_text("<net>")
    (folder / "bad.bin").write_bytes(b"")
    (folder / "bad.yaml").write_text(SPEC.replace("own.xml", "bad.xml"))
    with pytest.raises(InvalidCheckpoint, match=r"bad.xml is not an OpenVINO IR that can be read"):
        package(_options(folder, spec=str(folder / "bad.yaml")))
