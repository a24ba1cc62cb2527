"""Who may import whom inside `handlers`: data flows one way, and heavy packages stay behind one door each."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import handlers
from tests.support.paths import REPOSITORY

PACKAGE = Path(handlers.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)

# A group may import those in the lines above its own, and itself. A package is one group; so is a module beside them.
LAYERS = (
    ("errors", "specs", "limits", "config", "cpu"),
    ("video",),
    ("request", "decode", "model", "neighbours"),
    ("evidence", "pending", "inference"),
    ("pipeline", "batch"),
    ("video_metrics",),
    ("video_handler",),
    ("single_pathway_handler", "dual_pathway_handler", "torch_stand_in"),
)

# Third-party packages that only these modules may import.
DOORS = {
    "av": {"video.video_file", "video.picture", "video.ffmpeg"},
    "ts": {"video_handler", "video_metrics"},
    "pytorchvideo.models": {"model.network"},
    "openvino": {"model.openvino_runtime"},
    "safetensors": {"model.network", "model.checkpoint_file"},
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


def group_of(module: str) -> str:
    return module.split(".")[0]


def test_every_group_has_a_layer() -> None:
    assert sorted(name for layer in LAYERS for name in layer) == sorted({group_of(module) for module in MODULES})


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way(module: str) -> None:
    """In the order of LAYERS; within one layer only the vocabulary and what joins the packages see each other."""
    group = group_of(module)
    layer = next(index for index, names in enumerate(LAYERS) if group in names)
    allowed = {name for names in LAYERS[:layer] for name in names} | {group}
    if layer in (0, 3):
        allowed |= set(LAYERS[layer])
    assert {group_of(name) for name in own_imports(module)} <= allowed


def test_no_imports_go_in_a_circle() -> None:
    graph = {module: own_imports(module) for module in MODULES}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these modules import each other: {error.args[1]}")


def test_no_module_is_long() -> None:
    """Over 300 lines a module holds more than one thing, as a rule."""
    assert [module for module in MODULES if len(source_of(module).splitlines()) > 300] == []


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_have_one_door(module: str) -> None:
    for package, allowed in DOORS.items():
        if module not in allowed:
            uses = {name for name in imported(module) if name == package or name.startswith(f"{package}.")}
            assert not uses


def test_the_package_itself_imports_nothing() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert [type(node) for node in tree.body] == [ast.Expr, ast.Assign]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_the_decoding_process_stays_small(module: str) -> None:
    code = f"import sys, handlers.{module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "av" in loaded
    assert not {"torch", "torchvision", "pytorchvideo", "openvino", "ts", "yaml"} & set(loaded)


def test_ffmpeg_is_loaded_where_videos_are_decoded() -> None:
    """Not in a worker, whose decoding processes load it."""
    code = "import sys, handlers.video_handler; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "numpy" in run.stdout.split()
    assert "av" not in run.stdout.split()


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
