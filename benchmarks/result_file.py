"""The result file: JSON that says what was measured, on what, how, and whether the targets are met."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
"""Raised when a key changes its meaning."""

_REQUIRED: Mapping[str, type] = {
    "format": int,
    "command": str,
    "settings": dict,
    "machine": dict,
    "versions": dict,
    "git": dict,
    "load_average": dict,
    "videos": dict,
    "targets": list,
}
SECTIONS = ("stages", "load", "memory", "startup")
_TARGET_KEYS = frozenset({"name", "what", "target", "bound", "unit", "measured", "met", "missed_by_percent", "note"})


class InvalidResult(ValueError):
    """Not a result file that this version reads; the message says what is wrong."""


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Checked, then written whole or not at all. Raises InvalidResult."""
    check_result(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_result(path: Path) -> dict[str, Any]:
    """Raises InvalidResult."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidResult(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidResult(f"{path} is not JSON: {error}") from error
    check_result(result)
    checked: dict[str, Any] = result
    return checked


def check_result(result: Any) -> None:
    """Raises InvalidResult unless `result` has the keys and types that tables and plots are made from."""
    if not isinstance(result, Mapping):
        raise InvalidResult(f"a result is an object, got {type(result).__name__}")
    for key, kind in _REQUIRED.items():
        if not isinstance(result.get(key), kind):
            raise InvalidResult(f"{key} must be of type {kind.__name__}, got {result.get(key)!r}")
    if result["format"] != FORMAT:
        raise InvalidResult(f"this is result format {result['format']}; this version reads {FORMAT}")
    if not any(section in result for section in SECTIONS):
        raise InvalidResult(f"nothing was measured: none of {', '.join(SECTIONS)} is there")
    for target in result["targets"]:
        if not isinstance(target, Mapping) or set(target) != _TARGET_KEYS:
            raise InvalidResult(f"a target has the keys {', '.join(sorted(_TARGET_KEYS))}, got {target!r}")
