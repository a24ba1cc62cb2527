"""Runtimes: the same logits whatever runs the model, alone or together."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from handlers.config import HandlerConfig, RuntimeName
from handlers.errors import RuntimeUnavailable
from handlers.model.archive_info import ArchiveInfo, OpenVinoInfo, WeightsInfo
from handlers.model.network import build_model
from handlers.model.openvino_runtime import OpenVinoRuntime
from handlers.model.runtimes import Runtime, best_device, create_runtime, needs_torch
from handlers.model.torch_runtime import TorchRuntime
from handlers.specs import get_spec
from handlers.video.transforms import pack_pathways
from serving.openvino_export import convert

CLASSES = 7
INFO = ArchiveInfo(
    spec="x3d_xs",
    name="tiny",
    version="1.0",
    num_classes=CLASSES,
    head="pytorchvideo",
    weights=WeightsInfo(kind="random", source=None, sha256="0" * 64, seed=5),
    package_version="test",
    openvino=OpenVinoInfo(model="openvino/model.xml", weights_sha256="0" * 64),
)


def _views(count: int) -> NDArray[np.float32]:
    spec = get_spec("x3d_xs")
    shape = (count, 3, spec.num_frames, spec.crop_size, spec.crop_size)
    return np.random.default_rng(count).standard_normal(shape, dtype=np.float32)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, spec = tmp_path_factory.mktemp("model"), get_spec("x3d_xs")
    torch.manual_seed(5)
    model = build_model(spec, num_classes=CLASSES, head="pytorchvideo")
    model.get_parameter("blocks.5.proj.weight").data.normal_(0.0, 0.5)
    save_file(model.state_dict(), folder / "weights.safetensors")
    convert(model, spec, folder / "openvino" / "model.xml")
    return folder


def _create(model_dir: Path, *, info: ArchiveInfo = INFO, device: str = "cpu", **settings: Any) -> Runtime:
    config = HandlerConfig.from_mapping({"spec": info.spec, **settings})
    return create_runtime(get_spec(info.spec), config, info, model_dir, device=device)


@pytest.fixture(scope="module")
def openvino_runtime(model_dir: Path) -> Iterator[OpenVinoRuntime]:
    runtime = _create(model_dir, runtime="openvino", threads=2)
    assert isinstance(runtime, OpenVinoRuntime)
    yield runtime
    runtime.close()


def _await_side_by_side(runtime: OpenVinoRuntime) -> None:
    """Asks for views that have company until they are computed side by side."""
    until = time.monotonic() + 60.0
    while not runtime.side_by_side:
        assert time.monotonic() < until
        runtime.logits([_views(2)])


def test_auto_takes_openvino_on_a_cpu(model_dir: Path) -> None:
    runtime = _create(model_dir)
    assert isinstance(runtime, OpenVinoRuntime)
    assert runtime.describe()["runtime"] == "openvino"


def test_auto_without_openvino_is_eager(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runtimes", "openvino_runtime"):
        monkeypatch.setattr(f"handlers.model.{module}.import_openvino", lambda: None)
    assert isinstance(_create(model_dir), TorchRuntime)
    with pytest.raises(RuntimeUnavailable, match="needs the openvino package"):
        _create(model_dir, runtime="openvino")


@pytest.mark.parametrize(
    ("runtime", "has_driver", "has_gpu", "device"),
    [
        ("auto", True, True, "cuda:0"),
        ("eager", True, False, "cpu"),
        ("openvino", True, True, "cpu"),
        ("auto", False, True, "cpu"),  # torch, which takes seconds to import, is not asked
    ],
)
def test_the_best_device_is_a_gpu_that_the_runtime_can_use(
    runtime: RuntimeName, has_driver: bool, has_gpu: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.model.runtimes._GPU_DRIVERS", (str(tmp_path if has_driver else tmp_path / "none"),))
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    assert best_device(HandlerConfig(spec="x3d_xs", runtime=runtime)) == device


@pytest.mark.parametrize(
    ("settings", "converted", "has_driver", "installed", "needed"),
    [
        ({}, True, False, True, False),
        ({"runtime": "openvino"}, True, False, True, False),
        ({"precision": "bfloat16"}, True, False, True, False),
        ({"runtime": "eager"}, True, False, True, True),
        ({"runtime": "compile"}, True, False, False, True),
        ({"precision": "float16"}, True, False, True, True),
        ({"decoder": "encoded_video"}, True, False, True, True),
        ({}, False, False, True, True),
        ({}, True, True, True, True),  # the worker may be given the GPU
        ({}, True, True, False, False),  # what it could do with it is not installed
        ({"runtime": "openvino"}, True, True, True, True),  # so that it can refuse a GPU that it is given
        ({"runtime": "of clay"}, True, False, True, True),
        ({"runtime": "of clay"}, True, False, False, False),
    ],
)
def test_a_worker_needs_torch_where_openvino_does_not_run_the_model(
    settings: dict[str, str],
    converted: bool,
    has_driver: bool,
    installed: bool,
    needed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("handlers.model.runtimes.has_gpu_driver", lambda: has_driver)
    _write_settings(tmp_path, settings, INFO if converted else replace(INFO, openvino=None))
    assert needs_torch(tmp_path, torch_installed=installed) is needed


def test_a_worker_needs_torch_without_openvino_and_under_the_profiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.model.runtimes.has_gpu_driver", lambda: False)
    _write_settings(tmp_path, {}, INFO)
    assert not needs_torch(tmp_path, torch_installed=True)
    with monkeypatch.context() as profiled:
        profiled.setenv("ENABLE_TORCH_PROFILER", "true")
        assert needs_torch(tmp_path, torch_installed=True)
    monkeypatch.setattr("handlers.model.runtimes.import_openvino", lambda: None)
    assert needs_torch(tmp_path, torch_installed=True)


def _write_settings(folder: Path, settings: dict[str, str], info: ArchiveInfo) -> None:
    (folder / "archive.json").write_text(json.dumps(info.to_json()))
    (folder / "model-config.yaml").write_text(json.dumps({"handler": {"spec": info.spec, **settings}}))  # JSON is YAML


def test_auto_takes_torch_where_the_archive_has_no_converted_model(model_dir: Path) -> None:
    assert isinstance(_create(model_dir, info=replace(INFO, openvino=None)), TorchRuntime)


def test_openvino_equals_eager(model_dir: Path, openvino_runtime: Runtime) -> None:
    eager = _create(model_dir, runtime="eager").logits([_views(3)])
    converted = openvino_runtime.logits([_views(3)])
    assert np.abs(eager).max() > 0.05
    np.testing.assert_allclose(converted, eager, atol=1e-4)


def test_a_view_has_the_same_bits_alone_and_together(openvino_runtime: OpenVinoRuntime) -> None:
    views = _views(5)
    _await_side_by_side(openvino_runtime)
    together = openvino_runtime.logits([views])
    for index in range(5):
        np.testing.assert_array_equal(openvino_runtime.logits([views[index : index + 1]])[0], together[index])


def test_the_form_for_company_is_compiled_when_a_view_has_some(model_dir: Path) -> None:
    """Not before, and the views that come meanwhile get the same bits."""
    runtime = _create(model_dir, runtime="openvino", threads=2)
    assert isinstance(runtime, OpenVinoRuntime)
    views = _views(3)
    alone = [runtime.logits([views[index : index + 1]])[0] for index in range(3)]
    assert not runtime.side_by_side
    np.testing.assert_array_equal(runtime.logits([views]), alone)
    _await_side_by_side(runtime)
    np.testing.assert_array_equal(runtime.logits([views]), alone)
    runtime.close()


def test_views_have_an_answer_where_the_form_for_company_fails(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = _create(model_dir, runtime="openvino", threads=2)
    assert isinstance(runtime, OpenVinoRuntime)

    def fail(*_: object) -> None:
        raise RuntimeError("no memory is left")

    monkeypatch.setattr(runtime, "_compile", fail)
    views = _views(3)
    for _ in range(2):
        np.testing.assert_array_equal(runtime.logits([views])[0], runtime.logits([views[:1]])[0])
    assert [record.message for record in caplog.records] == [
        "views are computed one after the other, for the model could not be compiled again: no memory is left"
    ]
    runtime.close()


def test_one_thread_gives_the_same_bits(model_dir: Path, openvino_runtime: Runtime) -> None:
    single = _create(model_dir, runtime="openvino", threads=1)
    np.testing.assert_array_equal(single.logits([_views(2)]), openvino_runtime.logits([_views(2)]))


def test_eager_bfloat16_is_near_and_says_so(model_dir: Path) -> None:
    runtime = _create(model_dir, runtime="eager", precision="bfloat16")
    assert runtime.describe()["precision"] == "bfloat16"
    exact = _create(model_dir, runtime="eager").logits([_views(1)])
    np.testing.assert_allclose(runtime.logits([_views(1)]), exact, atol=0.1)


@pytest.mark.parametrize(
    ("settings", "device", "words"),
    [
        ({"runtime": "eager", "precision": "float16"}, "cpu", "float16 needs a GPU"),
        ({"runtime": "openvino"}, "cuda:0", "runs on a CPU, not on cuda:0"),
    ],
)
def test_what_cannot_work_is_refused(model_dir: Path, settings: dict[str, Any], device: str, words: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=words):
        _create(model_dir, device=device, **settings)


def test_two_pathways(tmp_path: Path) -> None:
    """SlowFast's slow and fast arrays reach the model as a list; a slim clip keeps this quick."""
    spec = get_spec("slowfast_r50")
    torch.manual_seed(1)
    model = build_model(spec, num_classes=CLASSES, head="pytorchvideo")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    info = ArchiveInfo.from_json({**INFO.to_json(), "spec": spec.name})
    views = np.random.default_rng(0).standard_normal((1, 3, 32, 256, 256), dtype=np.float32)
    pathways = pack_pathways(views, 4)
    with torch.inference_mode():
        expected = model([torch.from_numpy(pathway) for pathway in pathways]).numpy()
    answer = _create(tmp_path, info=info, runtime="eager").logits(pathways)
    np.testing.assert_allclose(answer, expected, atol=1e-4)
