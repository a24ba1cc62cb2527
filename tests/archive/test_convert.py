"""The converted model: named inputs, an open batch, and torch's own answers."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from handlers.model.network import build_model
from handlers.specs import get_spec
from serving.openvino_export import convert, example_inputs, openvino_installed
from serving.weights import random_weights

pytestmark = pytest.mark.skipif(not openvino_installed(), reason="openvino is not installed")


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("x3d_xs", {"clip": [-1, 3, 4, 182, 182]}),
        pytest.param(
            "slowfast_r50", {"slow": [-1, 3, 8, 256, 256], "fast": [-1, 3, 32, 256, 256]}, marks=pytest.mark.slow
        ),
    ],
)
def test_conversion_answers_as_torch_for_any_batch(name: str, inputs: dict[str, list[int]], tmp_path: Path) -> None:
    import openvino

    spec = get_spec(name)
    model = build_model(spec, num_classes=5, head="pytorchvideo")
    model.load_state_dict(dict(random_weights(spec, num_classes=5, seed=2).state_dict))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # torch.jit.trace would give one
        convert(model, spec, tmp_path / "openvino" / "model.xml")
    # Half-precision weights would take half of this.
    assert (tmp_path / "openvino" / "model.bin").stat().st_size > 0.98 * 4 * sum(p.numel() for p in model.parameters())
    read = openvino.Core().read_model(tmp_path / "openvino" / "model.xml")
    shapes = {
        port.get_any_name(): [dim.get_length() if dim.is_static else -1 for dim in port.get_partial_shape()]
        for port in read.inputs
    }
    assert shapes == inputs
    maps = [f"maps.{number}" for number in range(len(inputs))]
    assert [port.get_any_name() for port in read.outputs] == ["logits", "features", *maps]
    means = [node for node in read.get_ops() if node.get_type_name() == "ReduceMean"]
    slow = [node for node in means if sorted(np.atleast_1d(node.input_value(1).get_node().data)) == [2, 3, 4]]
    assert slow == [], "squeeze-and-excitation means that OpenVINO reduces at half the speed"
    compiled = openvino.Core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    generator = torch.Generator().manual_seed(1)
    for batch in (1, 3) if name == "x3d_xs" else (1,):
        clips = [torch.randn(zeros.shape, generator=generator) for zeros in example_inputs(spec, batch=batch)]
        with torch.no_grad():
            expected = model(clips if len(clips) > 1 else clips[0]).numpy()
        answer = compiled([clip.numpy() for clip in clips])[0]
        assert answer.shape == (batch, 5)
        np.testing.assert_allclose(answer, expected, atol=1e-4, rtol=0)
