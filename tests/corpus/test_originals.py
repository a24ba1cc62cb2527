"""Each model beyond the first three families against its own library: tensors to 1e-4, all scores to 2e-3.

With random weights, on files of the corpus, from a packaged archive through the classifier that the handler drives; on
torch and on OpenVINO.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from handlers.limits import Limits
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, aggregate
from handlers.request.options import RequestOptions, VideoRequest
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from handlers.video.view_reader import VideoReader
from serving.package import PackageOptions, package
from tests.support import originals

pytestmark = pytest.mark.corpus

LIGHT = ("tv_mc3_18",)
"""In every run, on the first three files; the others with `--all`, on all."""


def _cases() -> list[object]:
    return [pytest.param(name, id=name, marks=[] if name in LIGHT else [pytest.mark.slow]) for name in originals.NAMES]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def _unpacked(name: str, store: Path) -> Iterator[Path]:
    """The archive of that model, once for every runtime that it holds a form of the model for."""
    archive = package(PackageOptions(spec=name, weights="random", seed=7, output=store, progress=False)).path
    folder = store / name
    with ZipFile(archive) as zipped:
        zipped.extractall(folder)
    archive.unlink()
    settings = folder / "model-config.yaml"
    text = settings.read_text()
    assert "runtime: auto" in text
    for runtime in ("openvino", "eager"):
        settings.write_text(text.replace("runtime: auto", f"runtime: {runtime}"))
        yield folder


@pytest.mark.parametrize("name", [name for name in originals.NAMES if name.startswith("tv_")])
def test_tensors_equal_the_librarys_own_preprocessing(corpus: Path, name: str) -> None:
    """pytorchvideo's models have the recipe's preprocessing, which tests/corpus/test_default_decoder.py compares."""
    spec = get_spec(name)
    for file in originals.FILES if name in ("tv_r3d_18", "tv_swin3d_t") else originals.FILES[:2]:
        payload = (corpus / file).read_bytes()
        reader = VideoReader(payload, spec, Limits(), autorotate=False, allocate=lambda shape: np.empty(shape, "f4"))
        (window,) = reader.windows(Sampling())
        reader.close()
        expected = originals.tensor(name, payload).numpy()
        assert window.views[0].shape == expected.shape
        assert np.abs(window.views[0] - expected).max() < 1e-4, file


@pytest.mark.parametrize("name", _cases())
def test_scores_equal_the_original_model(corpus: Path, store: Path, name: str) -> None:
    files = originals.FILES[:3] if name in LIGHT else originals.FILES
    payloads = [(corpus / file).read_bytes() for file in files]
    model: torch.nn.Module | None = None
    expected: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
    for folder in _unpacked(name, store):
        if model is None:
            model = originals.model(name, load_file(folder / "weights.safetensors"))
            expected = [originals.probabilities(name, model, originals.tensor(name, payload)) for payload in payloads]
            spread = np.std(expected, axis=0).max()
            assert spread > 0.004, "the random weights must tell the videos apart"
        classifier = VideoClassifier.from_directory(folder)
        answers = [classifier.classify([VideoRequest(payload, RequestOptions())])[0] for payload in payloads]
        classifier.close()
        for file, answer, scores in zip(files, answers, expected, strict=True):
            assert isinstance(answer, VideoScores), (file, answer)
            assert np.abs(aggregate(answer, "prob") - scores).max() < 2e-3, (file, classifier.config.runtime)
