"""Rows -> Parquet or JSON-lines shards and a manifest, in one folder. The only module that imports pyarrow.

    manifest.json           the job, the finished shards, whether all is done; replaced atomically
    part-00000.parquet      a finished shard; renamed into place whole
    unfinished.jsonl        the rows that are in no shard yet; removed when all is done

A row is in the journal as soon as its batch is finished, so a kill loses no work; a shard counts once the manifest
names it, so a kill leaves no half shard and no row twice.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bulk.journal import Journal, write_atomically
from bulk.rows import COLUMNS, Row
from handlers.errors import SetupError

RowFormat = Literal["parquet", "jsonl"]

MANIFEST = "manifest.json"
JOURNAL = "unfinished.jsonl"
_VERSION = 1


class ShardsMismatch(SetupError):
    """The folder holds another job's rows, or cannot be written in this format."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished file of rows."""

    file: str
    rows: int


class ShardWriter:
    """The rows of one job. Open it, skip what `done` holds, `add` the rest, `finish`."""

    def __init__(self, folder: Path, job: Mapping[str, Any], row_format: RowFormat, *, shard_rows: int = 1000) -> None:
        """Continues what the folder holds; raises ShardsMismatch or JournalMismatch when that is another job's."""
        check_format(row_format)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._format, self._shard_rows = folder, row_format, shard_rows
        self._job = json.loads(json.dumps(job))
        self._complete = False
        self._read_manifest()  # refuses before anything is written
        self._journal = Journal(folder / JOURNAL, self._job)
        self._shards = self._read_manifest()  # again, now that no other run can change it
        self._remove_strays()
        self.done: set[str] = set()
        """Paths that have a row, in a shard or in the journal."""
        self.failures: Counter[str] = Counter()
        """Failed rows among them by their error's type."""
        for shard in self._shards:
            self._count(read_rows(folder / shard.file, columns=("path", "status", "error_type")))
        self._waiting: list[Row] = []
        for rows in self._journal.entries:
            self._take(rows)
        self._flush()

    def add(self, rows: Sequence[Row]) -> None:
        """Keeps the rows for good; a path that has a row already is passed over."""
        new = [row for row in rows if row["path"] not in self.done]
        if new:
            if self._complete:  # videos were added to a finished job
                self._write_manifest(complete=False)
            self._journal.append(new)
            self._take(new)
            self._flush()

    def finish(self) -> None:
        """Writes what is left as the last shard; the manifest then says that the job is complete."""
        self._flush(everything=True)
        self._write_manifest(complete=True)
        self._journal.path.unlink()

    def close(self) -> None:
        self._journal.close()

    @property
    def failed(self) -> int:
        return self.failures.total()

    def _take(self, rows: Sequence[Row]) -> None:
        new = [row for row in rows if row["path"] not in self.done]
        self._count(new)
        self._waiting += new

    def _count(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.done.add(row["path"])
            if row["status"] != "ok":
                self.failures[str(row["error_type"])] += 1

    def _flush(self, *, everything: bool = False) -> None:
        """Shards before the manifest, the manifest before the journal: a kill between two of them repeats nothing."""
        before = len(self._shards)
        while len(self._waiting) >= self._shard_rows or (everything and self._waiting):
            rows, self._waiting = self._waiting[: self._shard_rows], self._waiting[self._shard_rows :]
            shard = Shard(f"part-{len(self._shards):05d}.{self._format}", len(rows))
            write_atomically(self._folder / shard.file, _ENCODERS[self._format](rows))
            self._shards.append(shard)
        if len(self._shards) > before:
            self._write_manifest(complete=False)
            self._journal.restart(self._waiting)

    def _write_manifest(self, *, complete: bool) -> None:
        self._complete = complete
        content = {
            "version": _VERSION,
            "complete": complete,
            "format": self._format,
            "job": self._job,
            "rows": sum(shard.rows for shard in self._shards),
            "failed": self.failed if complete else None,
            "shards": [{"file": shard.file, "rows": shard.rows} for shard in self._shards],
        }
        write_atomically(self._folder / MANIFEST, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")

    def _read_manifest(self) -> list[Shard]:
        path = self._folder / MANIFEST
        if not path.exists():
            self._refuse_foreign()
            return []
        content = read_manifest(self._folder)
        wanted = {"format": self._format, **self._job}
        found = {"format": content["format"], **content["job"]}
        differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        if differing:
            raise ShardsMismatch(
                f"{self._folder} holds rows of another {', '.join(differing)}; name another folder for --out"
            )
        self._complete = content["complete"]
        return [Shard(shard["file"], shard["rows"]) for shard in content["shards"]]

    def _refuse_foreign(self) -> None:
        """A folder without a manifest may hold a journal (killed before the first shard), and nothing else of ours."""
        foreign = sorted(path.name for path in self._folder.glob("part-*"))
        if foreign and not (self._folder / JOURNAL).exists():
            raise ShardsMismatch(f"{self._folder} holds {foreign[0]} but no {MANIFEST}; name another folder for --out")

    def _remove_strays(self) -> None:
        """Shards that were renamed into place but never made it into the manifest: their rows are in the journal."""
        known = {shard.file for shard in self._shards}
        for path in [*self._folder.glob("part-*"), *self._folder.glob(".*.partial")]:
            if path.name not in known:
                path.unlink()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a finished or begun folder's manifest; raises ShardsMismatch."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise ShardsMismatch(f"{folder / MANIFEST} is not a manifest of this tool")
    return content


def read_rows(path: Path, *, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """A shard's rows."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(path, columns=columns and list(columns)).to_pylist()
        return rows
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def check_format(row_format: RowFormat) -> None:
    """Raises ShardsMismatch when Parquet is asked for and pyarrow is not installed."""
    if row_format == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ShardsMismatch("Parquet needs pyarrow: pip install -r requirements/ray.txt") from None


def _parquet(rows: Sequence[Row]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    plain = {"string": pa.string(), "float64": pa.float64(), "int32": pa.int32()}
    types = {**plain, **{f"list<{name}>": pa.list_(kind) for name, kind in plain.items()}}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows).encode()


_ENCODERS = {"parquet": _parquet, "jsonl": _jsonl}
