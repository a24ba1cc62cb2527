"""An archive's exported program -> a module, on any device. It needs none of the network's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from handlers.errors import InvalidCheckpoint


def load_program(path: Path, device: torch.device) -> ExportedProgram:
    """The program of a file that packaging has cleaned, on `device`; raises InvalidCheckpoint if it cannot be read."""
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise InvalidCheckpoint(
            f"torch {torch.__version__} cannot load {path.name}: {type(error).__name__}; export the network with it"
        ) from error
    if device.type == "cpu":
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def output_lengths(program: ExportedProgram) -> list[Any]:
    """How many numbers each output has per clip: the classes, and the length of the features where it gives them."""
    names = program.graph_signature.user_outputs
    nodes = {node.name: node for node in program.graph.nodes}
    return [nodes[str(name)].meta["val"].shape[-1] for name in names]
