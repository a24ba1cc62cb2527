"""A program of torch.export, packaged and run where its code is not; a file that could run code is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as transforms
from torch import nn

from handlers.errors import InvalidCheckpoint, InvalidConfig, InvalidLabels
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores
from handlers.request.options import RequestOptions, VideoRequest
from serving.exported_program import clean_program
from serving.package import PackageOptions, package
from tests.support.originals import every_frame
from tests.support.paths import REPOSITORY

SPEC = """\
architecture: graph
graph: own.pt2
num_frames: 4
sampling_rate: 5
temporal: whole_video
short_side: 40
crop_size: 32
resize_as: torchvision
num_classes: 3
mean: [0.4, 0.45, 0.5]
std: 0.25
"""


class Own(nn.Module):
    """(N, 3, T, S, S) -> (N, 3), with dropout, a normalisation, a reshape and a buffer."""

    def __init__(self, *, features: bool = False) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv3d(3, 8, (1, 5, 5), stride=2), nn.BatchNorm3d(8)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(16, 3)
        self.register_buffer("scale", torch.tensor([8.0, 9.0, 10.0]))
        self.with_features = features

    def forward(self, clips: torch.Tensor) -> Any:
        frames = nn.functional.gelu(self.norm(self.stem(clips)), approximate="tanh").mean(dim=(3, 4))
        features = self.drop(frames.reshape(clips.shape[0], 16))
        logits = self.last(features) * self.scale
        return (logits, features) if self.with_features else logits


@pytest.fixture(scope="module")
def model() -> Own:
    torch.manual_seed(1)
    return Own().eval()


def _export(model: nn.Module, path: Path, *, clips: int = 2, size: int = 32, fixed: bool = False) -> Path:
    """As docs/your-own-model.md says."""
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (torch.zeros(clips, 3, 4, size, size),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def folder(model: Own, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    _export(model, folder / "own.pt2")
    (folder / "own_model.yaml").write_text(SPEC)
    (folder / "labels.txt").write_text("calm\nfast\nloud\n")
    return folder


def _package(folder: Path, **changes: Any) -> Path:
    given = {"spec": str(folder / "own_model.yaml"), "labels": folder / "labels.txt", "output": folder / "store"}
    return package(PackageOptions(**{**given, "progress": False, "force": True, **changes})).path


def _other(folder: Path, file: str) -> str:
    """The spec file for another program in the folder."""
    path = folder / f"{file}.yaml"
    path.write_text(SPEC.replace("own.pt2", file))
    return str(path)


def _expected(model: nn.Module, video: bytes) -> torch.Tensor:
    frames, _ = every_frame(video)
    clip = torch.from_numpy(np.stack([frames[0], frames[15], frames[30], frames[45]])).permute(0, 3, 1, 2)
    clip = transforms.center_crop(transforms.resize(clip, [40], antialias=False), [32, 32])
    clip = transforms.normalize(transforms.convert_image_dtype(clip), (0.4, 0.45, 0.5), (0.25,) * 3)
    with torch.no_grad():
        logits: torch.Tensor = model(clip.permute(1, 0, 2, 3)[None])
    return logits


_RUN = """
import sys; sys.path.insert(0, sys.argv[1])
if sys.argv[2] == 'openvino':
    sys.modules['torch'] = None
import json
from pathlib import Path
import handlers
from handlers.pipeline import VideoClassifier
from handlers.request.answer import render
from handlers.request.options import RequestOptions, VideoRequest
assert sys.argv[1] in handlers.__file__
classifier = VideoClassifier.from_directory(Path(sys.argv[1]), device='cpu')
options = RequestOptions(top_k=3)
(scores,) = classifier.classify([VideoRequest(Path('clip.mp4').read_bytes(), options)])
classifier.close()
assert classifier.describe()['runtime'] == sys.argv[2], classifier.describe()
print(json.dumps(render(scores, options, classifier.labels, model='m', version='1', spec=classifier.spec)))
"""


@pytest.mark.parametrize("runtime", ["openvino", "eager"])
def test_it_answers_as_the_model_where_its_code_is_not(
    model: Own, folder: Path, runtime: str, h264_video: bytes, tmp_path: Path
) -> None:
    """The archive's own handlers in another process, away from this checkout; OpenVINO's without torch."""
    with zipfile.ZipFile(_package(folder)) as zipped:
        zipped.extractall(tmp_path / "model")
    (tmp_path / "model" / "torch.py").unlink()  # its handler puts the real one in its place
    settings = tmp_path / "model" / "model-config.yaml"
    settings.write_text(settings.read_text().replace("runtime: auto", f"runtime: {runtime}"))
    (tmp_path / "clip.mp4").write_bytes(h264_video)
    command = [sys.executable, "-P", "-c", _RUN, str(tmp_path / "model"), runtime]
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = _expected(model, h264_video)[0].softmax(0).tolist()
    answer = json.loads(done.stdout)
    assert answer == pytest.approx(dict(zip(("calm", "fast", "loud"), expected, strict=True)), abs=2e-3)
    assert max(expected) > 0.4, "a flat answer would prove little"


def test_each_runtime_gets_what_it_needs(folder: Path) -> None:
    for runtime, program, graph in (("auto", True, True), ("openvino", False, True), ("eager", True, False)):
        with zipfile.ZipFile(_package(folder, runtime=runtime)) as zipped:
            names = set(zipped.namelist())
            assert ("program.pt2" in names, "openvino/model.xml" in names) == (program, graph)
            assert f"runtime: {runtime}" in zipped.read("model-config.yaml").decode()


def test_a_second_output_is_the_embedding(model: Own, folder: Path, h264_video: bytes) -> None:
    both = Own(features=True).eval()
    both.load_state_dict(model.state_dict())
    _export(both, folder / "both.pt2")
    request = VideoRequest(h264_video, RequestOptions(output="embedding"))
    for runtime in ("auto", "eager"):
        archive = _package(folder, spec=_other(folder, "both.pt2"), runtime=runtime)
        with VideoClassifier.from_archive(archive, device="cpu") as classifier:
            assert classifier.describe()["embedding_length"] == 16
            (scores,) = classifier.classify([request])
        assert isinstance(scores, VideoScores)
        assert scores.windows[0].features is not None
        logits, features = _expected(both, h264_video)
        np.testing.assert_allclose(scores.windows[0].features, features.numpy(), atol=1e-4)
        np.testing.assert_allclose(scores.windows[0].logits, logits.numpy(), atol=2e-3)


# What is refused ----------------------------------------------------------------------------------------------------

_MODEL, _WEIGHTS = "own/models/model.json", "own/data/weights/model_weights_config.json"


def _changed(folder: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """own.pt2 with other entries."""
    with zipfile.ZipFile(folder / "own.pt2") as zipped:
        entries = {name: zipped.read(name) for name in zipped.namelist()}
    change(entries)
    with zipfile.ZipFile(folder / "evil.pt2", "w") as evil:
        for name, content in entries.items():
            evil.writestr(name, content)
    return folder / "evil.pt2"


class _Touch:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def _pickle(path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(_Touch(path), buffer)
    return buffer.getvalue()


def _edit(name: str, edit: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        content = json.loads(entries[name])
        edit(content)
        entries[name] = json.dumps(content).encode()

    return change


def _nodes(content: Any) -> Any:
    return content["graph_module"]["graph"]["nodes"]


@pytest.mark.parametrize("where", ["weight", "custom object", "constant"])
def test_a_pickle_inside_is_refused_and_nothing_of_it_runs(folder: Path, where: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    def change(entries: dict[str, bytes]) -> None:
        if where == "weight":
            config = json.loads(entries[_WEIGHTS])
            config["config"]["last.bias"]["use_pickle"] = True
            entries[_WEIGHTS] = json.dumps(config).encode()
            entries[f"own/data/weights/{config['config']['last.bias']['path_name']}"] = _pickle(touched)
        else:
            name = "opaque_obj_0" if where == "custom object" else "tensor_0"
            entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
            entries["own/data/constants/model_constants_config.json"] = json.dumps(
                {"config": {"thing": entry}}
            ).encode()
            entries[f"own/data/constants/{name}"] = _pickle(touched)

    evil = _changed(folder, change)
    with pytest.raises(InvalidCheckpoint, match="as a pickle, which may hold code; export it with logits as its only"):
        _package(folder, spec=_other(folder, evil.name))
    assert not touched.exists()
    torch.load(io.BytesIO(_pickle(touched)), weights_only=False)
    assert touched.exists(), "the pickle would have run"


def test_sample_inputs_are_never_unpickled(folder: Path, tmp_path: Path) -> None:
    """torch.export.save always writes some, as a pickle, and torch.export.load would unpickle whatever is there."""
    evil = _changed(
        folder, lambda entries: entries.update({"own/data/sample_inputs/model.pt": _pickle(tmp_path / "x")})
    )
    archive = _package(folder, spec=_other(folder, evil.name))
    assert not (tmp_path / "x").exists()
    with zipfile.ZipFile(archive) as zipped, zipfile.ZipFile(io.BytesIO(zipped.read("program.pt2"))) as program:
        assert program.read("model/data/sample_inputs/model.pt") == b""


def _operator(text: str) -> Callable[[Any], None]:
    """torch looks such a name up, from the package torch on, and calls what it finds."""
    return lambda content: _nodes(content)[0].update(target=text)


def _expression(text: str) -> Callable[[Any], None]:
    """sympy evaluates it."""

    def edit(content: Any) -> None:
        content["graph_module"]["graph"]["tensor_values"]["clips"]["sizes"][0]["as_expr"]["expr_str"] = text

    return edit


def _in_spec(content: Any) -> None:
    signature = content["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace("builtins.tuple", "antigravity.Thing")


def _string(content: Any) -> None:
    _nodes(content)[0]["inputs"].append({"name": "x", "arg": {"as_string": "/etc/passwd"}, "kind": 1})


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_operator("torch.os.system"), "calls 'torch.os.system', which is no operator of ATen"),
        (_operator("torch.hub.load"), "which is no operator of ATen"),
        (_operator("torch.ops.aten.from_file.default"), "no operator of ATen that a network needs"),
        (_operator("torch.ops.aten.__class__.default"), "no operator of ATen that a network needs"),
        (_operator("torch.ops.other.thing.default"), "which is no operator of ATen"),
        (_operator("_operator.attrgetter"), "which is no operator of ATen"),
        (_operator("#package:thing"), "which is no operator of ATen"),
        (_expression("__import__('os').system('true')"), "as 'expr_str', which no network needs"),
        (_expression("lambda x: x"), "as 'expr_str', which no network needs"),
        (_expression("Symbol('a b')"), "as 'expr_str', which no network needs"),
        (_in_spec, "takes or answers something else than tensors"),
        (_string, "'/etc/passwd' as 'as_string', which no network needs"),
        (lambda content: _nodes(content)[0].update(name="x = 1; import os"), "as 'name', which no network needs"),
        (
            lambda content: _nodes(content)[0]["inputs"].append({"name": "x", "arg": {"as_graph": {}}, "kind": 1}),
            "holds a graph, which may be code",
        ),
        (
            lambda content: content["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
                parameter_name='stem"+exit()+"'
            ),
            "as 'parameter_name', which no network needs",
        ),
        (
            lambda content: content["graph_module"]["signature"]["input_specs"].pop(),
            r"must take one tensor, the clips, got 0 inputs",
        ),
    ],
)
def test_text_that_torch_would_make_code_of_is_refused(folder: Path, edit: Callable[[Any], None], words: str) -> None:
    evil = _changed(folder, _edit(_MODEL, edit))
    with pytest.raises(InvalidCheckpoint, match=words):
        clean_program(evil, folder / "clean.pt2")


def test_conditions_and_metadata_are_left_out(folder: Path) -> None:
    """torch executes the first and looks up names in the second."""

    def edit(content: Any) -> None:
        content["guards_code"] = ["exit()"]
        _nodes(content)[0]["metadata"] = {"torch_fn": "os;system", "nn_module_stack": "a,b,os.system"}

    clean_program(_changed(folder, _edit(_MODEL, edit)), folder / "clean.pt2")
    with zipfile.ZipFile(folder / "clean.pt2") as zipped:
        text = zipped.read("model/models/model.json").decode()
    assert "exit" not in text
    assert "os" not in json.dumps(_nodes(json.loads(text))[0]["metadata"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries.update({"own/data/aotinductor/model/a.so": b""}), "holds compiled code"),
        (lambda entries: entries.update({"own/models/second.json": b"{}"}), "must hold one program, got 2"),
        (lambda entries: entries.update({"own/archive_version": b"9"}), "of another version of torch.export.save"),
        (lambda entries: entries.pop("own/data/weights/weight_0"), "lacks the numbers of"),
        (lambda entries: entries.update({_MODEL: b"{"}), "is not a file of torch.export.save that can be read"),
        (lambda entries: entries.update({_MODEL: b"[]"}), "is not a file of torch.export.save that can be read"),
        (lambda entries: entries.pop("own/byteorder"), "is not a file of torch.export.save that can be read"),
    ],
)
def test_other_files_are_refused(folder: Path, change: Callable[[dict[str, bytes]], None], words: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=words):
        clean_program(_changed(folder, change), folder / "clean.pt2")


def test_a_compressed_or_double_entry_is_refused(folder: Path) -> None:
    with zipfile.ZipFile(folder / "evil.pt2", "w", zipfile.ZIP_DEFLATED) as evil:
        evil.writestr("own/archive_format", "pt2")
    with pytest.raises(InvalidCheckpoint, match="holds an entry twice, or a compressed one"):
        clean_program(folder / "evil.pt2", folder / "clean.pt2")
    (folder / "evil.pt2").write_bytes(b"no zip file")
    with pytest.raises(InvalidCheckpoint, match=r"is not a file of torch.export.save"):
        clean_program(folder / "evil.pt2", folder / "clean.pt2")


class Dictionary(nn.Module):
    def forward(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": clips.mean(dim=(2, 3, 4))}


class PerFrame(nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.mean(dim=(3, 4))


def test_an_export_that_cannot_be_served_is_refused_with_the_way_out(folder: Path) -> None:
    _export(Own().train(), folder / "train.pt2")
    _export(Own().eval(), folder / "one.pt2", fixed=True)
    _export(Own().eval(), folder / "large.pt2", size=40)
    _export(Dictionary(), folder / "dictionary.pt2")
    _export(PerFrame(), folder / "frames.pt2")
    for file, words in (
        ("train.pt2", r"call model.eval\(\) before the export"),
        ("one.pt2", "takes 2 clips and no other number; export it with an example of two clips"),
        ("large.pt2", r"takes clips of the shape \(3, 4, 40, 40\), those of the spec are \(3, 4, 32, 32\)"),
        ("dictionary.pt2", "takes or answers something else than tensors; export it with logits as its only output"),
        ("frames.pt2", r"must answer logits \(N, classes\); for two clips it gave \(2, 3, 4\)"),
        ("none.pt2", r"there is no file none.pt2"),
    ):
        with pytest.raises(InvalidCheckpoint, match=words):
            _package(folder, spec=_other(folder, file))
    with pytest.raises(InvalidLabels, match="give its labels"):
        _package(folder, labels=None)
    (folder / "five.yaml").write_text(SPEC.replace("num_classes: 3", "num_classes: 5"))
    with pytest.raises(InvalidConfig, match=r"own.pt2 answers 3 classes, the spec says 5"):
        _package(folder, spec=str(folder / "five.yaml"))


def test_the_command_refuses_in_one_line(folder: Path, tmp_path: Path) -> None:
    evil = _changed(folder, _edit(_MODEL, _operator("torch.os.system")))
    command = [
        sys.executable,
        "-m",
        "scripts.package",
        _other(folder, evil.name),
        "--labels",
        str(folder / "labels.txt"),
    ]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: evil.pt2 calls 'torch.os.system'")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
