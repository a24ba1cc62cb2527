"""The models are the hub's, head by head."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorchvideo.models import hub
from safetensors.torch import save_file

from handlers.errors import InvalidCheckpoint
from handlers.model.network import LogMeanProbability, build_model, expected_shapes, load_model
from handlers.specs import SPECS, ModelSpec, get_spec
from serving.weights import random_weights
from tests.support.paths import REPOSITORY

HUB: dict[str, Any] = {
    "x3d_xs": lambda: hub.x3d_xs(head_activation=None),
    "x3d_s": lambda: hub.x3d_s(head_activation=None),
    "x3d_m": lambda: hub.x3d_m(head_activation=None),
    "x3d_l": lambda: hub.x3d_l(head_activation=None),
    "slow_r50": hub.slow_r50,
    "slowfast_r50": hub.slowfast_r50,
    "slowfast_r101": hub.slowfast_r101,
}


def _inputs(spec: ModelSpec, *, batch: int = 1) -> Any:
    generator = torch.Generator().manual_seed(3)
    clip = torch.randn(batch, 3, spec.num_frames, spec.crop_size, spec.crop_size, generator=generator)
    if spec.alpha is None:
        return clip
    return [clip[:, :, torch.linspace(0, spec.num_frames - 1, spec.num_frames // spec.alpha).long()], clip]


def _filled(spec: ModelSpec, **changes: Any) -> torch.nn.Module:
    source = random_weights(spec, num_classes=spec.num_classes, seed=5)
    model = build_model(spec, num_classes=spec.num_classes, head=changes.get("head", spec.head))
    model.load_state_dict(dict(source.state_dict))
    return model


@pytest.mark.parametrize("name", HUB)
def test_state_dict_has_the_hubs_keys_and_shapes(name: str) -> None:
    with torch.device("meta"):
        theirs = {key: value.shape for key, value in HUB[name]().state_dict().items()}
    assert expected_shapes(get_spec(name), num_classes=400, head="pytorchvideo") == theirs


@pytest.mark.parametrize("name", ["x3d_xs", "x3d_s", "slow_r50", "slowfast_r50"])
def test_logits_equal_the_hub_models(name: str) -> None:
    spec = get_spec(name)
    ours, theirs = _filled(spec), HUB[name]().eval()
    theirs.load_state_dict(ours.state_dict())
    inputs = _inputs(spec)
    with torch.no_grad():
        answer = ours(inputs)
        # The hub's SlowFast overwrites the list it is given; ours must have left it as it was.
        for given, fresh in zip(inputs, _inputs(spec), strict=True):
            assert torch.equal(given, fresh)
        expected = theirs(inputs)
    assert answer.shape == (1, 400)
    assert expected.std() > 0.5, "random weights must give answers worth comparing"
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=0)


def test_x3d_answers_logits_where_pytorchvideo_015_answers_probabilities() -> None:
    spec = get_spec("x3d_xs")
    ours, released = _filled(spec), hub.x3d_xs().eval()
    released.load_state_dict(ours.state_dict())
    with torch.no_grad():
        probabilities, logits = released(_inputs(spec)), ours(_inputs(spec))
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-4)
    # A second softmax over those would flatten every score to about 1/400.
    assert probabilities.softmax(dim=1).max() < 1.05 / 400
    assert logits.softmax(dim=1).max() > 4 / 400


def test_evaluation_mode_has_no_dropout() -> None:
    spec = get_spec("x3d_xs")
    model, inputs = _filled(spec), _inputs(spec)
    with torch.no_grad():
        torch.testing.assert_close(model(inputs), model(inputs), atol=1e-5, rtol=0)
    assert not any(module.training for module in model.modules())


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    spec = get_spec("x3d_xs")
    model, clips = _filled(spec), _inputs(spec, batch=3)
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clips[index : index + 1]) for index in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_log_mean_probability_gives_the_averaged_probabilities_back() -> None:
    logits = torch.randn(2, 7, 1, 2, 3, generator=torch.Generator().manual_seed(0)) * 4
    answer = LogMeanProbability()(logits)
    assert answer.shape == (2, 7, 1, 1, 1)
    mean = logits.softmax(dim=1).mean(dim=(2, 3, 4))
    torch.testing.assert_close(answer.flatten(1).softmax(dim=1), mean)
    far_apart = torch.tensor([[-300.0, 300.0]]).reshape(1, 2, 1, 1, 1).expand(1, 2, 1, 2, 2)
    assert torch.isfinite(LogMeanProbability()(far_apart)).all()


def test_heads_differ_and_only_x3d_has_mmaction2s() -> None:
    spec = get_spec("x3d_xs")
    plain = expected_shapes(spec, num_classes=400, head="pytorchvideo")
    foreign = expected_shapes(spec, num_classes=400, head="mmaction2")
    assert {key.rsplit(".", 1)[0] for key in set(foreign) - set(plain)} == {"blocks.1.res_blocks.0.branch1_norm"}
    with pytest.raises(InvalidCheckpoint, match="the mmaction2 head exists for X3D alone, got spec slow_r50"):
        build_model(get_spec("slow_r50"), num_classes=400, head="mmaction2")


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_class_count_is_the_callers(spec: ModelSpec) -> None:
    shapes = expected_shapes(spec, num_classes=7, head=spec.head)
    assert shapes[f"{spec.classifier}.weight"][0] == 7


def test_load_model_reads_safetensors(tmp_path: Path) -> None:
    spec = get_spec("x3d_xs")
    model = _filled(spec)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_model(spec, tmp_path / "weights.safetensors", num_classes=400, head="pytorchvideo")
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        torch.testing.assert_close(loaded(_inputs(spec)), model(_inputs(spec)), atol=1e-5, rtol=0)


def test_load_model_refuses_what_does_not_fit(tmp_path: Path) -> None:
    spec, path = get_spec("x3d_xs"), tmp_path / "weights.safetensors"
    state_dict = dict(_filled(spec).state_dict())
    save_file(state_dict, path)
    with pytest.raises(InvalidCheckpoint, match=r"2 shapes differ: .*proj.weight is \(400, 2048\), not \(10, 2"):
        load_model(spec, path, num_classes=10, head="pytorchvideo")
    with pytest.raises(InvalidCheckpoint, match=r"5 keys missing \(blocks.1.res_blocks.0.branch1_norm.weight, "):
        load_model(spec, path, num_classes=400, head="mmaction2")
    save_file({**state_dict, "extra.weight": torch.zeros(1)}, path)
    with pytest.raises(InvalidCheckpoint, match=r"1 keys left over \(extra.weight\)"):
        load_model(spec, path, num_classes=400, head="pytorchvideo")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvalidCheckpoint, match=r"weights.safetensors is not a readable safetensors file"):
        load_model(spec, path, num_classes=400, head="pytorchvideo")


def test_models_need_no_pytorchvideo_transforms() -> None:
    """`pytorchvideo.transforms` does not import with current torchvision; a worker must not need it."""
    code = "import handlers.model.network, sys; print('pytorchvideo.transforms' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_import_does_not_warn() -> None:
    """Deprecations of packages that we cannot change are not for those who package a model."""
    code = "import handlers.model.network"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stderr == ""
