"""The spec of an archive: a row of `handlers.specs`, or the user's own, which lies in the archive as spec.json."""

from __future__ import annotations

import json
from pathlib import Path

from handlers.errors import InvalidConfig
from handlers.specs import ModelSpec, get_spec
from handlers.specs.spec_json import spec_from_json, spec_to_json

SPEC_FILE = "spec.json"


def write_own_spec(model_dir: Path, spec: ModelSpec) -> None:
    (model_dir / SPEC_FILE).write_text(json.dumps(spec_to_json(spec), indent=2) + "\n", encoding="utf-8")


def own_spec(model_dir: Path) -> ModelSpec | None:
    """The user's own spec in an unpacked archive, None where it has a row; raises InvalidConfig for a damaged one."""
    path = model_dir / SPEC_FILE
    if not path.is_file():
        return None
    try:
        return spec_from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidConfig(f"{SPEC_FILE} is damaged: {error}") from error


def spec_of(model_dir: Path, name: str) -> ModelSpec:
    """The spec of that name in an unpacked archive; raises UnknownSpec."""
    own = own_spec(model_dir)
    return own if own is not None and own.name == name else get_spec(name)
