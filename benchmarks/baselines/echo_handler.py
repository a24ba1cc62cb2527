"""A handler that only counts the bytes: what the round trip of a request costs before any work is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class EchoHandler:
    """TorchServe hands over the bytes and takes an answer as small as a real one."""

    def initialize(self, context: Any) -> None:
        """Nothing to load."""

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[dict[str, float]]:
        """The number of bytes of each row's body."""
        return [{"bytes": float(len(row.get("data") or row.get("body") or b""))} for row in rows]
