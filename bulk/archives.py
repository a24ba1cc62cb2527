"""A .mar -> its identity, and an unpacked archive whose settings are a worker's share of the machine."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from bulk.scratch import scratch_folder
from handlers.config import HandlerConfig
from handlers.errors import InvalidConfig, SetupError
from handlers.model.archive_info import ARCHIVE_FILE, CONFIG_FILE, LABELS_FILE, ArchiveInfo, read_config
from handlers.model.labels import read_labels
from handlers.model.own_spec import SPEC_FILE, own_spec
from handlers.specs import ModelSpec, get_spec
from handlers.specs.spec_json import spec_to_json

_MACHINE_SETTINGS = ("threads", "decode_processes", "isolation", "sandbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShare:
    """What one worker may use; 0 leaves the archive's own setting."""

    threads: int = 0
    decode_processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An archive's identity: what decides its scores. `archive` is the .mar itself."""

    archive: Path
    info: ArchiveInfo
    labels: tuple[str, ...]
    config: HandlerConfig
    own_spec: ModelSpec | None = None

    @property
    def spec(self) -> ModelSpec:
        """The archive's own, or the row of that name."""
        return self.own_spec or get_spec(self.info.spec)

    def identity(self) -> dict[str, Any]:
        """JSON values: equal for two archives that score alike; how many threads they use does not matter."""
        config = {key: value for key, value in asdict(self.config).items() if key not in _MACHINE_SETTINGS}
        labels = hashlib.sha256(json.dumps(self.labels).encode()).hexdigest()
        identity: dict[str, Any] = json.loads(
            json.dumps({"archive": self.info.to_json(), "config": config, "labels_sha256": labels})
        )
        if self.own_spec is not None:
            identity["spec"] = json.loads(json.dumps(spec_to_json(self.own_spec)))
        return identity


def read_model(archive: Path) -> Model:
    """What the archive says of itself; raises SetupError when it is not one of this package's."""
    with unpacked(archive, WorkerShare(), names=(ARCHIVE_FILE, LABELS_FILE, CONFIG_FILE)) as folder:
        info = ArchiveInfo.read(folder)
        labels = read_labels(folder / LABELS_FILE)
        return Model(archive=archive, info=info, labels=labels, config=read_config(folder), own_spec=own_spec(folder))


@contextmanager
def unpacked(archive: Path, share: WorkerShare, *, names: tuple[str, ...] | None = None) -> Iterator[Path]:
    """The archive in a folder of its own, gone afterwards; `names` unpacks these members alone."""
    with scratch_folder() as folder:
        _extract(archive, folder, names)
        _apply(share, folder)
        yield folder


def _extract(archive: Path, folder: Path, names: tuple[str, ...] | None) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:  # extractall keeps names like ../x inside the folder
            optional = [SPEC_FILE] if names is not None and SPEC_FILE in opened.namelist() else []
            opened.extractall(folder, members=None if names is None else [*names, *optional])
    except (zipfile.BadZipFile, KeyError) as error:
        raise InvalidConfig(f"{archive.name} is not an archive of this package: {error}") from error
    except OSError as error:
        raise SetupError(f"cannot unpack {archive.name}: {error.strerror}") from error


def _apply(share: WorkerShare, folder: Path) -> None:
    settings = {key: value for key, value in asdict(share).items() if value}
    if not settings:
        return
    read_config(folder)  # raises InvalidConfig for a file that cannot be read below
    config_file = folder / CONFIG_FILE
    config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    config["handler"] = {**config["handler"], **settings}
    config_file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
