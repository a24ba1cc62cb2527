"""`python -m scripts.package`: what is in an archive, and that nothing is left behind when it cannot be built."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from handlers import __version__
from handlers.config import HandlerConfig
from handlers.errors import InvalidConfig, RuntimeUnavailable
from handlers.limits import Limits
from handlers.model.archive_info import ArchiveInfo
from handlers.model.labels import read_labels
from handlers.model.runtimes import create_runtime, has_gpu_driver
from handlers.specs import get_spec
from scripts.package import main
from serving import build_archive, model_config
from serving import weights as weights_module
from serving.download import sha256_of
from serving.package import PackageOptions, package
from serving.weights_cache import cache_path
from tests.golden.dialects import Golden, clip, goldens

ROOT = Path(__file__).resolve().parents[2]


def _command(output: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "scripts.package", *arguments, "--output", str(output)]


def _unpack(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive that the command writes, with a PYTHONPATH that must not matter."""
    output = tmp_path_factory.mktemp("store")
    done = subprocess.run(
        _command(output, "x3d_xs", "--weights", "random", "--seed", "3"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(output / "x3d_xs.mar"))
    assert "RANDOM (seed 3)" in done.stdout
    return output / "x3d_xs.mar"


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _unpack(built, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An output folder; afterwards no temporary file may be left, there or in the temp folder."""
    scratch, output = tmp_path / "scratch", tmp_path / "store"
    scratch.mkdir()
    output.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    handler = signal.getsignal(signal.SIGTERM)
    yield output
    signal.signal(signal.SIGTERM, handler)
    assert list(scratch.iterdir()) == []
    assert [path.name for path in output.iterdir() if not path.name.endswith(".mar")] == []


def test_root_of_the_archive_is_the_contract(unpacked: Path) -> None:
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("handlers/")} == {
        "MAR-INF/MANIFEST.json",
        "archive.json",
        "index_to_name.json",
        "model-config.yaml",
        "openvino/head.npz",
        "openvino/model.bin",
        "openvino/model.xml",
        "single_pathway_handler.py",
        "torch.py",
        "weights.safetensors",
    }
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "handlers").rglob("*.py")}
    at_the_root = {
        f"handlers/{name}.py" for name in ("single_pathway_handler", "dual_pathway_handler", "torch_stand_in")
    }
    sources = shipped - at_the_root
    bytecode = {Path(importlib.util.cache_from_source(name)).as_posix() for name in sources}
    assert {name for name in names if name.startswith("handlers/")} == sources | bytecode
    for name in shipped - at_the_root:
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()
    entry = "single_pathway_handler.py"
    assert (unpacked / entry).read_bytes() == (ROOT / "handlers" / entry).read_bytes()
    assert (unpacked / "torch.py").read_bytes() == (ROOT / "handlers" / "torch_stand_in.py").read_bytes()


def test_bytecode_is_taken_for_its_own_source_alone(unpacked: Path, tmp_path: Path) -> None:
    """A worker need not compile what it imports, and what somebody has changed in an archive is what runs."""
    shutil.copytree(unpacked / "handlers", tmp_path / "handlers")
    code = "import handlers.pipeline, sys; print(*sorted(sys.modules['handlers.limits'].__dict__))"

    def imported() -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-B", "-v", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout, "".join(line for line in done.stderr.splitlines() if str(tmp_path) in line)

    _, log = imported()
    assert "code object from" in log
    assert log.count("code object from") == log.count("matches")
    limits = tmp_path / "handlers" / "limits.py"
    limits.write_text(limits.read_text() + "\nCHANGED = 1\n")
    assert "CHANGED" in imported()[0]


def test_manifest_names_entry_version_and_settings(unpacked: Path) -> None:
    manifest = json.loads((unpacked / "MAR-INF" / "MANIFEST.json").read_text())
    assert manifest["model"] == {
        "modelName": "x3d_xs",
        "handler": "single_pathway_handler.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    }


def test_entry_file_belongs_to_the_family() -> None:
    assert build_archive.entry_file(get_spec("slow_r50").pathways).name == "single_pathway_handler.py"
    assert build_archive.entry_file(get_spec("slowfast_r50").pathways).name == "dual_pathway_handler.py"


def test_settings_hold_every_key_with_its_default_and_a_comment(unpacked: Path) -> None:
    text = (unpacked / "model-config.yaml").read_text()
    settings = yaml.safe_load(text)
    handler = settings.pop("handler")
    assert settings == {
        "minWorkers": 1 if has_gpu_driver() else model_config.default_workers(),
        "maxWorkers": 1 if has_gpu_driver() else model_config.default_workers(),
        "batchSize": 8 if has_gpu_driver() else 1,
        "maxBatchDelay": 1,
        "responseTimeout": 120,
        "startupTimeout": 120,
    }
    assert list(handler) == [field.name for field in fields(HandlerConfig)]
    assert list(handler["limits"]) == [field.name for field in fields(Limits)]
    assert HandlerConfig.from_mapping(handler) == HandlerConfig(spec="x3d_xs", head="pytorchvideo")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("#", "handler:"))]
    assert [line for line in lines if not line.partition("#")[2].strip()] == []


def test_settings_with_which_no_worker_would_load_are_not_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, why = model_config._SERVER["responseTimeout"]
    monkeypatch.setitem(model_config._SERVER, "responseTimeout", (60, why))
    with pytest.raises(InvalidConfig, match="must be smaller than responseTimeout"):
        package(PackageOptions(spec="x3d_xs", weights="random", runtime="eager", output=tmp_path, progress=False))
    assert list(tmp_path.iterdir()) == []


def test_archive_json_tells_where_the_weights_come_from(unpacked: Path) -> None:
    digest = hashlib.sha256((unpacked / "weights.safetensors").read_bytes()).hexdigest()
    info = ArchiveInfo.read(unpacked)
    assert (info.spec, info.name, info.version, info.num_classes) == ("x3d_xs", "x3d_xs", "1.0", 400)
    assert (info.head, info.package_version) == ("pytorchvideo", __version__)
    assert (info.weights.kind, info.weights.seed, info.weights.sha256) == ("random", 3, digest)
    assert info.openvino is not None
    assert info.openvino.weights_sha256 == digest


def test_default_labels_are_kinetics(unpacked: Path) -> None:
    labels = read_labels(unpacked / "index_to_name.json")
    assert (len(labels), labels[0], labels[5], labels[399]) == (400, "abseiling", "archery", "zumba")


def test_weights_name_their_head(unpacked: Path) -> None:
    with safe_open(unpacked / "weights.safetensors", framework="pt") as file:
        assert file.metadata() == {"head": "pytorchvideo"}


def test_every_entry_is_stored_and_dated_alike(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        # Java's reader takes stored entries only with their size in front, not in a trailing descriptor.
        assert {entry.flag_bits & 0x08 for entry in archive.infolist()} == {0}


def test_same_inputs_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    subprocess.run(
        _command(tmp_path, "x3d_xs", "--weights", "random", "--seed", "3"),
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "77", "TZ": "Pacific/Auckland"},
        capture_output=True,
        check=True,
    )
    again = tmp_path / "x3d_xs.mar"
    with zipfile.ZipFile(built) as first, zipfile.ZipFile(again) as second:
        # Named first, so that a failure says which file differs.
        assert {e.filename: e.CRC for e in first.infolist()} == {e.filename: e.CRC for e in second.infolist()}
    assert sha256_of(again) == sha256_of(built)


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param(
            golden, id=f"{golden.dialect}-{golden.spec}", marks=[pytest.mark.slow] if golden.spec != "x3d_s" else []
        )
        for golden in goldens()
    ],
)
def test_foreign_checkpoints_answer_as_their_own_models_through_an_archive(
    golden: Golden, store: Path, tmp_path: Path
) -> None:
    """MMAction2's logits to 1e-4 and PySlowFast's probabilities to 1e-5, by the runtime that a worker would use."""
    path = tmp_path / "published.pth"
    torch.save({"state_dict": {key: torch.from_numpy(value) for key, value in golden.state_dict().items()}}, path)
    packaged = package(
        PackageOptions(spec=golden.spec, checkpoint=str(path), name="theirs", output=store, progress=False)
    )
    assert (packaged.info.head, packaged.info.weights.kind) == (golden.dialect, "checkpoint")
    assert packaged.info.weights.source == "published.pth"
    assert packaged.info.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    folder = _unpack(packaged.path, tmp_path / "unpacked")
    config = HandlerConfig.from_mapping(yaml.safe_load((folder / "model-config.yaml").read_text())["handler"])
    spec = get_spec(golden.spec)
    runtime = create_runtime(spec, config, ArchiveInfo.read(folder), folder, device="cpu")
    try:
        fast = clip(golden.input_shape, golden.input_seed)
        slow = fast[:, :, torch.linspace(0, 31, 8).long().numpy()] if spec.alpha else fast
        logits = runtime.logits([slow, fast] if spec.alpha else [fast]).astype(np.float64)
    finally:
        runtime.close()
    if golden.dialect == "mmaction2":
        np.testing.assert_allclose(logits, golden.answers, atol=1e-4, rtol=0)
    else:
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        np.testing.assert_allclose(exponents / exponents.sum(axis=1, keepdims=True), golden.answers, atol=1e-5, rtol=0)


def test_own_labels_decide_the_class_count_of_random_weights(store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"wave": 0, "clap": 1, "jump": 2}))
    options = PackageOptions(
        spec="x3d_xs",
        weights="random",
        labels=labels,
        name="gestures",
        version="2.1",
        runtime="eager",
        precision="bfloat16",
        output=store,
    )
    packaged = package(options)
    folder = _unpack(packaged.path, tmp_path / "unpacked")
    assert packaged.path == store / "gestures.mar"
    assert read_labels(folder / "index_to_name.json") == ("wave", "clap", "jump")
    assert load_file(folder / "weights.safetensors")["blocks.5.proj.bias"].shape == (3,)
    assert not (folder / "openvino").exists()
    assert not (folder / "torch.py").exists()
    info = ArchiveInfo.read(folder)
    assert (info.name, info.version, info.num_classes, info.openvino) == ("gestures", "2.1", 3, None)
    handler = yaml.safe_load((folder / "model-config.yaml").read_text())["handler"]
    assert (handler["runtime"], handler["precision"]) == ("eager", "bfloat16")


def test_an_archive_for_openvino_holds_its_weights_once(store: Path, tmp_path: Path) -> None:
    options = PackageOptions(spec="x3d_xs", weights="random", runtime="openvino", output=store)
    folder = _unpack(package(options).path, tmp_path / "unpacked")
    assert not (folder / "weights.safetensors").exists()
    assert (folder / "torch.py").is_file()
    info = ArchiveInfo.read(folder)
    assert info.openvino is not None
    assert info.weights.sha256 == info.openvino.weights_sha256
    spec, config = get_spec("x3d_xs"), HandlerConfig(spec="x3d_xs", runtime="openvino")
    runtime = create_runtime(spec, config, info, folder, device="cpu")
    clips = np.zeros((1, 3, spec.num_frames, spec.crop_size, spec.crop_size), dtype=np.float32)
    assert runtime.logits([clips]).shape == (1, 400)
    runtime.close()
    with pytest.raises(RuntimeUnavailable, match="runtime eager needs weights for torch, and this archive holds an Op"):
        create_runtime(spec, replace(config, runtime="eager"), info, folder, device="cpu")


def test_bundled_weights_are_cast_up_and_bring_their_labels(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = weights_module.random_weights(get_spec("camera_motion"), num_classes=10, seed=1)
    half = {key: value.half() if value.is_floating_point() else value for key, value in source.state_dict.items()}
    save_file(half, tmp_path / "camera_motion.safetensors")
    (tmp_path / "camera_motion.labels.txt").write_text("".join(f"motion {index}\n" for index in range(10)))
    monkeypatch.setattr(weights_module, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr("serving.package.WEIGHTS_FOLDER", tmp_path)
    packaged = package(PackageOptions(spec="camera_motion", runtime="eager", output=store, offline=True))
    folder = _unpack(packaged.path, tmp_path / "unpacked")
    assert packaged.info.weights.kind == "bundled"
    assert packaged.info.weights.source == "camera_motion.safetensors"
    assert read_labels(folder / "index_to_name.json")[9] == "motion 9"
    stored = load_file(folder / "weights.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(stored["blocks.5.proj.weight"], half["blocks.5.proj.weight"].float(), atol=0, rtol=0)


def test_published_weights_come_from_the_cache_of_their_url(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    url = get_spec("x3d_xs").weights.url
    assert url is not None
    path = cache_path(url)
    path.parent.mkdir(parents=True)
    source = weights_module.random_weights(get_spec("x3d_xs"), num_classes=400, seed=1)
    torch.save({"model_state": dict(source.state_dict)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name("X3D_XS.pyth.sha256").write_text(f"{digest}  X3D_XS.pyth\n")
    packaged = package(PackageOptions(spec="x3d_xs", runtime="eager", output=store, offline=True))
    weights = packaged.info.weights
    assert (weights.kind, weights.source, weights.sha256) == ("published", url, digest)


def test_without_openvino_auto_goes_on_and_openvino_is_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("serving.package.openvino_installed", lambda: False)
    arguments = ["x3d_xs", "--weights", "random", "--output", str(store)]
    assert main([*arguments, "--runtime", "openvino"]) == 1
    assert "needs the package openvino" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "note     openvino is not installed: the archive holds no converted model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["x3d_z"], 2, "error: unknown spec 'x3d_z'; known: x3d_xs, "),
        (["x3d_xs", "--name", "a b"], 1, "error: the model name 'a b' may hold letters, digits"),
        (["x3d_xs", "--name", "../up"], 1, "error: the model name '../up' may hold"),
        (["x3d_xs", "--version", "new"], 1, "error: the version 'new' must be numbers and dots"),
        (
            ["x3d_xs", "--runtime", "openvino", "--precision", "float16"],
            1,
            "in float32 or bfloat16; float16 needs a GPU",
        ),
        (["x3d_xs", "--checkpoint", "none.pth"], 1, "error: there is no checkpoint file none.pth"),
        (["x3d_xs", "--offline"], 1, "error: X3D_XS.pyth of https://dl.fbaipublicfiles.com/"),
        (["x3d_xs", "--checkpoint", "http://h.example/a.pth"], 1, "a.pth is plain http and its SHA-256 is not known"),
        (["x3d_xs", "--labels", "none.txt"], 1, "error: cannot read the label file none.txt"),
    ],
)
def test_refusals_are_one_sentence(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(store / "no-such-cache"))
    assert main([*arguments, "--output", str(store)]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["x3d_xs", "--seed", "1"],
        ["x3d_xs", "--weights", "random", "--seed", "-1"],
        ["x3d_xs", "--weights", "random", "--checkpoint", "a.pth"],
        ["x3d_xs", "--runtime", "tensorrt"],
        [],
    ],
)
def test_command_line_mistakes_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "the checkpoint has 3 classes and x3d_xs has 400: give its labels, --labels FILE"),
        ("a\nb\n", "labels.txt has 2 labels, but the model has 3 classes"),
        ("a\nb\na\n", "labels.txt: 1 labels are given more than once: 'a'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: str | None, message: str
) -> None:
    source = weights_module.random_weights(get_spec("x3d_xs"), num_classes=3, seed=1)
    torch.save(dict(source.state_dict), tmp_path / "mine.pth")
    arguments = ["x3d_xs", "--checkpoint", str(tmp_path / "mine.pth"), "--output", str(store)]
    if labels is not None:
        (tmp_path / "labels.txt").write_text(labels)
        arguments += ["--labels", str(tmp_path / "labels.txt")]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert list(store.iterdir()) == []


def test_existing_target_is_kept_without_force(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = store / "x3d_xs.mar"
    target.write_bytes(b"precious")
    arguments = ["x3d_xs", "--weights", "random", "--runtime", "eager", "--output", str(store)]
    assert main(arguments) == 1
    assert f"{target} exists; --force replaces it" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert main([*arguments, "--force"]) == 0
    assert zipfile.is_zipfile(target)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "import nothing_of_that_name\n",
            "does not import: ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
        ("class One: ...\nclass Two: ...\n", "defines 2 classes, TorchServe wants exactly one"),
        ("import tests.support.videos\n", "does not import: ModuleNotFoundError: No module named 'tests'"),
    ],
)
def test_archive_that_does_not_work_is_not_put_in_place(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, message: str
) -> None:
    checkout = tmp_path / "handlers"
    shutil.copytree(build_archive._HANDLERS, checkout, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / "single_pathway_handler.py").write_text(entry)
    monkeypatch.setattr(build_archive, "_HANDLERS", checkout)
    target = store / "x3d_xs.mar"
    target.write_bytes(b"the one before")
    with pytest.raises(build_archive.ArchiveError, match=message):
        package(PackageOptions(spec="x3d_xs", weights="random", runtime="eager", output=store, force=True))
    assert target.read_bytes() == b"the one before"


@pytest.mark.parametrize(
    ("trouble", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 1)]
)
def test_interruption_and_full_disk_leave_nothing(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: BaseException,
    status: int,
) -> None:
    def half(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
        archive.writestr(info, path.read_bytes()[:100])
        raise trouble

    monkeypatch.setattr(build_archive, "_store", half)
    assert main(["x3d_xs", "--weights", "random", "--runtime", "eager", "--output", str(store)]) == status
    assert capsys.readouterr().err.count("\n") == 1
    assert list(store.iterdir()) == []
