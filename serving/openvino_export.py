"""A model -> OpenVINO IR files, float32, the batch left open; what workers with the openvino runtime compile."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from handlers.model.archive_info import HEAD_FILE
from handlers.model.network import WithFeatures
from handlers.model.openvino_runtime import FEATURES, MAPS
from handlers.model.torch_head import head_weights
from handlers.specs import ModelSpec
from serving.head_file import write_head


def openvino_installed() -> bool:
    return find_spec("openvino") is not None


def example_inputs(spec: ModelSpec, *, batch: int = 1) -> list[torch.Tensor]:
    """Zeros in the shape of the model's pathways, in the spec's layout; for SlowFast slow, then fast."""
    lengths = [spec.num_frames] if spec.alpha is None else [spec.num_frames // spec.alpha, spec.num_frames]
    size = (spec.crop_size, spec.crop_size)
    if spec.layout == "NT3SS":
        return [torch.zeros(batch, length, 3, *size) for length in lengths]
    return [torch.zeros(batch, 3, length, *size) for length in lengths]


def convert(model: nn.Module, spec: ModelSpec, target: Path, *, classifier: str | None = None) -> None:
    """Writes `target` (.xml) and the .bin beside it: inputs in pathway order, outputs logits, features and maps.

    Where the spec's head is one that explanations know, its feature maps are outputs too, and head.npz is beside them.
    `classifier` is the name of the model's last layer, where it is not the spec's.
    """
    import openvino  # optional: packaging works without it

    last_block = spec.last_block if classifier is None else None
    inputs = example_inputs(spec, batch=2)  # a length of 1 would become a constant, whatever is said about it
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        program = torch.export.export(
            WithFeatures(model, classifier or spec.classifier, last_block).eval(),
            tuple(inputs),
            dynamic_shapes={"pathways": tuple({0: batch} for _ in inputs)},
        )
        converted = openvino.convert_model(program)
    shapes = {port: [-1, *tensor.shape[1:]] for port, tensor in zip(converted.inputs, inputs, strict=True)}
    converted.reshape({port: openvino.PartialShape(shape) for port, shape in shapes.items()})
    for port, name in zip(converted.inputs, ("slow", "fast") if len(inputs) == 2 else ("clip",), strict=True):
        port.get_tensor().set_names({name})
    _pool_by_frame(converted)
    maps = [f"{MAPS}{number}" for number in range(len(converted.outputs) - 2)]
    for port, name in zip(converted.outputs, ("logits", FEATURES, *maps), strict=True):
        port.get_tensor().set_names({name})
    target.parent.mkdir(parents=True, exist_ok=True)
    # Half the size with float16 weights, but then float32 answers would no longer be torch's.
    openvino.save_model(converted, target, compress_to_fp16=False)
    head = head_weights(model, spec) if last_block is not None else None
    if head is not None:
        write_head(head, target.with_name(Path(HEAD_FILE).name), target)


def _pool_by_frame(model: Any) -> None:
    """Take the squeeze-and-excitation means over T, H and W as a pooling of each frame and the mean of the frames.

    The same numbers but for rounding; OpenVINO's reduction of three axes takes twice as long as these two together,
    which is 3 % of X3D's time.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "ReduceMean" or not node.get_keep_dims():
            continue
        features, axes = node.input_value(0), node.input_value(1).get_node()
        if axes.get_type_name() != "Constant" or sorted(axes.get_data().tolist()) != [2, 3, 4]:
            continue
        kernel = [1, *(int(length.get_length()) for length in list(features.get_partial_shape())[3:])]
        frames = ops.avg_pool(features, [1, 1, 1], [0, 0, 0], [0, 0, 0], kernel, exclude_pad=True)
        means = ops.reduce_mean(frames, ops.constant([2]), keep_dims=True)
        node.output(0).replace(means.output(0))
    model.validate_nodes_and_infer_types()
