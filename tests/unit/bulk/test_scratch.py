"""Folders of killed runs are found and removed; those of running ones are not."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bulk.scratch import remove_leftovers, scratch_folder
from tests.support.paths import REPOSITORY

_HOLD = """
from bulk.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "weights").write_bytes(bytes(1000))
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_folder_is_gone_afterwards(temporary: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == temporary
        (folder / "deep").mkdir()
    assert list(temporary.iterdir()) == []


def test_only_what_nobody_uses_is_removed(temporary: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with scratch_folder() as ours:
            assert remove_leftovers() == 0
            assert (theirs / "weights").exists()
            other.send_signal(signal.SIGKILL)
            other.wait()
            assert theirs.is_dir()  # nothing was left to clean it up
            assert remove_leftovers() == 1
            assert not theirs.exists()
            assert ours.is_dir()
    finally:
        other.kill()
        other.communicate()


def test_what_others_keep_in_the_same_place_stays(temporary: Path) -> None:
    (temporary / "somebody-elses").mkdir()
    (temporary / "bulk-scratch-file").write_text("no folder")
    assert remove_leftovers() == 0
    assert len(list(temporary.iterdir())) == 2
