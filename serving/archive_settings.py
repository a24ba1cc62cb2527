"""Show and change the settings inside a .mar, which is replaced whole or not touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from handlers.errors import InvalidConfig
from handlers.model.archive_info import ARCHIVE_FILE, CONFIG_FILE, PROGRAM_FILE, WEIGHTS_FILE, ArchiveInfo
from handlers.model.own_spec import SPEC_FILE
from serving.settings import Settings, check_fixed, check_runtime, check_server_settings, edited, flattened

MODEL_STORE = Path("model_store")
"""Where archives are, below the current folder: what `scripts.package` writes to and `config.properties` names."""

# The check that a worker makes when it loads the model, made by the archive's own code: it may be older or newer than
# this checkout, and know other settings.
_CHECK = """
import pathlib, sys, yaml
sys.path.insert(0, sys.argv[1])
from handlers.config import model_settings
from handlers.errors import SetupError
content = yaml.safe_load(sys.stdin.read())
try:
    if pathlib.Path(sys.argv[1], "spec.json").is_file():  # older archives know no specs of one's own
        from handlers.model.own_spec import own_spec
        model_settings(content, own=own_spec(pathlib.Path(sys.argv[1])))
    else:
        model_settings(content)
except SetupError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """The text of an archive's model-config.yaml, what its archive.json says, and the names of all its files."""

    text: str
    info: ArchiveInfo
    names: frozenset[str]

    @property
    def values(self) -> dict[str, object]:
        """Every setting by its key."""
        return flattened(yaml.safe_load(self.text))


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that has another value now; `old` is None for one that was not there."""

    key: str
    old: object
    new: object


def find_archive(name_or_file: str, store: Path = MODEL_STORE) -> Path | None:
    """The archive of that path, or of that name in the model store; None where there is neither."""
    for path in (Path(name_or_file), store / f"{name_or_file}.mar", store / name_or_file):
        if path.is_file():
            return path
    return None


def read_archive(archive: Path) -> ArchiveSettings:
    """Raises InvalidConfig for a file that is no archive of this package."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            names = frozenset(zipped.namelist())
            text = zipped.read(CONFIG_FILE).decode("utf-8")
            info = ArchiveInfo.from_json(json.loads(zipped.read(ARCHIVE_FILE)))
            yaml.safe_load(text)
    except KeyError as error:
        raise InvalidConfig(f"{archive} is no archive of scripts.package: {error.args[0]}") from None
    except (OSError, zipfile.BadZipFile, ValueError, yaml.YAMLError) as error:
        raise InvalidConfig(f"{archive} is not a readable model archive: {error}") from None
    return ArchiveSettings(text, info, names)


def change_archive(archive: Path, settings: Settings) -> list[Change]:
    """Gives the archive these settings, in place; returns those that have changed. Raises InvalidConfig.

    The file appears whole under its name or stays as it was. A server that runs keeps the settings it has loaded.
    """
    archive = archive.resolve()  # a link stays one
    present = read_archive(archive)
    old = present.values
    check_fixed(settings, old)
    text = edited(present.text, settings)
    new = flattened(yaml.safe_load(text))
    changes = [Change(key, old.get(key), value) for key, value in new.items() if old.get(key) != value]
    _check(archive, text, new, present.names)
    if changes:
        _replace_file(archive, CONFIG_FILE, text.encode("utf-8"))
    return changes


def _check(archive: Path, text: str, values: Settings, names: frozenset[str]) -> None:
    check_server_settings(yaml.safe_load(text))
    runtime = values.get("handler.runtime")
    check_runtime(runtime, values.get("handler.precision"))
    if runtime in ("eager", "compile") and not {WEIGHTS_FILE, PROGRAM_FILE} & names:
        raise InvalidConfig(
            f"handler.runtime: {runtime} needs weights for torch, and this archive holds an OpenVINO model alone; "
            f"package it again with --runtime {runtime}"
        )
    if runtime == "openvino" and not any(name.startswith("openvino/") for name in names):
        raise InvalidConfig("this archive holds no OpenVINO model; package it again with --runtime openvino")
    with tempfile.TemporaryDirectory(prefix="settings-") as folder:
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder, [name for name in names if name.startswith("handlers/") or name == SPEC_FILE])
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [sys.executable, "-B", "-c", _CHECK, folder],
            input=text,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise InvalidConfig(done.stderr.strip().rpartition("\n")[2] or "the archive's own code refuses these settings")


def _replace_file(archive: Path, name: str, content: bytes) -> None:
    """The archive with another content of one of its files; the other entries and the file's mode stay."""
    handle, partial_name = tempfile.mkstemp(prefix=f".{archive.name}.", suffix=".partial", dir=archive.parent)
    partial = Path(partial_name)
    try:
        with (
            os.fdopen(handle, "wb") as file,
            zipfile.ZipFile(archive) as old,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new,
        ):
            for entry in old.infolist():
                if entry.filename == name:
                    new.writestr(_like(entry), content)
                    continue
                with old.open(entry) as source, new.open(_like(entry, size=entry.file_size), "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        partial.chmod(stat.S_IMODE(archive.stat().st_mode))
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)


def _like(entry: zipfile.ZipInfo, size: int = 0) -> zipfile.ZipInfo:
    """A new entry of the same name, date, mode and compression; zipfile plans for a large one by its size."""
    copied = zipfile.ZipInfo(entry.filename, date_time=entry.date_time)
    copied.external_attr, copied.compress_type, copied.file_size = entry.external_attr, entry.compress_type, size
    return copied
