"""Features before the last layer: those that a forward hook sees in the original model, on every runtime."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorchvideo.models import hub
from safetensors.torch import load_file

from handlers.errors import InvalidOption
from handlers.model.network import WithFeatures, build_model, features_length
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, render
from handlers.request.options import RequestOptions, VideoRequest
from handlers.specs import SPECS, get_spec
from handlers.video.recipe import recipe_tensor
from handlers.video.sampling import Sampling
from tests.support.archives import package

ORIGINALS = {"x3d_s": (hub.x3d_s, 2048), "slowfast_r50": (hub.slowfast_r50, 2304)}


@pytest.fixture(scope="module", params=["x3d_s", pytest.param("slowfast_r50", marks=pytest.mark.slow)])
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("embedding")
    with ZipFile(package(request.param, folder, "--seed", "11")) as zipped:
        zipped.extractall(folder / "model")
    yield request.param, folder / "model"
    shutil.rmtree(folder / "model")


def _of_a_hook(name: str, folder: Path, clip: torch.Tensor) -> NDArray[np.float32]:
    """What goes into `proj` of the hub's own model, averaged over the positions that it classifies."""
    model: Any = ORIGINALS[name][0](pretrained=False).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    if name == "slowfast_r50":
        model.blocks[0].inplace = False
    seen: list[torch.Tensor] = []
    model.blocks[-1].proj.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        if name == "slowfast_r50":
            picked = torch.linspace(0, clip.shape[1] - 1, clip.shape[1] // 4).long()
            model([clip[None, :, picked], clip[None]])
        else:
            model(clip[None])
    assert seen[0].shape[-1] == ORIGINALS[name][1]
    return seen[0].reshape(-1, seen[0].shape[-1]).mean(0).numpy()


def _answer(classifier: VideoClassifier, scores: object, options: RequestOptions) -> Any:
    assert isinstance(scores, VideoScores), scores
    return render(scores, options, classifier.labels, model="m", version="1.0", spec=classifier.spec)


def test_embeddings_are_what_a_hook_on_the_original_sees(unpacked: tuple[str, Path], h264_video: bytes) -> None:
    name, folder = unpacked
    expected = _of_a_hook(name, folder, recipe_tensor(h264_video, get_spec(name)))
    settings = folder / "model-config.yaml"
    text = settings.read_text()
    options = RequestOptions(output="embedding")
    requests = [VideoRequest(h264_video, each) for each in (options, RequestOptions(top_k=400))]
    for runtime in ("openvino", "eager"):
        settings.write_text(text.replace("runtime: auto", f"runtime: {runtime}"))
        classifier = VideoClassifier.from_directory(folder)
        embedded, plain = classifier.classify(requests)
        classifier.close()
        assert classifier.describe()["embedding_length"] == len(expected)
        answer = _answer(classifier, embedded, options)
        assert list(answer) == ["embedding", "length"]
        assert answer["length"] == len(expected)
        np.testing.assert_allclose(answer["embedding"], expected, atol=1e-4 * np.abs(expected).max())
        assert expected.std() > 0.01, "features that are all alike would prove little"
        assert sum(_answer(classifier, plain, requests[1].options).values()) == pytest.approx(1.0)
    settings.write_text(text)


def test_windows_of_a_timeline_have_their_own(h264_video: bytes, tmp_path: Path) -> None:
    archive = package("x3d_xs", tmp_path, "--runtime", "openvino")
    options = RequestOptions(sampling=Sampling(stride_sec=0.2, num_crops=3), format="full", output="embedding")
    with VideoClassifier.from_archive(archive) as classifier:
        (scores,) = classifier.classify([VideoRequest(h264_video, options)])
    answer = _answer(classifier, scores, options)
    assert "segments" not in answer
    assert "predictions" not in answer
    windows = [window["embedding"] for window in answer["timeline"]]
    assert len(windows) == 3
    assert all(window["length"] == 2048 for window in answer["timeline"])
    np.testing.assert_allclose(answer["embedding"], np.mean(windows, axis=0), rtol=1e-5, atol=1e-6)
    assert np.abs(np.array(windows[0]) - windows[-1]).max() > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        *("x3d_xs", "tv_s3d", "x3d_s_mmaction2"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("slow_r50_4x16", "c2d_r50", "tv_mc3_18")),
    ],
)
def test_the_last_layer_makes_logits_of_them(name: str) -> None:
    """True of every head that averages logits; one is a convolution, one averages before it classifies."""
    spec = get_spec(name)
    model = build_model(spec, num_classes=7, head=spec.head)
    frames = 16 if name == "tv_s3d" else spec.num_frames
    clips = torch.randn(2, 3, frames, spec.crop_size, spec.crop_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, features = WithFeatures(model, spec.classifier)(clips)
        layer = model.get_submodule(spec.classifier)
        again = layer(features if isinstance(layer, torch.nn.Linear) else features[..., None, None, None]).flatten(1)
    assert features.shape == (2, features_length(model, spec.classifier))
    torch.testing.assert_close(again, logits, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPECS if "mvit" in name or "swin" in name or "r2plus" in name])
def test_the_other_rows_name_their_last_layer(name: str) -> None:
    spec = get_spec(name)
    with torch.device("meta"):
        model = build_model(spec, num_classes=7, head=spec.head)
    layer = model.get_submodule(spec.classifier)
    assert isinstance(layer, torch.nn.Linear)
    assert layer.out_features == 7
    assert features_length(model, spec.classifier) >= 512


def test_a_graph_without_features_says_so(h264_video: bytes, tmp_path: Path) -> None:
    """tests/archive/test_graph.py has one with them."""
    archive = package("x3d_xs", tmp_path, "--runtime", "openvino")
    with ZipFile(archive) as zipped:
        zipped.extractall(tmp_path / "model")
    import openvino

    (tmp_path / "model" / "openvino").rename(tmp_path / "both")
    model = openvino.Core().read_model(tmp_path / "both" / "model.xml")
    model.remove_result(model.outputs[1].get_node())
    openvino.save_model(model, tmp_path / "model" / "openvino" / "model.xml", compress_to_fp16=False)
    classifier = VideoClassifier.from_directory(tmp_path / "model")
    requests = [
        VideoRequest(h264_video, RequestOptions(output="embedding")),
        VideoRequest(h264_video, RequestOptions()),
    ]
    refused, answered = classifier.classify(requests)
    assert classifier.describe()["embedding_length"] is None
    classifier.close()
    assert isinstance(refused, InvalidOption)
    assert "its graph has no output named features" in refused.message
    assert isinstance(answered, VideoScores)
