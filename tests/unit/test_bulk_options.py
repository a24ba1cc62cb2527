"""Which archive a name on the command line of `evaluate` and `classify` means."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from handlers.errors import InvalidConfig
from scripts._bulk import _find_archive


def test_an_archive_is_found_by_its_file_and_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = Path("model_store/x3d_s.mar")
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w"):
        pass
    assert _find_archive(str(archive), tmp_path) == archive
    assert capsys.readouterr().err == ""
    assert _find_archive("x3d_s", tmp_path) == archive  # and nothing is packaged or downloaded
    assert "note: x3d_s is the archive model_store/x3d_s.mar" in capsys.readouterr().err


def test_what_is_neither_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidConfig, match=r"gone\.mar does not exist"):
        _find_archive("gone.mar", tmp_path)
    with pytest.raises(InvalidConfig, match=r"'nope' is neither an archive, .* nor a spec; specs: x3d_xs"):
        _find_archive("nope", tmp_path)
