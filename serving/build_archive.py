"""A folder of files -> a verified .mar, moved into place whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from handlers.errors import SetupError
from handlers.model.archive_info import OPENVINO_FILE

ROOT = Path(__file__).resolve().parent.parent
_HANDLERS = ROOT / "handlers"
_ENTRIES = {1: "single_pathway_handler.py", 2: "dual_pathway_handler.py"}
_STAND_IN = "torch_stand_in.py"  # becomes torch.py at the archive's root, where there is an OpenVINO model to serve
# Archives are a function of their content: one date, the earliest a zip file can hold, instead of the build's.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_CREATED_ON = "01/01/1980 00:00:00"

# Imports the entry as TorchServe's loader does, in a process that can see nothing of this checkout.
_PROBE = """
import importlib, inspect, pathlib, sys
model_dir, entry = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
sys.path.insert(0, str(model_dir))
module = importlib.import_module(entry)
classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
assert len(classes) == 1, f"{entry}.py defines {len(classes)} classes, TorchServe wants exactly one"
for name, loaded in list(sys.modules.items()):
    if name == "handlers" or name.startswith("handlers."):
        origin = pathlib.Path(loaded.__file__).resolve()
        assert model_dir in origin.parents, f"{name} was imported from {origin}, not from the archive"
"""


class ArchiveError(SetupError):
    """The archive could not be built, or does not work as built; nothing was left in its place."""


def entry_file(pathways: int) -> Path:
    """The handler file that TorchServe loads: one per model family. Raises ArchiveError when it is not there."""
    entry = _HANDLERS / _ENTRIES[pathways]
    if not entry.is_file():
        raise ArchiveError(f"the entry file handlers/{entry.name} is missing from this checkout")
    return entry


def build_archive(
    stage: Path, config_file: Path, entry: Path, target: Path, *, name: str, version: str, verify: bool = True
) -> None:
    """Packs the files of `stage` with the handlers and the entry into `target`, verified by an import of the entry.

    Raises ArchiveError; `target` is replaced whole or not touched.
    """
    _copy_handlers(stage / "handlers")
    if (stage / OPENVINO_FILE).is_file():
        shutil.copy(_HANDLERS / _STAND_IN, stage / "torch.py")
    with tempfile.TemporaryDirectory(prefix="package-") as work_name:
        work = Path(work_name)
        built = _run_archiver(stage, config_file, entry, work, name=name, version=version)
        unpacked = work / "unpacked"
        with zipfile.ZipFile(built) as archive:
            archive.extractall(unpacked)
        built.unlink()
        _compile(unpacked)
        if verify:
            _verify_entry(unpacked, entry.stem)
        _fix_manifest_date(unpacked / "MAR-INF" / "MANIFEST.json")
        _write_zip(unpacked, target)


def _copy_handlers(target: Path) -> None:
    shutil.copytree(
        _HANDLERS,
        target,
        # Entry files and the stand-in for torch go to the archive's root, where they are looked for, and nowhere else.
        ignore=shutil.ignore_patterns("__pycache__", "*.pyc", *_ENTRIES.values(), _STAND_IN),
    )


def _compile(unpacked: Path) -> None:
    """Adds the handlers' bytecode for this version of Python, which every worker's imports would make otherwise.

    Python looks at it only where the hash of the source fits; another version of Python ignores it. The process is a
    fresh one, with its hashes fixed and none of Python's own variables, because bytecode depends on them.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [*(sys.executable, "-P", "-s", "-m", "compileall"), *("-q", "--invalidation-mode", "checked-hash"), "handlers"],
        cwd=unpacked,
        env=environment | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ArchiveError(f"the handlers do not compile: {_last_line(done.stdout + done.stderr)}")


def _run_archiver(stage: Path, config_file: Path, entry: Path, work: Path, *, name: str, version: str) -> Path:
    """Runs torch-model-archiver; it deletes `$TMPDIR/NAME` before it starts, so it gets a TMPDIR of its own."""
    tmpdir, export = work / "tmp", work / "export"
    tmpdir.mkdir()
    export.mkdir()
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging"),
        *("--model-name", name, "--version", version, "--handler", str(entry), "--extra-files", str(stage)),
        *("--config-file", str(config_file), "--archive-format", "zip-store", "--export-path", str(export)),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"TMPDIR": str(tmpdir)}
    done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ArchiveError(f"torch-model-archiver failed: {_last_line(done.stderr)}")
    return export / f"{name}.mar"


def _verify_entry(unpacked: Path, entry: str) -> None:
    """Raises ArchiveError unless the entry imports from the archive's own files alone."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as elsewhere:
        done = subprocess.run(
            [sys.executable, "-B", "-W", "ignore", "-c", _PROBE, str(unpacked), entry],
            env=environment,
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise ArchiveError(f"the archive's entry {entry}.py does not import: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _fix_manifest_date(manifest: Path) -> None:
    """The archiver writes the time of the build; nothing reads it, and it would make every build differ."""
    content = json.loads(manifest.read_text(encoding="utf-8"))
    content["createdOn"] = _CREATED_ON
    manifest.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _write_zip(folder: Path, target: Path) -> None:
    """Stores (weights do not compress) every file under `folder`, in name order, then renames into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial_name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    partial = Path(partial_name)
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=_ZIP_DATE)
                info.external_attr = 0o644 << 16
                _store(archive, info, path)
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _store(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    with path.open("rb") as source, archive.open(info, "w") as stored:
        shutil.copyfileobj(source, stored, 1 << 20)
