"""A user's own architecture as an OpenVINO IR -> the archive's model. An IR holds operations and numbers, no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.errors import InvalidCheckpoint, RuntimeUnavailable
from handlers.model.archive_info import WeightsInfo
from handlers.model.openvino_runtime import has_features
from handlers.specs import ModelSpec
from serving.download import sha256_of
from serving.openvino_export import openvino_installed
from serving.weights import WeightsSource


def input_shape(spec: ModelSpec) -> list[int]:
    """The graph's input without the batch: (3, T, S, S), or (T, 3, S, S) with the layout NT3SS."""
    size = [spec.crop_size, spec.crop_size]
    return [spec.num_frames, 3, *size] if spec.layout == "NT3SS" else [3, spec.num_frames, *size]


def import_graph(source: Path, spec: ModelSpec, target: Path) -> WeightsSource:
    """Writes `target` (.xml) and the .bin beside it: `source` for clips of the spec, checked by running it.

    Raises InvalidCheckpoint with one sentence.
    """
    if not openvino_installed():
        raise RuntimeUnavailable("a graph needs the package openvino: pip install openvino")
    import openvino

    weights = source.with_suffix(".bin")
    for path in (source, weights):
        if not path.is_file():
            raise InvalidCheckpoint(f"there is no file {path.name}: an OpenVINO IR is a .xml with a .bin of its name")
    core = openvino.Core()
    try:
        model = core.read_model(source, weights)
    except RuntimeError as error:
        raise InvalidCheckpoint(f"{source.name} is not an OpenVINO IR that can be read") from error
    num_classes = write_graph(source.name, model, spec, target)
    info = WeightsInfo(kind="checkpoint", source=source.name, sha256=sha256_of(weights))
    return WeightsSource(state_dict={}, head="graph", num_classes=num_classes, info=info)


def write_graph(name: str, model: Any, spec: ModelSpec, target: Path) -> int:
    """Writes an OpenVINO model for clips of the spec, checked by running it; the number of its classes.

    Raises InvalidCheckpoint with one sentence that begins with the name.
    """
    import openvino

    if len(model.inputs) != 1 or not (len(model.outputs) == 1 or has_features(model)):
        raise InvalidCheckpoint(
            f"{name} must have one input, the output of logits and, if it has a second one, one named features; "
            f"got {len(model.inputs)} inputs and {len(model.outputs)} outputs"
        )
    shape = input_shape(spec)
    _open_batch(name, model, shape, spec)
    num_classes = _checked_output(name, openvino.Core(), model, shape)
    model.input().get_tensor().set_names({"clip"})
    model.output(0).get_tensor().set_names({"logits"})
    target.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, target, compress_to_fp16=False)
    return num_classes


def _open_batch(name: str, model: Any, shape: list[int], spec: ModelSpec) -> None:
    """Fix the input to the spec's clips, any number of them."""
    import openvino

    found, wanted = model.input().get_partial_shape(), openvino.PartialShape([-1, *shape])
    fits = found.compatible(wanted) and found[0].is_dynamic
    if fits:
        try:
            model.reshape(wanted)
        except RuntimeError:
            fits = False
    if not fits:
        letters = "(N, T, 3, S, S)" if spec.layout == "NT3SS" else "(N, 3, T, S, S)"
        raise InvalidCheckpoint(
            f"{name} takes {found}, and the spec's clips are {letters} with T {spec.num_frames} and S "
            f"{spec.crop_size}, any N; export it so, with an open batch"
        )


def _checked_output(name: str, core: Any, model: Any, shape: list[int]) -> int:
    """The number of classes. Two clips must come out as they do alone: a worker computes each by itself."""
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    clips = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)

    def run(part: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        answers = compiled([part])
        return [np.array(answers[index]) for index in range(len(model.outputs))]

    together, first, second = run(clips), run(clips[:1]), run(clips[1:])
    expected = ("logits (N, classes)", "features (N, length)")[: len(together)]
    for what, pair, *singles in zip(expected, together, first, second, strict=True):
        if pair.ndim != 2 or pair.shape[0] != 2:
            raise InvalidCheckpoint(f"{name} must answer {what}; for two clips it gave {pair.shape}")
        alone = np.concatenate(singles)
        if not np.isfinite(pair).all() or not np.allclose(pair, alone, atol=1e-3 * (1 + np.abs(alone).max())):
            raise InvalidCheckpoint(
                f"{name} answers otherwise for a clip alone than in a batch, or with no finite numbers"
            )
    return int(together[0].shape[1])
