"""Archives for tests: packaged by the real command, or tiny ones whose handler answers in a line of Python."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from tests.support.bulk import run

_packaged: dict[tuple[str, ...], Path] = {}


def package(spec: str, store: Path, *arguments: str) -> Path:
    """`python -m scripts.package SPEC --output STORE ARGUMENTS`; the archive it wrote. Random weights unless told.

    The command runs in this process, and once for the same arguments: another store gets a copy.
    """
    if not {"--weights", "--checkpoint"} & set(arguments):
        arguments = (*arguments, "--weights", "random")
    name = arguments[arguments.index("--name") + 1] if "--name" in arguments else spec
    path = store / f"{name}.mar"
    made = _packaged.get((spec, *arguments))
    if made is None or not made.is_file():
        run("package", spec, "--output", store, *arguments)
        _packaged[spec, *arguments] = path
    elif made != path:
        shutil.copy(made, path)
    return path


def tiny_archive(store: Path, name: str, handler: str, *, settings: str = "") -> Path:
    """An archive whose one file is `handler`, a module's source with exactly one class. No weights, no torch.

    `settings`: further lines of its model-config.yaml.
    """
    manifest = {
        "createdOn": "01/01/2026 00:00:00",
        "runtime": "python",
        "model": {"modelName": name, "handler": "handler.py", "modelVersion": "1.0", "configFile": "model-config.yaml"},
        "archiverVersion": "0.12.0",
    }
    common = "minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 60\nstartupTimeout: 60\n"
    store.mkdir(parents=True, exist_ok=True)
    path = store / f"{name}.mar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("handler.py", handler)
        archive.writestr("model-config.yaml", common + settings)
    return path
