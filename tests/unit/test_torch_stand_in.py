"""The module that workers on OpenVINO import as torch, in processes that see what a TorchServe worker sees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

SENTENCE = "this worker runs OpenVINO and has no torch; for torch.{} package the model with --runtime eager"
ARCHIVE = {
    "spec": "x3d_xs",
    "name": "tiny",
    "version": "1.0",
    "num_classes": 3,
    "head": "pytorchvideo",
    "weights": {"kind": "random", "source": None, "sha256": "0" * 64, "seed": 5},
    "package_version": "test",
    "openvino": {"model": "openvino/model.xml", "weights_sha256": "0" * 64},
    "format": 1,
}
# A worker is told whether a GPU is there by the machine; these tests are about machines without.
NO_GPU = "import handlers.model.runtimes as runtimes; runtimes._GPU_DRIVERS = ()\n"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """What an unpacked archive holds, but for the model itself."""
    folder = tmp_path / "model"
    shutil.copytree(REPOSITORY / "handlers", folder / "handlers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "handlers" / "torch_stand_in.py", folder / "torch.py")
    shutil.copy(REPOSITORY / "handlers" / "single_pathway_handler.py", folder)
    (folder / "archive.json").write_text(json.dumps(ARCHIVE))
    set_handler(folder)
    return folder


@pytest.fixture
def other_torch(tmp_path: Path) -> Path:
    """A folder for the import path, before the installed packages, with a torch that is quick to import."""
    package = tmp_path / "installed" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import torch\nfrom torch import nn\nassert torch.nn is nn\nassert torch.__name__ == __name__\n"
    )
    (package / "nn.py").write_text("def relu(): ...\n")
    return package.parent


def set_handler(folder: Path, **settings: str) -> None:
    (folder / "model-config.yaml").write_text(json.dumps({"handler": {"spec": "x3d_xs", **settings}}))  # JSON is YAML


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """The code in a process whose import path begins with these folders, as a worker's does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NO_GPU + code],
        cwd=paths[0].parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def output(code: str, *paths: Path) -> str:
    done = run(code, *paths)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchserve_and_the_handler_import_without_torch(model_dir: Path, tmp_path: Path) -> None:
    """Everything that a worker imports until it is ready, where any import of torch itself fails."""
    sabotage = tmp_path / "sabotage"
    (sabotage / "torch").mkdir(parents=True)
    (sabotage / "torch" / "__init__.py").write_text("raise RuntimeError('torch itself was imported')\n")
    code = (
        "import ts.model_service_worker, ts.torch_handler.base_handler, ts.context, ts.metrics.metric_cache_yaml_impl\n"
        "import single_pathway_handler, sys, torch\n"
        "assert issubclass(single_pathway_handler.SinglePathwayHandler, ts.torch_handler.base_handler.BaseHandler)\n"
        "assert not isinstance(b'answer', torch.Tensor) and torch.cuda.is_available() is False\n"
        "print(*(name for name in sys.modules if name.split('.')[0] in ('torch', 'torchvision', 'pytorchvideo')))\n"
        "print(torch.__file__)\n"
    )
    assert output(code, model_dir, sabotage).splitlines() == ["torch", str(model_dir / "torch.py")]
    set_handler(model_dir, runtime="eager")
    assert "torch itself was imported" in run("import torch", model_dir, sabotage).stderr


@pytest.mark.parametrize(
    ("code", "error", "name"),
    [
        ("import torch.nn", "ImportError", "nn"),
        ("import torch.nn.functional", "ImportError", "nn"),
        ("from torch import nn", "ImportError", "nn"),
        ("from torch.utils import data", "ImportError", "utils"),
        ("import torch; torch.zeros(3)", "AttributeError", "zeros"),
        ("import torch; torch.load('weights.pt')", "AttributeError", "load"),
    ],
)
def test_everything_else_is_refused_with_a_sentence(model_dir: Path, code: str, error: str, name: str) -> None:
    done = run(code, model_dir)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"{error}: {SENTENCE.format(name)}"


@pytest.mark.parametrize(
    "settings", [{"runtime": "eager"}, {"runtime": "compile"}, {"decoder": "encoded_video"}, {"runtime": "of clay"}]
)
@pytest.mark.parametrize(
    "code", ["import torch", "import torch.nn as nn; import torch", "from torch import nn; import torch"]
)
def test_the_installed_torch_takes_the_place_where_it_is_needed(
    model_dir: Path, other_torch: Path, settings: dict[str, str], code: str
) -> None:
    set_handler(model_dir, **settings)
    told = f"{code}\nimport sys; assert sys.modules['torch'] is torch; torch.nn.relu(); print(torch.__spec__.origin)"
    assert output(told, model_dir, other_torch) == str(other_torch / "torch" / "__init__.py")


def test_the_real_torch_works_from_its_place(model_dir: Path) -> None:
    set_handler(model_dir, runtime="eager")
    code = (
        "import ts.model_service_worker, torch, torch.nn.functional as functional\n"
        "from torch.utils import data\n"
        "print(functional.relu(torch.tensor([-1.0, 2.0])).tolist(), 'torch._C' in __import__('sys').modules)\n"
    )
    assert output(code, model_dir) == "[0.0, 2.0] True"


@pytest.mark.parametrize(
    ("runtime", "message"), [("auto", ""), ("eager", "ModuleNotFoundError: No module named 'torch'")]
)
def test_where_torch_is_not_installed_only_models_that_need_it_fail(
    model_dir: Path, runtime: str, message: str
) -> None:
    set_handler(model_dir, runtime=runtime)
    hidden = (
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, path=None, target=None: None if path and name == 'torch' else "
        "find(name, path, target)\n"
    )
    done = run(f"{hidden}import single_pathway_handler, torch", model_dir)
    assert done.returncode == (1 if message else 0), done.stderr
    assert message in done.stderr


def test_a_failed_import_of_torch_is_not_hidden(model_dir: Path, other_torch: Path) -> None:
    set_handler(model_dir, runtime="eager")
    (other_torch / "torch" / "nn.py").write_text("raise OSError('libcudart.so: cannot open shared object file')\n")
    done = run("import torch", model_dir, other_torch)
    assert done.stderr.splitlines()[-1] == "OSError: libcudart.so: cannot open shared object file"


def test_a_checkout_in_front_of_the_archive_is_still_named(model_dir: Path) -> None:
    """A server started with PYTHONPATH set to a folder with another `handlers` package."""
    other = model_dir.parent / "checkout"
    (other / "handlers").mkdir(parents=True)
    (other / "handlers" / "__init__.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (other, model_dir)))}
    done = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch._C.__name__)"],
        cwd=other,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "torch._C", done.stderr
