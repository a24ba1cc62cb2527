"""A user's own architecture as a program of torch.export (.pt2) -> the archive's program, and its OpenVINO model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from handlers.errors import InvalidCheckpoint
from handlers.model.archive_info import OPENVINO_FILE, PROGRAM_FILE, WeightsInfo
from handlers.model.openvino_runtime import FEATURES
from handlers.model.program import load_program
from handlers.specs import ModelSpec
from serving.download import sha256_of
from serving.exported_program import clean_program
from serving.graph import input_shape, write_graph
from serving.weights import WeightsSource


def import_program(source: Path, spec: ModelSpec, stage: Path, *, for_torch: bool, for_openvino: bool) -> WeightsSource:
    """Writes into `stage` what the runtimes need: the program without anything but the network, and its OpenVINO model.

    The file is looked through before anything loads it, and then run. Raises InvalidCheckpoint with one sentence.
    """
    if not source.is_file():
        raise InvalidCheckpoint(f"there is no file {source.name}")
    program_file = stage / PROGRAM_FILE
    clean_program(source, program_file)
    program = load_program(program_file, torch.device("cpu"))
    _check_input(source.name, program, input_shape(spec))
    num_classes = _checked_classes(source.name, program, input_shape(spec))
    if for_openvino:
        import openvino

        model = openvino.convert_model(program)
        if len(model.outputs) == 2:
            model.outputs[1].get_tensor().set_names({FEATURES})
        write_graph(source.name, model, spec, stage / OPENVINO_FILE)
    if not for_torch:
        program_file.unlink()
    info = WeightsInfo(kind="checkpoint", source=source.name, sha256=sha256_of(source))
    return WeightsSource(state_dict={}, head="graph", num_classes=num_classes, info=info)


def _check_input(name: str, program: ExportedProgram, shape: list[int]) -> None:
    """Its input must take the spec's clips, any number of them."""
    (user_input,) = program.graph_signature.user_inputs
    node = next(node for node in program.graph.nodes if node.name == user_input)
    batch, *found = node.meta["val"].shape
    if isinstance(batch, int):
        raise InvalidCheckpoint(
            f"{name} takes {batch} clips and no other number; export it with an example of two clips and "
            "dynamic_shapes=({0: torch.export.Dim('batch')},)"
        )
    if len(found) != len(shape) or any(
        isinstance(one, int) and one != other for one, other in zip(found, shape, strict=True)
    ):
        raise InvalidCheckpoint(f"{name} takes clips of the shape {tuple(found)}, those of the spec are {tuple(shape)}")


def _checked_classes(name: str, program: ExportedProgram, shape: list[int]) -> int:
    """The number of classes. The same clips must have the same logits twice, and each alone."""
    network = program.module()
    clips = torch.from_numpy(np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32))

    def logits(part: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            answer = network(part)
        first: torch.Tensor = answer[0] if isinstance(answer, tuple) else answer
        return first

    try:
        together, again = logits(clips), logits(clips)
        alone = torch.cat([logits(clips[:1]), logits(clips[1:])])
    except Exception as error:
        raise InvalidCheckpoint(f"{name} does not run on clips of the spec: {type(error).__name__}") from error
    if together.ndim != 2 or together.shape[0] != 2:
        raise InvalidCheckpoint(
            f"{name} must answer logits (N, classes); for two clips it gave {tuple(together.shape)}"
        )
    if not torch.equal(together, again):
        raise InvalidCheckpoint(f"{name} answers otherwise each time: call model.eval() before the export")
    if not torch.allclose(together, alone, atol=1e-3 * (1 + float(alone.abs().max()))):
        raise InvalidCheckpoint(
            f"{name} answers otherwise for a clip alone than in a batch: call model.eval() before the export"
        )
    return int(together.shape[1])
