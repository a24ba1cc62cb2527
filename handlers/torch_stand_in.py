"""A module called `torch` for workers that do not run on torch. Packaging puts it into an archive's root as torch.py.

TorchServe's worker imports torch whatever the model runs on, and that import takes longer and more memory than all else
that a worker on OpenVINO does. TorchServe itself needs little of it then: a version, the class `Tensor` (to see that an
answer is not one) and `cuda.is_available()`. A worker's import path holds the model's folder before the installed
packages, so this file is what `import torch` finds. It decides once, when it is imported:

- The model runs on OpenVINO: it stays in torch's place, and anything else that is asked of it fails with a sentence.
- The model needs torch (see `handlers.model.runtimes.needs_torch`): it loads the installed package instead and leaves
  the place to it, so that from then on nothing differs from an archive without this file, but for the quick imports
  of `_make_imports_quick`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import NoReturn

__version__ = "0.0.0+stand.in"  # so low that TorchServe looks for neither torch.profiler nor torch.compile
__path__: list[str] = []  # makes it a package: `import torch.nn` asks `_Refusals`

_ADD_ONS = ("openvino.torch", "torch_tensorrt", "torch_xla", "intel_extension_for_pytorch")
"""What TorchServe's own handler imports if it is installed, and expects an ImportError from if it is not."""


class Tensor:
    """The type of no value here."""


class cuda:  # noqa: N801  stands for the module of this name
    """The answer to whether torch can use a GPU."""

    @staticmethod
    def is_available() -> bool:
        return False


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(_refusal(f"torch.{name}"))


class _Refusals(MetaPathFinder):
    """Makes imports of torch's modules, and of what TorchServe looks for beside torch, fail with the sentence.

    The error is a plain ImportError: Python would replace a ModuleNotFoundError in `from torch import nn` by its own.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname.startswith("torch.") or fullname in _ADD_ONS:
            raise ImportError(_refusal(fullname), name=fullname)


def _refusal(name: str) -> str:
    return f"this worker runs OpenVINO and has no torch; for {name} package the model with --runtime eager"


def _installed_torch(model_dir: Path) -> ModuleSpec | None:
    """The package that `import torch` would find without the model's folder."""
    return PathFinder.find_spec("torch", [entry for entry in sys.path if Path(entry).resolve() != model_dir])


def _is_wanted(model_dir: Path, *, torch_installed: bool) -> bool:
    """Whether torch itself has to be loaded."""
    try:
        from handlers.model.runtimes import needs_torch
    except ImportError:
        # Another `handlers` package lies in front, or a package is missing: the handler says so when it is loaded.
        return torch_installed
    return needs_torch(model_dir, torch_installed=torch_installed)


def _run_installed(spec: ModuleSpec) -> None:
    """Run the installed package in this module's place; Python's import then answers with what is in sys.modules."""
    module = importlib.util.module_from_spec(spec)
    sys.modules["torch"] = module
    assert spec.loader is not None  # only namespace packages have none
    spec.loader.exec_module(module)


def _make_imports_quick() -> None:
    """For what the decision below imports first: NumPy and OpenVINO.

    OpenBLAS would start a thread for each core, and they would spin a while; nothing in a worker multiplies matrices
    that are large enough for them. OpenVINO's package imports its converter, and with that an HTTP client, if it finds
    it; that takes as long as the rest of the package, and a worker converts nothing.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.modules["openvino.tools"] = None  # type: ignore[assignment]  # Python's own way to make an import fail


def _take_place() -> None:
    _make_imports_quick()
    model_dir = Path(__file__).resolve().parent
    installed = _installed_torch(model_dir)
    if installed is not None and installed.loader is None:
        installed = None  # a folder of that name without a package in it
    if not _is_wanted(model_dir, torch_installed=installed is not None):
        sys.meta_path.insert(0, _Refusals())
    elif installed is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    else:
        _run_installed(installed)


if __name__ == "torch":
    _take_place()
