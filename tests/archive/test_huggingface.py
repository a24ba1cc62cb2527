"""Hugging Face's video classifiers, packaged from their folders, answer as transformers does, and without it.

With random weights; transformers is needed for making the models and for packaging them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from handlers.errors import InvalidCheckpoint, InvalidConfig, InvalidLabels, RuntimeUnavailable
from handlers.limits import Limits
from handlers.model.archive_info import ArchiveInfo
from handlers.model.own_spec import own_spec
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, aggregate
from handlers.request.options import RequestOptions, VideoRequest
from handlers.specs import ModelSpec
from handlers.video.sampling import Sampling
from handlers.video.view_reader import VideoReader
from serving.huggingface import licence_note
from serving.package import PackageOptions, package
from tests.support import huggingface, originals
from tests.support.huggingface import LABELS, NAMES
from tests.support.paths import REPOSITORY
from tests.support.videos import VideoPlan, make_video


@dataclass(frozen=True, slots=True)
class Made:
    """A saved model and its archive, packed and unpacked."""

    name: str
    folder: Path
    archive: Path
    unpacked: Path

    @property
    def spec(self) -> ModelSpec:
        spec = own_spec(self.unpacked)
        assert spec is not None
        return spec


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in ("videomae", "vjepa2") else [pytest.mark.slow]) for name in NAMES],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("huggingface")
    model = huggingface.save_model(request.param, folder / request.param)
    packaged = package(PackageOptions(spec=str(model), name="mine", output=folder / "store", progress=False))
    assert packaged.notes == ()
    with ZipFile(packaged.path) as zipped:
        zipped.extractall(folder / "unpacked")
    return Made(request.param, model, packaged.path, folder / "unpacked")


@pytest.fixture(scope="module")
def videos(h264_video: bytes) -> list[bytes]:
    """Wide, upright, small enough to be enlarged, and of an odd number of frames."""
    plans = [
        VideoPlan(width=128, height=240, num_frames=31),
        VideoPlan(width=36, height=24, num_frames=20),
        VideoPlan(width=426, height=240, num_frames=25),
    ]
    return [h264_video, *(make_video(plan) for plan in plans)]


def _compare(made: Made, payloads: list[bytes]) -> None:
    """Tensors to 1e-4, scores to 2e-3."""
    expected = []
    for payload in payloads:
        clip = huggingface.tensor(made.name, made.folder, payload)
        expected.append(huggingface.probabilities(made.folder, clip))
        reader = VideoReader(
            payload, made.spec, Limits(), autorotate=False, allocate=lambda shape: np.empty(shape, "f4")
        )
        (window,) = reader.windows(Sampling())
        ours = torch.from_numpy(window.views[0].transpose(1, 0, 2, 3).copy())
        reader.close()
        assert ours.shape == clip.shape
        torch.testing.assert_close(ours, clip, atol=1e-4, rtol=0)
    assert np.std(expected, axis=0).max() > 0.01, "the random weights must tell the videos apart"
    classifier = VideoClassifier.from_directory(made.unpacked)
    answers = classifier.classify([VideoRequest(payload, RequestOptions()) for payload in payloads])
    classifier.close()
    for answer, scores in zip(answers, expected, strict=True):
        assert isinstance(answer, VideoScores), answer
        assert np.abs(aggregate(answer, "prob") - scores).max() < 2e-3


def test_tensors_and_scores_are_those_of_transformers(made: Made, videos: list[bytes]) -> None:
    _compare(made, videos)


@pytest.mark.slow
def test_so_they_are_on_the_corpus(made: Made, corpus: Path) -> None:
    _compare(made, [(corpus / file).read_bytes() for file in originals.FILES])


def test_a_worker_needs_neither_transformers_nor_torch(made: Made, h264_video: bytes, tmp_path: Path) -> None:
    """The archive alone, its own handlers, in a process that can import neither."""
    expected = huggingface.probabilities(made.folder, huggingface.tensor(made.name, made.folder, h264_video))
    (tmp_path / "clip.mp4").write_bytes(h264_video)
    code = (
        f"import sys; sys.path.insert(0, {str(made.unpacked)!r})\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import json\nfrom pathlib import Path\n"
        "import handlers\nfrom handlers.pipeline import VideoClassifier\n"
        "from handlers.request.answer import render\n"
        "from handlers.request.options import RequestOptions, VideoRequest\n"
        f"assert {str(made.unpacked)!r} in handlers.__file__\n"
        f"classifier = VideoClassifier.from_directory(Path({str(made.unpacked)!r}))\n"
        "options = RequestOptions(top_k=5)\n"
        "(scores,) = classifier.classify([VideoRequest(Path('clip.mp4').read_bytes(), options)])\n"
        "classifier.close()\n"
        "print(json.dumps(render(scores, options, classifier.labels, model='m', version='1', spec=classifier.spec)))\n"
    )
    command = [sys.executable, "-P", "-c", code]
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=2e-3)


def test_the_embedding_is_what_goes_into_the_classifier(made: Made, h264_video: bytes) -> None:
    model = huggingface.transformers().AutoModelForVideoClassification.from_pretrained(made.folder).eval()
    seen: list[torch.Tensor] = []
    model.classifier.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        model(huggingface.tensor(made.name, made.folder, h264_video)[None])
    classifier = VideoClassifier.from_directory(made.unpacked)
    (scores,) = classifier.classify([VideoRequest(h264_video, RequestOptions(output="embedding"))])
    classifier.close()
    assert isinstance(scores, VideoScores)
    assert scores.windows[0].features is not None
    np.testing.assert_allclose(scores.windows[0].features, seen[0].numpy(), atol=1e-3)


def test_the_archive_says_what_it_holds(made: Made) -> None:
    info = ArchiveInfo.read(made.unpacked)
    assert (info.name, info.spec, info.weights.source) == ("mine", made.name, made.name)
    assert len(info.weights.sha256) == 64
    assert json.loads((made.unpacked / "index_to_name.json").read_text()) == {
        str(index): label for index, label in enumerate(LABELS)
    }
    assert "runtime: openvino" in (made.unpacked / "model-config.yaml").read_text()
    assert not (made.unpacked / "weights.safetensors").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return huggingface.save_model("videomae", tmp_path / "x3d_s")


def _package(spec: Path, **changes: object) -> Path:
    options = {"spec": str(spec), "output": spec.parent / "store", "progress": False, **changes}
    return package(PackageOptions(**options)).path  # type: ignore[arg-type]


def test_a_spec_file_says_what_shall_differ(folder: Path, h264_video: bytes) -> None:
    text = "architecture: graph\ngraph: x3d_s\nname: mine\ntemporal: recipe\nsampling_rate: 2\nactivation: sigmoid\n"
    (folder.parent / "mine.yaml").write_text(text)
    (folder.parent / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    archive = _package(folder.parent / "mine.yaml", labels=folder.parent / "labels.txt")
    with VideoClassifier.from_archive(archive) as classifier:
        assert classifier.labels == ("a", "b", "c", "d", "e")
        assert (classifier.spec.temporal, classifier.spec.short_side) == ("recipe", 40)
        (scores,) = classifier.classify([VideoRequest(h264_video, RequestOptions())])
    assert isinstance(scores, VideoScores)
    assert aggregate(scores, "prob").sum() != pytest.approx(1.0, abs=0.01)


def _change(file: Path, **changes: object) -> None:
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_several_labels_are_told_by_the_problem_type(folder: Path) -> None:
    _change(folder / "config.json", problem_type="multi_label_classification")
    with VideoClassifier.from_archive(_package(folder)) as classifier:
        assert classifier.spec.activation == "sigmoid"
        assert classifier.spec.name == "x3d_s_huggingface"


def test_settings_as_older_versions_saved_them(folder: Path) -> None:
    """preprocessor_config.json of a feature extractor, the sizes as single numbers."""
    (folder / "video_preprocessor_config.json").rename(folder / "preprocessor_config.json")
    _change(
        folder / "preprocessor_config.json", size=40, crop_size=32, feature_extractor_type="VideoMAEFeatureExtractor",
        video_processor_type=None, do_rescale=None, rescale_factor=None,
    )  # fmt: skip
    with VideoClassifier.from_archive(_package(folder)) as classifier:
        assert (classifier.spec.short_side, classifier.spec.crop_size) == (40, 32)
        assert classifier.spec.mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.parametrize(
    ("file", "changes", "error", "words"),
    [
        (
            "config.json",
            {"model_type": "xclip"},
            InvalidConfig,
            "a model of type 'xclip'; known: videomae, timesformer",
        ),
        ("config.json", {"architectures": ["VideoMAEModel"]}, InvalidConfig, "holds VideoMAEModel; a classifier is"),
        ("config.json", {"id2label": {"0": "a", "2": "b"}}, InvalidConfig, "must name the classes 0, 1, 2"),
        ("config.json", {"id2label": dict.fromkeys("01234", "a")}, InvalidLabels, "given more than once"),
        ("config.json", {"image_size": [32, 40]}, InvalidConfig, r"must be square, config.json says \[32, 40\]"),
        ("config.json", {"num_hidden_layers": 3}, InvalidCheckpoint, r"holds no weights for \d+ tensors"),
        ("config.json", {"hidden_size": 48}, InvalidCheckpoint, "cannot load VideoMAEForVideoClassification from it"),
        ("video_preprocessor_config.json", {"resample": 3}, InvalidConfig, "with the bilinear filter"),
        ("video_preprocessor_config.json", {"do_center_crop": False}, InvalidConfig, "gives frames of None x None"),
        ("video_preprocessor_config.json", {"crop_size": {"height": 24, "width": 24}}, InvalidConfig, "of 24 x 24"),
    ],
)
def test_what_cannot_be_served_is_refused(
    folder: Path, file: str, changes: dict[str, object], error: type[Exception], words: str
) -> None:
    _change(folder / file, **changes)
    with pytest.raises(error, match=words):
        _package(folder)
    assert not list((folder.parent / "store").glob("*"))


def test_a_pickle_is_not_read(folder: Path) -> None:
    weights = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InvalidCheckpoint, match="other weights may hold code and are not read"):
        _package(folder)


def test_options_that_it_does_not_have(folder: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="the runtime eager cannot run it"):
        _package(folder, runtime="eager")
    with pytest.raises(InvalidConfig, match="give neither --checkpoint nor --weights"):
        _package(folder, weights="random")
    with pytest.raises(InvalidConfig, match="there is no folder"):
        _package(folder.parent / "none")
    (folder / "video_preprocessor_config.json").unlink()
    with pytest.raises(InvalidConfig, match=r"transformers cannot read config.json and the processor's settings"):
        _package(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(InvalidConfig, match=r"it has no readable config.json"):
        _package(folder)


def test_without_transformers_the_way_out_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vivit", "id2label": {"0": "a"}}))
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); sys.modules['transformers'] = None\n"
        f"from scripts.package import main; sys.exit(main([{str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install -r requirements/huggingface.txt" in done.stderr


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: cc-by-nc-4.0\ntags: [video]\n---\n# A model", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: Research Non-Commercial\n---\n", "Research Non-Commercial"),
        ("---\nlicense: [mit, cc-by-nc-sa-4.0]\n---\n", "cc-by-nc-sa-4.0"),
        ("---\nlicense: mit\n---\nnot for non-commercial use", None),
        ("---\nlicense: apache-2.0\nbase_model: vinc-nc\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("# A model without front matter, cc-by-nc-4.0", None),
        (None, None),
    ],
)
def test_a_licence_that_forbids_commercial_use_is_told(card: str | None, expected: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    note = licence_note(tmp_path)
    if expected is None:
        assert note is None
    else:
        assert note is not None
        assert f"says {expected}, which forbids commercial use" in note


def test_the_command_prints_the_licence(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    command = [sys.executable, "-m", "scripts.package", str(folder), "--name", "mine", "--output", str(folder.parent)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "note     LICENCE: the card of x3d_s says cc-by-nc-4.0, which forbids commercial use" in done.stdout
