"""A model of one's own spec file from packaging to its answers: three labels at once, sigmoid, exact size, BGR."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as transforms
from safetensors.torch import load_file
from torchvision.models import get_model

from bulk.archives import read_model
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, aggregate, render
from handlers.request.options import RequestOptions, VideoRequest
from handlers.video.sampling import Sampling
from serving.archive_settings import change_archive
from serving.package import PackageOptions, package
from tests.support.bulk import make_videos, run
from tests.support.originals import every_frame

SPEC = """\
architecture: tv_mc3_18
name: moods
num_classes: 3
num_frames: 4
sampling_rate: 3        # 10 frames per second
short_side: 64
exact_size: [64, 80]
crop_size: 56
channel_order: bgr
mean: [0.4, 0.45, 0.5]
std: 0.25
activation: sigmoid
combine: max
"""
LABELS = ["calm", "fast", "loud"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_model.yaml").write_text(SPEC)
    (folder / "labels.txt").write_text("\n".join(LABELS))
    options = PackageOptions(
        spec=str(folder / "my_model.yaml"), labels=folder / "labels.txt", weights="random", seed=3, output=folder,
        progress=False,
    )  # fmt: skip
    return package(options).path


@pytest.fixture(scope="module")
def classifier(archive: Path) -> Iterator[VideoClassifier]:
    with VideoClassifier.from_archive(archive) as classifier:
        yield classifier


def _expected(archive: Path, video: bytes, folder: Path) -> list[float]:
    """torchvision's model on frames that its own functions prepared as the spec says."""
    with ZipFile(archive) as zipped:
        zipped.extract("weights.safetensors", folder)
    model = get_model("mc3_18", weights=None, num_classes=3).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    frames, fps = every_frame(video)
    assert fps == 30
    clip = torch.from_numpy(np.stack([frames[0], frames[3], frames[6], frames[9]])).permute(0, 3, 1, 2)[:, [2, 1, 0]]
    clip = transforms.center_crop(transforms.resize(clip, [64, 80], antialias=False), [56, 56])
    clip = transforms.normalize(transforms.convert_image_dtype(clip), (0.4, 0.45, 0.5), (0.25,) * 3)
    with torch.no_grad():
        scores: list[float] = model(clip.permute(1, 0, 2, 3)[None])[0].sigmoid().tolist()
    return scores


def test_its_scores_are_those_of_the_original(
    archive: Path, classifier: VideoClassifier, h264_video: bytes, tmp_path: Path
) -> None:
    options = RequestOptions(top_k=3)
    (scores,) = classifier.classify([VideoRequest(h264_video, options)])
    assert isinstance(scores, VideoScores)
    answer = render(scores, options, classifier.labels, model="moods", version="1.0", spec=classifier.spec)
    expected = dict(zip(LABELS, _expected(archive, h264_video, tmp_path), strict=True))
    assert answer == pytest.approx(expected, abs=2e-3)
    assert sum(expected.values()) != pytest.approx(1.0, abs=0.02), "a softmax would have summed to 1"


def test_its_settings_can_be_changed(archive: Path, tmp_path: Path) -> None:
    copy = tmp_path / archive.name
    shutil.copy(archive, copy)
    (change,) = change_archive(copy, {"handler.limits.max_windows": 12})
    assert (change.key, change.new) == ("handler.limits.max_windows", 12)
    with VideoClassifier.from_archive(copy) as classifier:
        assert classifier.config.limits.max_windows == 12


def test_it_describes_itself(archive: Path, classifier: VideoClassifier) -> None:
    told = classifier.describe()["spec"]
    assert (told["name"], told["activation"], told["exact_size"]) == ("moods", "sigmoid", (64, 80))
    model = read_model(archive)
    assert model.spec == classifier.spec
    assert model.identity()["spec"]["activation"] == "sigmoid"


def test_evaluation_with_several_labels(archive: Path, tmp_path: Path) -> None:
    paths = make_videos(tmp_path / "videos", 4)
    truth = {"v000": "calm|loud", "v001": "fast", "v002": "", "v003": "calm"}
    lines = [f"{name}.mp4,{labels}" for name, labels in truth.items()]
    (tmp_path / "val.csv").write_text("\n".join(["path,label", *lines, "v003.mp4,loud"]) + "\n")
    out = tmp_path / "r.json"
    arguments: list[str | Path] = ["--annotations", tmp_path / "val.csv", "--videos", tmp_path / "videos", "--no-plots"]
    printed = run("evaluate", archive, *arguments, "--views", "2x1", "--out", out).stdout
    result = json.loads(out.read_text())
    assert [record["labels"] for record in result["videos"]] == [[0, 2], [1], [], [0, 2]]
    scores = np.array([record["samples"][0]["scores"] for record in result["videos"]])
    with VideoClassifier.from_archive(archive) as classifier:
        wanted = RequestOptions(sampling=Sampling(num_clips=2))
        found = classifier.classify([VideoRequest(path.read_bytes(), wanted) for path in paths])
    for row, answer in zip(scores, found, strict=True):
        assert isinstance(answer, VideoScores)
        assert row == pytest.approx(aggregate(answer, "prob"), rel=1e-4)
    # v000 and v003 have class 0: they may come in any of four places, and the precision at each is counted here.
    expected = []
    for number, having in ((0, {0, 3}), (1, {1}), (2, {0, 3})):
        places = sorted(1 + int((scores[:, number] > scores[video, number]).sum()) for video in having)
        expected.append(sum(count / place for count, place in enumerate(places, start=1)) / len(places))
    assert result["metrics"]["mean_average_precision"]["value"] == pytest.approx(sum(expected) / 3)
    assert "mean average precision" in printed
    assert "1x1 views of the same pass: top1 accuracy" in printed
    assert "need all scores" in run("evaluate", archive, *arguments, "--scores", "top5", status=1).stderr
