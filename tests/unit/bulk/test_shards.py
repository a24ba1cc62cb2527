"""Shards, manifest and journal: exactly one row per video, whenever the writer is killed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulk.journal import Journal, write_atomically
from bulk.rows import COLUMNS
from bulk.shards import JOURNAL, MANIFEST, RowFormat, ShardsMismatch, ShardWriter, read_manifest, read_rows

JOB = {"model": "x"}
FORMATS: tuple[RowFormat, ...] = ("jsonl", "parquet")


def row(index: int, *, status: str = "ok") -> dict[str, Any]:
    values = {"path": f"v{index}.mp4", "status": status, "labels": ["ü", "b"], "scores": [0.5, 0.25], "score": 0.5}
    return {**dict.fromkeys(COLUMNS), **values, "class_ids": [1, 0], "class_id": 1, "warnings": []}


def paths(folder: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for shard in read_manifest(folder)["shards"]:
        rows = read_rows(folder / shard["file"])
        assert len(rows) == shard["rows"]
        found.update(item["path"] for item in rows)
    return found


def write_rest(folder: Path, total: int, *, row_format: RowFormat = "jsonl", shard_rows: int = 4) -> ShardWriter:
    """What a run does: the rows that are missing, two at a time."""
    writer = ShardWriter(folder, JOB, row_format, shard_rows=shard_rows)
    try:
        missing = [index for index in range(total) if f"v{index}.mp4" not in writer.done]
        for start in range(0, len(missing), 2):
            writer.add([row(index) for index in missing[start : start + 2]])
        writer.finish()
    finally:
        writer.close()
    return writer


@pytest.mark.parametrize("row_format", FORMATS)
def test_all_rows_once_in_shards_of_the_asked_size(tmp_path: Path, row_format: RowFormat) -> None:
    write_rest(tmp_path, 10, row_format=row_format)
    manifest = read_manifest(tmp_path)
    assert manifest["complete"]
    assert [shard["rows"] for shard in manifest["shards"]] == [4, 4, 2]
    assert paths(tmp_path) == Counter(f"v{index}.mp4" for index in range(10))
    assert not (tmp_path / JOURNAL).exists()
    assert read_rows(tmp_path / manifest["shards"][0]["file"])[0] == row(0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs but what closes files."""


def _kill_points(monkeypatch: pytest.MonkeyPatch, point: int) -> None:
    """The `point`-th time that something is to be made durable, the process dies before or after doing it."""
    counter: Iterator[int] = iter(range(10**6))
    real_write, real_append = write_atomically, Journal.append

    def step() -> None:
        if next(counter) == point:
            raise Killed

    def write(path: Path, content: bytes) -> None:
        step()
        real_write(path, content)
        step()

    def append(self: Journal, entry: Any) -> None:
        step()
        real_append(self, entry)
        step()

    monkeypatch.setattr("bulk.shards.write_atomically", write)
    monkeypatch.setattr("bulk.journal.write_atomically", write)
    monkeypatch.setattr(Journal, "append", append)


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_kill_anywhere_loses_nothing_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_format: RowFormat
) -> None:
    killed = 0
    for point in range(100):
        folder = tmp_path / str(point)
        with monkeypatch.context() as patch:
            _kill_points(patch, point)
            try:
                write_rest(folder, 10, row_format=row_format)
            except Killed:
                killed += 1
            else:
                break
        writer = write_rest(folder, 10, row_format=row_format)
        assert len(writer.done) == 10
        assert paths(folder) == Counter(f"v{index}.mp4" for index in range(10))
        names = {entry.name for entry in folder.iterdir()} - {MANIFEST}
        assert names == {shard["file"] for shard in read_manifest(folder)["shards"]}
        shutil.rmtree(folder)
    assert killed > 20


def test_a_path_that_has_a_row_gets_no_second_one(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, JOB, "jsonl")
    writer.add([row(0), row(1, status="failed")])
    writer.add([row(1), row(2)])
    writer.finish()
    writer.close()
    assert writer.failed == 1
    assert paths(tmp_path) == Counter(["v0.mp4", "v1.mp4", "v2.mp4"])


def test_videos_added_to_a_finished_folder(tmp_path: Path) -> None:
    write_rest(tmp_path, 5)
    before = (tmp_path / "part-00000.jsonl").read_bytes()
    writer = ShardWriter(tmp_path, JOB, "jsonl", shard_rows=4)
    writer.add([row(7)])
    assert not read_manifest(tmp_path)["complete"]
    writer.finish()
    writer.close()
    assert paths(tmp_path)["v7.mp4"] == 1
    assert read_manifest(tmp_path)["rows"] == 6
    assert (tmp_path / "part-00000.jsonl").read_bytes() == before


def test_another_jobs_folder_is_refused(tmp_path: Path) -> None:
    write_rest(tmp_path, 1)
    with pytest.raises(ShardsMismatch, match="holds rows of another model;"):
        ShardWriter(tmp_path, {"model": "y"}, "jsonl")
    with pytest.raises(ShardsMismatch, match="holds rows of another format;"):
        ShardWriter(tmp_path, JOB, "parquet")


def test_a_folder_with_someone_elses_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-00000.jsonl").write_text("{}\n")
    with pytest.raises(ShardsMismatch, match=r"holds part-00000.jsonl but no manifest.json"):
        ShardWriter(tmp_path, JOB, "jsonl")
    assert (tmp_path / "part-00000.jsonl").exists()
