"""Feature maps and heads -> heat: Captum's LayerGradCam on the hub's own networks, on both runtimes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import nn

from handlers.model.network import WithFeatures, build_model
from handlers.model.torch_head import head_weights
from handlers.specs import Head, ModelSpec, get_spec
from handlers.video.transforms import pack_pathways
from serving.weights import random_weights

CLASSES = 11
TARGET = 3


def _model(spec: ModelSpec, head: Head) -> nn.Module:
    model = build_model(spec, num_classes=CLASSES, head=head)
    state = dict(random_weights(spec, num_classes=CLASSES, seed=3).state_dict)
    generator = torch.Generator().manual_seed(4)
    for key, value in model.state_dict().items():  # else ReLU behind a normalisation of zeros and ones has half of it
        if key.endswith(("norm.bias", "running_mean")):
            state[key] = torch.randn(value.shape, generator=generator) * 0.1
    model.load_state_dict({**model.state_dict(), **state})
    return model


def _clip(spec: ModelSpec) -> list[torch.Tensor]:
    shape = (1, 3, spec.num_frames, spec.crop_size, spec.crop_size)
    views = torch.randn(shape, generator=torch.Generator().manual_seed(1)).numpy()
    return [torch.from_numpy(each) for each in (pack_pathways(views, spec.alpha) if spec.alpha else [views])]


def _captum(model: nn.Module, spec: ModelSpec, clip: list[torch.Tensor]) -> list[NDArray[np.float32]]:
    """LayerGradCam's map of each pathway, before its ReLU."""
    assert spec.last_block is not None
    layers: list[Any] = [model.get_submodule(spec.last_block)]
    if spec.pathways == 2:
        # Captum takes layers of one tensor: what each pathway's pool gets is what the last block gave.
        pools = model.get_submodule(f"blocks.{int(spec.last_block[-1]) + 1}.pool")
        layers = list(pools.children())

    def forward(*pathways: torch.Tensor) -> Any:
        return model(list(pathways) if len(pathways) == 2 else pathways[0])

    inputs = tuple(each.clone().requires_grad_() for each in clip)
    found = [
        LayerGradCam(forward, layer).attribute(inputs, TARGET, attribute_to_layer_input=spec.pathways == 2)
        for layer in layers
    ]
    return [each.detach().numpy()[0, 0] for each in found]


def _maps(model: nn.Module, spec: ModelSpec, clip: list[torch.Tensor]) -> list[NDArray[np.float32]]:
    with torch.no_grad():
        _, _, *maps = WithFeatures(model, spec.classifier, spec.last_block)(*clip)
    return [each[0].numpy() for each in maps]


def _assert_same(found: Any, expected: list[NDArray[np.float32]]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(theirs).max() > 0
        assert np.corrcoef(mine.ravel(), theirs.ravel())[0, 1] > 0.99999
        # Captum takes the mean of the gradient over the positions, the heat its sum.
        np.testing.assert_allclose(mine / mine.size, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("x3d_s", "pytorchvideo"),
        ("slow_r50", "pytorchvideo"),
        ("slowfast_r50", "pytorchvideo"),
        ("x3d_xs", "mmaction2"),
        ("x3d_xs", "pyslowfast"),
        pytest.param("slow_r50", "pyslowfast", marks=pytest.mark.slow),
        pytest.param("slowfast_r50_4x16", "pyslowfast", marks=pytest.mark.slow),
        *(pytest.param(name, "pytorchvideo", marks=pytest.mark.slow) for name in ("c2d_r50", "i3d_r50", "csn_r101")),
        pytest.param("r2plus1d_r50", "pytorchvideo", marks=pytest.mark.slow),
    ],
)
def test_heat_is_captums_layer_grad_cam(name: str, head: Head) -> None:
    spec = get_spec(name)
    model = _model(spec, head)
    clip = _clip(spec)
    weights = head_weights(model, spec)
    assert weights is not None
    assert weights.method == ("cam" if head == "pytorchvideo" and name[:4] not in ("x3d_", "r2pl") else "grad_cam")
    _assert_same(weights.heat(_maps(model, spec, clip), TARGET), _captum(model, spec, clip))
