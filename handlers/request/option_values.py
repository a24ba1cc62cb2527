"""The value of an option as it came, text or JSON -> the value in its kind."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

Kind = Literal["integer", "number", "share", "choice", "boolean", "class"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,4})?", re.ASCII)


def read_value(kind: Kind, value: object) -> str | int | float | None:
    """The value in its kind, or None. Text and JSON values are both taken; a whole JSON number may be written 5.0."""
    if isinstance(value, bytes | bytearray):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    text = value.strip() if isinstance(value, str) else None
    if kind == "choice":
        return text
    if text is not None:
        if not (_INTEGER if kind == "integer" else _NUMBER).fullmatch(text):
            return None
        return int(text) if kind == "integer" else _finite(float(text))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind in ("number", "share"):
        return _finite(value)
    if isinstance(value, int):
        return value
    return int(value) if value.is_integer() else None


def read_switch(value: object) -> bool | None:
    """true or false, as JSON's or as text in upper or lower case; None for anything else."""
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode(errors="replace")
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def read_class(value: object, labels: Sequence[str]) -> int | None:
    """The id of a class, from its label or from the id itself as a number or text; None for anything else.

    A label that reads like a number is a label.
    """
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode(errors="replace")
    if isinstance(value, str) and value in labels:
        return labels.index(value)
    if isinstance(value, str) and value.strip() in labels:
        return labels.index(value.strip())
    class_id = read_value("integer", value)
    return class_id if isinstance(class_id, int) and 0 <= class_id < len(labels) else None


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # a JSON integer beyond 1e308
        return None
    return number + 0.0 if math.isfinite(number) else None  # -0.0 becomes 0.0
