"""An append-only record of finished batches in one file, which survives a kill at any byte.

The first line says which job it belongs to, every further line is one finished batch; all are JSON. A line is written
with one call and forced to disk, so after a kill at most the last line is cut short: it is dropped on reopening, and
its batch is computed again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from handlers.errors import SetupError

_FORMAT = "journal 1"


class JournalMismatch(SetupError):
    """The file at this place belongs to another job, or is no journal."""


class Journal:
    """Open for appending, by one process at a time; `entries` holds what was there already, in order."""

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        """Opens or starts the journal of `job` (JSON values); raises JournalMismatch when another job's is there."""
        self.path, self._job = path, job
        self.entries: list[Any] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size == 0:
            write_atomically(path, _line({"format": _FORMAT, "job": job}))
        self._file: BinaryIO = path.open("r+b")
        try:
            self._lock()
            complete = self._read(job)
        except BaseException:
            self._file.close()
            raise
        self._file.truncate(complete)
        self._file.seek(complete)

    def append(self, entry: Any) -> None:
        """Adds one JSON value for good."""
        self._file.write(_line(entry))
        self._file.flush()
        os.fsync(self._file.fileno())

    def restart(self, entry: Any) -> None:
        """Replaces all entries by one, atomically."""
        replacement = _line({"format": _FORMAT, "job": self._job}) + _line(entry)
        write_atomically(self.path, replacement)
        self._file.close()
        self._file = self.path.open("r+b")
        self._lock()
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalMismatch(f"{self.path} is being written by another run") from None

    def _read(self, job: Mapping[str, Any]) -> int:
        """Fills `entries`; the length in bytes of all complete lines."""
        complete = 0
        for number, line in enumerate(self._file):
            if number and not line.endswith(b"\n"):
                break
            value = self._parse(line)
            if number == 0:
                self._check(value, job)
            else:
                self.entries.append(value)
            complete += len(line)
        return complete

    def _parse(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError:
            raise JournalMismatch(f"{self.path} is not a journal of this tool; name another file") from None

    def _check(self, header: Any, job: Mapping[str, Any]) -> None:
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise JournalMismatch(f"{self.path} is not a journal of this tool; name another file")
        found = header.get("job") or {}
        wanted = json.loads(json.dumps(job))
        differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        if differing:
            raise JournalMismatch(
                f"{self.path} was begun with another {', '.join(differing)}; "
                "repeat that command to finish it, or name another file"
            )


def is_journal(path: Path) -> bool:
    """Whether the file begins as a journal does; a result does not."""
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline())
        except ValueError:
            return False
    return isinstance(header, dict) and header.get("format") == _FORMAT


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file in one step, so that it holds the old or the new content; forced to disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _line(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
