"""Explanations of an archive's answers, on both runtimes: Captum's maps from 0 to 1, at the times of the frames."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from handlers.errors import InvalidOption
from handlers.evidence import Evidence
from handlers.model.network import build_model
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, render
from handlers.request.options import Explain, RequestOptions, VideoRequest
from handlers.specs import get_spec
from handlers.video.recipe import recipe_tensor
from handlers.video.sampling import Sampling
from tests.support.archives import package

FPS = 30
NAMES = [
    "x3d_s",
    pytest.param("slow_r50", marks=pytest.mark.slow),
    pytest.param("slowfast_r50", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def unpack(name: str) -> Path:
        folder = tmp_path_factory.mktemp("explained")
        with ZipFile(package(name, folder, "--seed", "11")) as zipped:
            zipped.extractall(folder / "model")
        return folder / "model"

    return unpack


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoClassifier]:
    archive = package("x3d_xs", tmp_path_factory.mktemp("small"), "--runtime", "openvino")
    with VideoClassifier.from_archive(archive) as classifier:
        yield classifier


def _explain(
    classifier: VideoClassifier, video: bytes, explain: Explain | None = None, **options: Any
) -> dict[str, Any]:
    sampling = Sampling(frame_times=True, **options.pop("sampling", {}))
    asked = RequestOptions(explain=explain or Explain(), sampling=sampling, **options)
    (scores,) = classifier.classify([VideoRequest(video, asked)])
    assert isinstance(scores, VideoScores), scores
    answer = render(scores, asked, classifier.labels, model="m", version="1.0", spec=classifier.spec)
    assert isinstance(answer, dict)
    return answer


def _heat(maps: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([each["heatmap"] for each in maps])


def _captum(name: str, folder: Path, video: bytes, target: int) -> list[NDArray[np.float32]]:
    """LayerGradCam's map of each pathway on the documented recipe's clip, positive where it speaks for the class."""
    spec = get_spec(name)
    model: Any = build_model(spec, num_classes=400, head=spec.head)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    clip = recipe_tensor(video, spec)
    inputs: tuple[torch.Tensor, ...]
    if spec.alpha is None:
        inputs, layers, of_input = (clip[None].requires_grad_(),), [model.blocks[4]], False
    else:
        picked = torch.linspace(0, clip.shape[1] - 1, clip.shape[1] // spec.alpha).long()
        inputs = (clip[None, :, picked].requires_grad_(), clip[None].requires_grad_())
        layers, of_input = list(model.blocks[5].pool), True
    forward = lambda *pathways: model(list(pathways) if len(pathways) == 2 else pathways[0])  # noqa: E731
    return [
        LayerGradCam(forward, layer)
        .attribute(inputs, target, attribute_to_layer_input=of_input, relu_attributions=True)
        .detach()
        .numpy()[0, 0]
        for layer in layers
    ]


def _assert_proportional(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert expected.max() > 0
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9999
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-3)  # the answer rounds to three digits


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_captums_maps(name: str, unpacked: Any, h264_video: bytes) -> None:
    folder = unpacked(name)
    settings = folder / "model-config.yaml"
    text = settings.read_text()
    spec = get_spec(name)
    for runtime in ("openvino", "eager"):
        settings.write_text(text.replace("runtime: auto", f"runtime: {runtime}"))
        classifier = VideoClassifier.from_directory(folder)
        best = _explain(classifier, h264_video)
        other = _explain(classifier, h264_video, Explain(target=17))
        classifier.close()
        assert best["method"] == ("grad_cam" if spec.family == "x3d" else "cam")
        assert other["class_id"] == 17
        assert 0 < other["score"] < best["score"]
        for answer in (best, other):
            expected = _captum(name, folder, h264_video, answer["class_id"])
            if spec.alpha is None:
                _assert_proportional(_heat(answer["maps"]), expected[0])
            else:
                for pathway, of_pathway in zip(("slow", "fast"), expected, strict=True):
                    _assert_proportional(_heat(answer["pathways"][pathway]), of_pathway)
            weights = np.array([step["weight"] for step in answer["times"]])
            means = _heat(answer["maps"]).mean(axis=(1, 2))
            np.testing.assert_allclose(weights, means / means.max(), atol=2e-3)
            assert weights.max() == pytest.approx(1.0)
    settings.write_text(text)


def test_an_archive_does_not_grow(unpacked: Any) -> None:
    """The head's weights are those of the converted model."""
    folder = unpacked("x3d_s")
    assert (folder / "openvino" / "head.npz").stat().st_size < 0.001 * (
        folder / "openvino" / "model.bin"
    ).stat().st_size


def test_times_are_those_of_the_frames(small: VideoClassifier, h264_video: bytes) -> None:
    """The recipe's clip of x3d_xs: 4 of 48 frames at 30 frames per second, or of all that there are."""
    answer = _explain(small, h264_video, sampling={"start_sec": 0.5})
    (scores,) = small.classify([VideoRequest(h264_video, RequestOptions(format="full"))])
    assert isinstance(scores, VideoScores)
    fps, duration = scores.report.fps, scores.report.duration_sec
    assert fps
    assert duration
    first = int(np.ceil(0.5 * fps))
    frames = range(first, min(int(np.ceil((0.5 + 1.6) * fps)), round(duration * fps)))
    picks = [frames[int(at)] / fps for at in torch.linspace(0, len(frames) - 1, 4).long()]
    np.testing.assert_allclose([each["time_sec"] for each in answer["maps"]], picks, atol=1e-3)
    starts = [step["start_sec"] for step in answer["times"]]
    np.testing.assert_allclose(starts, [0.5, *picks[1:]], atol=1e-3)
    assert [step["end_sec"] for step in answer["times"]] == [*starts[1:], pytest.approx(2.1)]


def test_views_crops_and_timelines(small: VideoClassifier, h264_video: bytes) -> None:
    answer = _explain(small, h264_video, sampling={"num_clips": 2, "num_crops": 3})
    assert len(answer["times"]) == 2 * 4
    assert len(answer["maps"]) == 2 * 3 * 4
    lefts = sorted({each["crop"]["left"] for each in answer["maps"]})
    assert len(lefts) == 3
    assert lefts[0] == 0
    assert lefts[-1] + answer["maps"][0]["crop"]["width"] == pytest.approx(1.0, abs=1e-5)
    assert max(each["weight"] for each in answer["maps"]) == 1
    assert _heat(answer["maps"]).max() == 1
    assert _heat(answer["maps"]).min() >= 0
    timeline = _explain(small, h264_video, format="full", sampling={"stride_sec": 0.2})
    assert len(timeline["maps"]) == len(timeline["timeline"]) * 4
    assert timeline["label"] == timeline["predictions"][0]["label"]
    assert timeline["score"] == timeline["predictions"][0]["score"]
    starts = [step["start_sec"] for step in timeline["times"]]
    assert starts == sorted(starts)


def test_many_views_are_looked_at_twice_with_the_same_answer(
    small: VideoClassifier, h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = {"num_clips": 3, "num_crops": 3}
    kept = _explain(small, h264_video, Explain(image=True), sampling=sampling)
    monkeypatch.setattr("handlers.evidence._KEPT_BYTES", 300_000)  # of 9 views of 110 kB
    again = _explain(small, h264_video, Explain(image=True), sampling=sampling)
    # Windows are averaged as they come, so a float's last digit may differ, and with it a pixel's level.
    first, second = (_pixels(answer.pop("image")) for answer in (kept, again))
    assert np.abs(first - second).max() <= 2
    assert again == kept


def test_what_is_kept_of_all_videos_of_a_body_is_bounded(
    small: VideoClassifier, h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three videos that each are within the bound and together are not: the same answers, and nothing stays."""
    sampling = {"num_clips": 2}
    alone = _explain(small, h264_video, sampling=sampling)
    bound, most, add = 300_000, 0, Evidence.add  # two views of 110 kB each

    def watched(self: Evidence, *arguments: Any) -> None:
        nonlocal most
        add(self, *arguments)
        most = max(most, sum(each.kept_bytes for each in small._evidence))

    monkeypatch.setattr("handlers.evidence._KEPT_BYTES", bound)
    monkeypatch.setattr(Evidence, "add", watched)
    asked = RequestOptions(explain=Explain(), sampling=Sampling(frame_times=True, **sampling))
    for scores in small.classify([VideoRequest(h264_video, asked)] * 3):
        assert isinstance(scores, VideoScores), scores
        assert render(scores, asked, small.labels, model="m", version="1.0", spec=small.spec) == alone
    assert 200_000 < most <= bound
    assert sum(each.kept_bytes for each in small._evidence) == 0


def _pixels(image: str) -> NDArray[np.int64]:
    with Image.open(io.BytesIO(base64.b64decode(image))) as picture:
        return np.asarray(picture, dtype=np.int64)


def test_the_picture_shows_frames_with_heat_on_them(small: VideoClassifier, h264_video: bytes) -> None:
    answer = _explain(small, h264_video, Explain(image=True), sampling={"num_crops": 3})
    content = base64.b64decode(answer["image"])
    picture = Image.open(io.BytesIO(content))
    picture.load()
    assert picture.format == "PNG"
    assert picture.size == (4 * (128 + 4), 3 * (128 + 12))
    pixels = np.asarray(picture).astype(int)
    warmth = pixels[..., 0] - pixels[..., 2]
    heat = _heat(answer["maps"]).reshape(3, 4, 6, 6)
    row, column = np.unravel_index(heat.max(axis=(2, 3)).argmax(), (3, 4))
    y, x = np.unravel_index(heat[row, column].argmax(), (6, 6))
    tile = warmth[row * 140 : row * 140 + 128, column * 132 : column * 132 + 128]
    assert tile[int((y + 0.5) * 128 / 6), int((x + 0.5) * 128 / 6)] > 120


def test_a_model_without_such_a_head_is_refused(h264_video: bytes, tmp_path: Path) -> None:
    with VideoClassifier.from_archive(package("tv_mc3_18", tmp_path, "--runtime", "openvino")) as classifier:
        assert classifier.describe()["explanations"] is None
        refused, answered = classifier.classify(
            [VideoRequest(h264_video, RequestOptions(explain=Explain())), VideoRequest(h264_video, RequestOptions())]
        )
    assert isinstance(refused, InvalidOption)
    assert "x3d, slow, slowfast" in refused.message
    assert isinstance(answered, VideoScores)
