"""TorchServe's own gRPC stubs, generated from the proto files inside the installed torchserve wheel; none is committed.

What the clients send is compared with them; the clients themselves need none.

    stubs = load_stubs()
    stubs.inference_grpc.InferenceAPIsServiceStub(channel)

They are generated into build/ when they are first loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

STUBS = Path(__file__).resolve().parents[2] / "build" / "grpc_stubs"

_PROTOS = ("inference", "management", "open_inference_grpc")
_RPC_STATUS = "google/rpc/status.proto"


class StubsUnavailable(RuntimeError):
    """The stubs are not there and cannot be generated; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Stubs:
    """The generated modules: messages in `inference` and `management`, services in the `_grpc` ones."""

    inference: ModuleType
    inference_grpc: ModuleType
    management: ModuleType
    management_grpc: ModuleType
    open_inference: ModuleType
    open_inference_grpc: ModuleType


def load_stubs(folder: Path = STUBS) -> Stubs:
    """Import the stubs, generating them first where that has not been done."""
    if not is_generated(folder):
        generate(folder)
    if str(folder) not in sys.path:
        # Appended: the generated modules import each other by top-level name, and must not shadow anything.
        sys.path.append(str(folder))
    names = [f"{proto}_pb2{suffix}" for proto in _PROTOS for suffix in ("", "_grpc")]
    return Stubs(*(importlib.import_module(name) for name in names))


def is_generated(folder: Path = STUBS) -> bool:
    """Whether every generated file is there."""
    files = [folder / f"{proto}_pb2{suffix}.py" for proto in _PROTOS for suffix in ("", "_grpc")]
    return all(file.is_file() for file in files)


def generate(folder: Path = STUBS) -> Path:
    """Generate the stubs into `folder`, which appears whole or not at all."""
    jar = _frontend_jar()
    try:
        from grpc_tools import protoc
    except ImportError:
        raise StubsUnavailable("grpcio-tools is not installed; run: pip install -r requirements/dev.txt") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        sources, output = Path(temporary, "protos"), Path(temporary, "stubs")
        output.mkdir()
        _unpack_protos(jar, sources)
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = [
            "protoc",
            f"-I{sources}",
            f"-I{well_known}",
            f"--python_out={output}",
            f"--grpc_python_out={output}",
        ]
        if protoc.main([*arguments, *(f"{proto}.proto" for proto in _PROTOS), _RPC_STATUS]) != 0:
            raise StubsUnavailable(f"protoc could not compile the protos of {jar}")
        shutil.rmtree(folder, ignore_errors=True)
        output.replace(folder)
    return folder


def _frontend_jar() -> Path:
    spec = importlib.util.find_spec("ts")
    if spec is None or not spec.submodule_search_locations:
        raise StubsUnavailable("torchserve is not installed; run: pip install -r requirements/base.txt")
    return Path(spec.submodule_search_locations[0], "frontend", "model-server.jar")


def _unpack_protos(jar: Path, folder: Path) -> None:
    with zipfile.ZipFile(jar) as archive:
        for name in (*(f"proto/{proto}.proto" for proto in _PROTOS), _RPC_STATUS):
            target = folder / name.removeprefix("proto/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(name))
