"""Who may import whom inside `handlers`: data flows one way, and heavy packages stay behind one door each."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import handlers
from tests.conftest import REPOSITORY

PACKAGE = Path(handlers.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)

# In the order of a request's way. A module may import what stands in a line above its own, and nothing below.
LAYERS = (
    ("errors", "version"),
    ("specs", "limits", "video.sampling"),
    ("model.labels", "options", "video.windows", "video.transforms", "video.containers", "video.h264"),
    ("budgets", "payloads", "tensors", "results", "config", "model.network", "model.archive_info", "video.packet_plan"),
    ("envelopes", "video.ffmpeg", "model.checkpoints", "video.recipe", "decode.messages"),
    ("video.video_file",),
    ("video.clip_events", "video.wanted_windows"),
    ("video.planned_decode", "video.full_decode"),
    ("video.sampled_video",),
    ("video.view_reader", "model.torch_runtime", "model.openvino_runtime"),
    ("model.runtimes", "decode.shared_slots"),
    ("decode.service", "decode.worker"),
    ("decode.threads", "decode.running_job"),
    ("decode.child",),
    ("decode.processes", "pending"),
    ("inference",),
    ("pipeline",),
    ("video_handler",),
    ("single_pathway_handler", "dual_pathway_handler"),
)

# Third-party packages that only these modules may import.
DOORS = {
    "av": {"video.video_file", "video.ffmpeg"},
    "ts": {"video_handler"},
    "pytorchvideo.models": {"model.network"},
    "openvino": {"model.openvino_runtime"},
    "safetensors": {"model.network", "model.checkpoints"},
}
TORCH_FREE = ("decode.worker",)
"""Modules that run in the decoding process, which must stay small."""


def source_of(module: str) -> str:
    return (PACKAGE / f"{module.replace('.', '/')}.py").read_text()


@cache
def imported(module: str) -> frozenset[str]:
    """Full names of everything that the module imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source_of(module))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; an entry file at an archive's root cannot"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def own_imports(module: str) -> set[str]:
    """Modules of the package that the module imports."""
    names = {name.removeprefix("handlers.") for name in imported(module) if name.startswith("handlers.")}
    return names & set(MODULES)


def test_every_module_has_a_layer() -> None:
    assert sorted(name for layer in LAYERS for name in layer) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way(module: str) -> None:
    layer = next(index for index, layer in enumerate(LAYERS) if module in layer)
    above = {name for names in LAYERS[:layer] for name in names}
    assert own_imports(module) <= above


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_have_one_door(module: str) -> None:
    for package, allowed in DOORS.items():
        if module not in allowed:
            uses = {name for name in imported(module) if name == package or name.startswith(f"{package}.")}
            assert not uses


def test_the_package_itself_imports_nothing() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert [type(node) for node in tree.body] == [ast.Expr]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_the_decoding_process_stays_small(module: str) -> None:
    code = f"import sys, handlers.{module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "av" in loaded
    assert not {"torch", "torchvision", "pytorchvideo", "openvino", "ts", "yaml"} & set(loaded)


def test_a_worker_does_not_wait_for_the_compiler() -> None:
    """TorchServe's own handler would import it, for longer than everything else takes until a worker is ready."""
    code = "import sys, handlers.video_handler; print(*({'torch._inductor', 'openvino.torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
    assert "OpenVINO" not in run.stderr


@pytest.mark.parametrize("entry", ["single_pathway_handler", "dual_pathway_handler"])
def test_an_entry_defines_exactly_one_class(entry: str) -> None:
    """TorchServe takes the one class of the entry module, and would take a function called `handle` before it."""
    tree = ast.parse(source_of(entry))
    assert len([node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]) == 1
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "handle"]
