"""What `import torch` finds in the image without torch. The image has it as torch.py among the installed packages.

Archives of this version bring such a module themselves (handlers/torch_stand_in.py); this one serves those of earlier
versions, and gives an archive that does need torch a sentence where it would get a missing module.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import NoReturn

__version__ = "0.0.0+not.in.this.image"  # so low that TorchServe looks for neither torch.profiler nor torch.compile
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
    """Makes imports of torch's modules fail with the sentence; see handlers/torch_stand_in.py for the kind of error."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname.startswith("torch.") or fullname in _ADD_ONS:
            raise ImportError(_refusal(fullname), name=fullname)


def _refusal(name: str) -> str:
    return (
        f"this image has no torch, so there is no {name}: package the model with --runtime openvino and "
        "the default decoder, or serve it from the image that has torch (target cuda)"
    )


if __name__ == "torch":
    sys.meta_path.insert(0, _Refusals())
