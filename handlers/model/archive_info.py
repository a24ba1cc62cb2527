"""The description inside an archive, `archive.json` and the settings, and the check that its own code is what runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

import handlers
from handlers.config import HandlerConfig, model_settings
from handlers.errors import InvalidConfig, SetupError
from handlers.model.own_spec import own_spec
from handlers.specs import Head

ARCHIVE_FORMAT = 1
"""Raised when files of an archive change their meaning; a worker refuses an archive of another format."""

ARCHIVE_FILE = "archive.json"
WEIGHTS_FILE = "weights.safetensors"
PROGRAM_FILE = "program.pt2"
"""A network of the user's own for torch, as torch.export.save writes it; cleaned by serving/exported_program.py."""
LABELS_FILE = "index_to_name.json"
CONFIG_FILE = "model-config.yaml"
OPENVINO_FILE = "openvino/model.xml"
HEAD_FILE = "openvino/head.npz"
"""The head of the converted model, for explanations; see serving/head_file.py."""

WeightsKind = Literal["published", "checkpoint", "random", "bundled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """Where the weights came from. `sha256` is of the file they were read from, or of the archive's own weights file
    when they are random; `source` is a URL or a file name, never a path."""

    kind: WeightsKind
    source: str | None
    sha256: str
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoInfo:
    """The converted model: its path inside the archive, and the SHA-256 of the weights.safetensors it was made from."""

    model: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveInfo:
    """The content of archive.json."""

    spec: str
    name: str
    version: str
    num_classes: int
    head: Head
    weights: WeightsInfo
    package_version: str
    openvino: OpenVinoInfo | None = None
    format: int = ARCHIVE_FORMAT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, model_dir: Path) -> ArchiveInfo:
        """The archive.json of an unpacked archive; raises InvalidConfig when it is missing, damaged or of another
        format."""
        try:
            content = json.loads((model_dir / ARCHIVE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidConfig(
                f"the archive has no readable {ARCHIVE_FILE}; build it with `python -m scripts.package`"
            ) from error
        return cls.from_json(content)

    @classmethod
    def from_json(cls, content: Any) -> ArchiveInfo:
        found = content.get("format") if isinstance(content, dict) else None
        if found != ARCHIVE_FORMAT:
            raise InvalidConfig(f"{ARCHIVE_FILE} has format {found!r}, this package reads format {ARCHIVE_FORMAT}")
        try:
            openvino = content["openvino"]
            info = cls(
                **{
                    **content,
                    "weights": WeightsInfo(**content["weights"]),
                    "openvino": None if openvino is None else OpenVinoInfo(**openvino),
                }
            )
        except (KeyError, TypeError) as error:
            raise InvalidConfig(f"{ARCHIVE_FILE} is damaged: {error}") from error
        if info.head not in get_args(Head) or info.weights.kind not in get_args(WeightsKind):
            raise InvalidConfig(f"{ARCHIVE_FILE} is damaged: head {info.head!r}, weights {info.weights.kind!r}")
        return info


def read_config(model_dir: Path) -> HandlerConfig:
    """The settings in an unpacked archive's model-config.yaml; raises InvalidConfig."""
    try:
        content = yaml.safe_load((model_dir / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidConfig(f"the archive has no readable {CONFIG_FILE}: {type(error).__name__}") from error
    return model_settings(content, own=own_spec(model_dir))


def verify_package_origin(model_dir: Path) -> None:
    """Raises SetupError unless the running `handlers` package is the one inside `model_dir`.

    A worker's import path begins with the PYTHONPATH that the server inherited, so a checkout named there would
    silently replace the archive's own code.
    """
    imported = Path(handlers.__file__ or "").resolve().parent
    if imported != (model_dir / "handlers").resolve():
        raise SetupError(
            "the handlers package was imported from outside the model archive; "
            "start TorchServe with PYTHONPATH unset (`source scripts/env` does)"
        )
