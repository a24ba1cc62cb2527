"""The fields of a message from a decoding process, each checked as it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_MAX_COUNT = 2**31
_MAX_SECONDS = 1e12


class MalformedMessage(Exception):
    """A decoding process sent something that an honest one never sends."""


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise MalformedMessage(f"{name} is no number")
    if not 0 <= value <= _MAX_SECONDS or not math.isfinite(value):
        raise MalformedMessage(f"{name} is out of range")
    return float(value)


class Fields:
    """The fields of one JSON object, each taken out once and checked. Numbers are finite and not negative."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self.names: set[str] = set()

    def _take(self, name: str) -> object:
        self.names.add(name)
        if name not in self._content:
            raise MalformedMessage(f"{name} is missing")
        return self._content.pop(name)

    def check_all_read(self) -> None:
        if self._content:
            raise MalformedMessage("a field that is not known")

    def integer(self, name: str) -> int:
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_COUNT:
            raise MalformedMessage(f"{name} is no count")
        return value

    def number(self, name: str) -> float:
        return _number(name, self._take(name))

    def numbers(self, name: str) -> tuple[float, ...]:
        value = self._take(name)
        if not isinstance(value, list):
            raise MalformedMessage(f"{name} is no list")
        return tuple(_number(name, entry) for entry in value)

    def optional_number(self, name: str) -> float | None:
        if self._content.get(name, 0) is None:
            self._take(name)
            return None
        return self.number(name)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self._take(name)
        if not isinstance(value, str) or value not in choices:
            raise MalformedMessage(f"{name} is not known")
        return value

    def optional_choice(self, name: str, choices: Sequence[str]) -> str | None:
        if self._content.get(name, "") is None:
            self._take(name)
            return None
        return self.choice(name, choices)

    def choices(self, name: str, choices: Sequence[str]) -> tuple[str, ...]:
        """Some of these, each at most once."""
        value = self._take(name)
        if not isinstance(value, list) or len(value) > len(choices) or any(entry not in choices for entry in value):
            raise MalformedMessage(f"{name} is not a list of what is known")
        return tuple(value)

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._take(name)
        if not isinstance(value, dict):
            raise MalformedMessage(f"{name} is no object")
        return value
