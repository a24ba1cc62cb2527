"""The journal after a kill at any byte, for another job, and with two writers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulk.journal import Journal, JournalMismatch, is_journal, write_atomically

JOB = {"model": "x", "views": [1, 2]}


def filled(path: Path) -> bytes:
    with Journal(path, JOB) as journal:
        for number in range(3):
            journal.append({"batch": number, "name": "ü\udcff"})
    return path.read_bytes()


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    with Journal(tmp_path / "j", JOB) as journal:
        assert [entry["batch"] for entry in journal.entries] == [0, 1, 2]
        assert journal.entries[0]["name"] == "ü\udcff"


def test_a_cut_at_any_byte_loses_at_most_the_entry_it_is_in(tmp_path: Path) -> None:
    content = filled(tmp_path / "j")
    header = content.index(b"\n") + 1
    for length in range(header, len(content) + 1):
        (tmp_path / "j").write_bytes(content[:length])
        complete = content[:length].count(b"\n") - 1
        with Journal(tmp_path / "j", JOB) as journal:
            assert len(journal.entries) == complete
            for number in range(complete, 3):
                journal.append({"batch": number, "name": "ü\udcff"})
        assert (tmp_path / "j").read_bytes() == content


def test_an_empty_file_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "j").touch()
    assert filled(tmp_path / "j").count(b"\n") == 4


def test_another_job_is_named(tmp_path: Path) -> None:
    filled(tmp_path / "j")
    with pytest.raises(JournalMismatch, match="begun with another views;"):
        Journal(tmp_path / "j", {**JOB, "views": [1, 3]})


@pytest.mark.parametrize("content", [b"not a journal\n", b'{"format": "else"}\n', b"[]\n", b"no newline", b"\xff\xfe"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j").write_bytes(content)
    assert not is_journal(tmp_path / "j")
    with pytest.raises(JournalMismatch, match="is not a journal"):
        Journal(tmp_path / "j", JOB)
    assert (tmp_path / "j").read_bytes() == content


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", JOB):
        with pytest.raises(JournalMismatch, match="is being written by another run"):
            Journal(tmp_path / "j", JOB)
        assert is_journal(tmp_path / "j")
    Journal(tmp_path / "j", JOB).close()


def test_restart_keeps_one_entry(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", JOB) as journal:
        journal.append(1)
        journal.restart(["kept"])
        journal.append(2)
    with Journal(tmp_path / "j", JOB) as journal:
        assert journal.entries == [["kept"], 2]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
