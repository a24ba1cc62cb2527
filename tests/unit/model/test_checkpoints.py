"""Checkpoints of three ecosystems: recognised, renamed, and answering what their own models answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from handlers.errors import InvalidCheckpoint
from handlers.model.checkpoints import HEAD_METADATA_KEY, canonical_checkpoint, read_checkpoint
from handlers.model.network import build_model
from handlers.specs import get_spec
from serving.weights import random_weights
from tests.golden.dialects import LAYOUTS, Golden, clip, goldens, weights
from tests.support.paths import DIALECTS

Tensors = dict[str, torch.Tensor]


def _foreign(dialect: str, spec: str = "x3d_s", *, classes: int = 400) -> Tensors:
    shapes = {
        key: (classes, *shape[1:]) if shape[:1] == (400,) else shape for key, shape in LAYOUTS[dialect, spec].items()
    }
    return {key: torch.from_numpy(value) for key, value in weights(shapes, 1.0).items()}


@pytest.fixture(scope="module")
def mmaction2() -> Tensors:
    return _foreign("mmaction2")


@pytest.fixture(scope="module")
def pyslowfast() -> Tensors:
    return _foreign("pyslowfast")


@pytest.fixture(scope="module")
def pytorchvideo() -> Tensors:
    return dict(random_weights(get_spec("x3d_s"), num_classes=400, seed=1).state_dict)


def _saved(folder: Path, content: Any) -> Path:
    path = folder / "checkpoint.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param(
            golden, id=f"{golden.dialect}-{golden.spec}", marks=[pytest.mark.slow] if golden.spec != "x3d_s" else []
        )
        for golden in goldens()
    ],
)
def test_answers_are_the_original_models(golden: Golden, tmp_path: Path) -> None:
    """MMAction2's logits to 1e-4, PySlowFast's probabilities to 1e-5."""
    spec = get_spec(golden.spec)
    tensors = {key: torch.from_numpy(value) for key, value in golden.state_dict().items()}
    root = "state_dict" if golden.dialect == "mmaction2" else "model_state"
    checkpoint = read_checkpoint(_saved(tmp_path, {root: tensors, "epoch": 3}), spec)
    assert (checkpoint.dialect, checkpoint.head, checkpoint.num_classes) == (golden.dialect, golden.dialect, 400)
    model = build_model(spec, num_classes=400, head=checkpoint.head)
    model.load_state_dict(dict(checkpoint.state_dict))
    fast = torch.from_numpy(clip(golden.input_shape, golden.input_seed))
    inputs = fast if spec.alpha is None else [fast[:, :, torch.linspace(0, 31, 8).long()], fast]
    with torch.no_grad():
        logits = model(inputs)
    expected = torch.from_numpy(golden.answers)
    if golden.dialect == "mmaction2":
        torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=0)
    else:
        torch.testing.assert_close(logits.softmax(dim=1).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.dialects
@pytest.mark.skipif(not DIALECTS.is_dir(), reason="the full listings of the other ecosystems' keys are not in a clone")
def test_generated_layouts_are_the_recorded_ones() -> None:
    recorded = {("mmaction2", "x3d_s"): json.loads((DIALECTS / "mmaction2_x3d.json").read_text())["state_dict"]}
    for name, entry in json.loads((DIALECTS / "pyslowfast.json").read_text()).items():
        recorded["pyslowfast", name] = entry["state_dict"]
    assert LAYOUTS.keys() == recorded.keys()
    for key, shapes in LAYOUTS.items():
        assert shapes == {name: tuple(shape) for name, shape in recorded[key].items()}


def test_pytorchvideo_keys_stay(pytorchvideo: Tensors, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(_saved(tmp_path, {"model_state": pytorchvideo}), get_spec("x3d_s"))
    assert (checkpoint.dialect, checkpoint.head, checkpoint.num_classes) == ("pytorchvideo", "pytorchvideo", 400)
    assert checkpoint.state_dict.keys() == pytorchvideo.keys()
    assert all(torch.equal(checkpoint.state_dict[key], value) for key, value in pytorchvideo.items())


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "net.", "_orig_mod.", "backbone.", "module.model.", "_orig_mod.module."]
)
@pytest.mark.parametrize("root", ["model_state", "state_dict", "model_state_dict", "model", None])
def test_wrappers_and_roots(mmaction2: Tensors, tmp_path: Path, prefix: str, root: str | None) -> None:
    tensors = {prefix + key: value for key, value in mmaction2.items()}
    content = tensors if root is None else {root: tensors, "meta": {"epoch": 5}, "optimizer": {"lr": 0.1}}
    checkpoint = read_checkpoint(_saved(tmp_path, content), get_spec("x3d_s"))
    assert checkpoint.dialect == "mmaction2"
    assert not [key for key in checkpoint.state_dict if key.startswith(("module", "model", "_orig"))]


def test_key_and_prefix_say_where_the_weights_are(pytorchvideo: Tensors, tmp_path: Path) -> None:
    spec = get_spec("x3d_s")
    student = {f"student.{key}": value for key, value in pytorchvideo.items()}
    both = {**student, "teacher.weight": torch.zeros(1)}
    path = _saved(tmp_path, {"ema": {"weights": both}, "epoch": 1})
    checkpoint = read_checkpoint(path, spec, key="ema.weights", strip_prefix="student.")
    assert checkpoint.state_dict.keys() == pytorchvideo.keys()
    with pytest.raises(InvalidCheckpoint, match=r"has no state dict .* its keys: ema, epoch; --key names"):
        read_checkpoint(path, spec)
    with pytest.raises(InvalidCheckpoint, match=r"no dictionary under 'ema.model'; its keys: ema, epoch"):
        read_checkpoint(path, spec, key="ema.model")
    with pytest.raises(
        InvalidCheckpoint, match=r"no key of checkpoint.pth begins with 'pupil.'; its first keys: student"
    ):
        read_checkpoint(path, spec, key="ema.weights", strip_prefix="pupil.")
    with pytest.raises(InvalidCheckpoint, match=r"in no known layout: .*--strip-prefix"):
        read_checkpoint(path, spec, key="ema.weights")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*TorchScript archive:UserWarning")
def test_whole_models_and_programs_get_a_hint_that_works(tmp_path: Path) -> None:
    """The sentences name the call that saves the weights alone; it is made here."""
    spec = get_spec("x3d_s")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(InvalidCheckpoint, match=r"\(torch.nn.modules.container.Sequential\).*loaded.state_dict\(\)"):
        read_checkpoint(_saved(tmp_path, model), spec)
    loaded = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    with pytest.raises(InvalidCheckpoint, match=r"its first keys: 0.weight"):
        read_checkpoint(_saved(tmp_path, loaded.state_dict()), spec)
    program = tmp_path / "program.pt"
    jit: Any = torch.jit  # untyped
    jit.save(jit.trace(model, torch.zeros(1, 2)), program)
    with pytest.raises(InvalidCheckpoint, match=r"a TorchScript program.*torch.jit.load\(FILE\).state_dict\(\)"):
        read_checkpoint(program, spec)
    with pytest.raises(InvalidCheckpoint, match=r"its first keys: 0.weight"):
        read_checkpoint(_saved(tmp_path, jit.load(program).state_dict()), spec)


def test_optimizer_state_with_tensors_is_not_looked_at(pytorchvideo: Tensors, tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {"model_state": pytorchvideo, "optimizer_state": optimizer.state_dict(), "epoch": 3, "cfg": "MODEL: X3D"}
    assert read_checkpoint(_saved(tmp_path, content), get_spec("x3d_s")).num_classes == 400


@pytest.mark.parametrize(
    ("dialect", "spec"), [("mmaction2", "x3d_s"), ("pyslowfast", "x3d_s"), ("pyslowfast", "slow_r50")]
)
def test_class_count_is_the_checkpoints(dialect: str, spec: str, tmp_path: Path) -> None:
    path = _saved(tmp_path, {"state_dict": _foreign(dialect, spec, classes=7)})
    assert read_checkpoint(path, get_spec(spec)).num_classes == 7


def test_half_precision_is_cast_up(pytorchvideo: Tensors, tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in pytorchvideo.items()}
    checkpoint = read_checkpoint(_saved(tmp_path, half), get_spec("x3d_s"))
    assert {value.dtype for value in checkpoint.state_dict.values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(checkpoint.state_dict["blocks.5.proj.weight"], half["blocks.5.proj.weight"].float())


def test_missing_batch_counters_are_no_loss(mmaction2: Tensors) -> None:
    """Files of very old torch lack them, and evaluation never reads them."""
    tensors = {key: value for key, value in mmaction2.items() if not key.endswith("num_batches_tracked")}
    assert canonical_checkpoint(tensors, get_spec("x3d_s"), origin="old.pth").num_classes == 400


def test_safetensors_keeps_the_head_that_was_noted(mmaction2: Tensors, tmp_path: Path) -> None:
    spec = get_spec("x3d_s")
    first = canonical_checkpoint(mmaction2, spec, origin="a.pth")
    path = tmp_path / "weights.safetensors"
    save_file(dict(first.state_dict), path, metadata={HEAD_METADATA_KEY: first.head})
    again = read_checkpoint(path, spec)
    assert (again.head, again.dialect) == ("mmaction2", "pytorchvideo")
    save_file(dict(first.state_dict), path)
    with pytest.raises(InvalidCheckpoint, match=r"5 keys left over \(blocks.1.res_blocks.0.branch1_norm"):
        read_checkpoint(path, spec)
    save_file(dict(first.state_dict), path, metadata={HEAD_METADATA_KEY: "other"})
    with pytest.raises(InvalidCheckpoint, match="names the head 'other'; known: pytorchvideo, mmaction2, pyslowfast"):
        read_checkpoint(path, spec)


def test_left_over_keys_are_named(pyslowfast: Tensors) -> None:
    extra = {f"s5.pathway0_nonlocal{index}.theta.weight": torch.zeros(1) for index in range(7)}
    with pytest.raises(InvalidCheckpoint) as caught:
        canonical_checkpoint({**pyslowfast, **extra}, get_spec("x3d_s"), origin="nonlocal.pyth")
    assert str(caught.value) == (
        "nonlocal.pyth does not fit x3d_s with the pyslowfast head: 7 keys left over "
        "(s5.pathway0_nonlocal0.theta.weight, s5.pathway0_nonlocal1.theta.weight, "
        "s5.pathway0_nonlocal2.theta.weight, s5.pathway0_nonlocal3.theta.weight, "
        "s5.pathway0_nonlocal4.theta.weight and 2 more)"
    )


def test_missing_keys_and_wrong_shapes_are_named(mmaction2: Tensors) -> None:
    spec = get_spec("x3d_s")
    gone = {key: value for key, value in mmaction2.items() if not key.startswith("backbone.conv5.bn")}
    with pytest.raises(InvalidCheckpoint, match=r"4 keys missing \(blocks.5.pool.pre_norm.weight, "):
        canonical_checkpoint(gone, spec, origin="a.pth")
    wrong = {**mmaction2, "backbone.conv1_t.conv.weight": torch.zeros(24, 1, 3, 1, 1)}
    with pytest.raises(InvalidCheckpoint, match=r"conv_xy.weight is \(24, 1, 3, 1, 1\), not \(24, 1, 5, 1, 1\)"):
        canonical_checkpoint(wrong, spec, origin="a.pth")


def test_deeper_x3d_is_refused_for_a_shallow_spec() -> None:
    deep = dict(random_weights(get_spec("x3d_l"), num_classes=400, seed=0).state_dict)
    with pytest.raises(InvalidCheckpoint, match="keys left over"):
        canonical_checkpoint(deep, get_spec("x3d_s"), origin="X3D_L.pyth")


def test_another_family_is_refused_by_name() -> None:
    with pytest.raises(InvalidCheckpoint, match=r"a slowfast model \(pyslowfast layout\), but x3d_s is x3d"):
        canonical_checkpoint(_foreign("pyslowfast", "slowfast_r50"), get_spec("x3d_s"), origin="a.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"conv1.weight": torch.zeros(1)}}, "in no known layout: .*; its first keys: conv1.weight"),
        (
            {"weights": {"a": torch.zeros(1)}, "epoch": 1},
            "no state dict under model_state, state_dict, .*weights, epoch; --key",
        ),
        ({}, "no state dict .* its keys: nothing"),
        ({"state_dict": {}}, "no state dict"),
        ([torch.zeros(1)], "holds a list, not a dictionary of weights"),
        (torch.zeros(3), "holds a Tensor, not a dictionary of weights"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=message):
        read_checkpoint(_saved(tmp_path, content), get_spec("x3d_s"))


def test_backbone_alone_is_refused(mmaction2: Tensors) -> None:
    backbone = {key: value for key, value in mmaction2.items() if key.startswith("backbone.")}
    with pytest.raises(InvalidCheckpoint, match="has no classifier: x3d_s needs a whole model"):
        canonical_checkpoint(backbone, get_spec("x3d_s"), origin="backbone.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(pytorchvideo: Tensors, value: float) -> None:
    broken = {**pytorchvideo, "blocks.5.proj.bias": torch.full((400,), value)}
    with pytest.raises(InvalidCheckpoint, match=r"blocks.5.proj.bias holds values that are not finite"):
        canonical_checkpoint(broken, get_spec("x3d_s"), origin="diverged.pth")


def test_integer_weights_are_refused(pytorchvideo: Tensors) -> None:
    broken = {**pytorchvideo, "blocks.5.proj.bias": torch.zeros(400, dtype=torch.int8)}
    with pytest.raises(InvalidCheckpoint, match=r"blocks.5.proj.bias is torch.int8, weights must be floating point"):
        canonical_checkpoint(broken, get_spec("x3d_s"), origin="quantised.pth")


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, pytorchvideo: Tensors) -> None:
    evidence = tmp_path / "ran"
    path = _saved(tmp_path, {"model_state": pytorchvideo, "cfg": _Bomb(evidence)})
    with pytest.raises(InvalidCheckpoint, match=r"holds more than tensors \(posix.mkdir\).*save its weights alone"):
        read_checkpoint(path, get_spec("x3d_s"))
    assert not evidence.exists()


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_damaged_files_are_refused(tmp_path: Path, pytorchvideo: Tensors, keep: int) -> None:
    path = _saved(tmp_path, {"model_state": pytorchvideo})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidCheckpoint, match=r"checkpoint.pth is not a checkpoint that torch can read"):
        read_checkpoint(path, get_spec("x3d_s"))


def test_text_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.pth"
    path.write_text("<html>404</html>")
    with pytest.raises(InvalidCheckpoint, match=r"page.pth is not a checkpoint that torch can read"):
        read_checkpoint(path, get_spec("x3d_s"))
    with pytest.raises(InvalidCheckpoint, match="there is no checkpoint file"):
        read_checkpoint(tmp_path / "none.pth", get_spec("x3d_s"))
    (tmp_path / "a.safetensors").write_bytes(b"not one")
    with pytest.raises(InvalidCheckpoint, match=r"a.safetensors is not a readable safetensors file"):
        read_checkpoint(tmp_path / "a.safetensors", get_spec("x3d_s"))
