"""The command lines of `evaluate` and `classify`: which archive a name means, options, exit codes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bulk.files import InvalidSelection
from scripts import classify, evaluate
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
    with pytest.raises(InvalidSelection, match=r"gone\.mar does not exist"):
        _find_archive("gone.mar", tmp_path)
    with pytest.raises(InvalidSelection, match=r"'nope' is neither an archive, .* nor a spec; specs: x3d_xs"):
        _find_archive("nope", tmp_path)


@pytest.mark.parametrize("option", ["--average", "--average-clips"])
def test_both_commands_take_both_names_of_the_option(option: str) -> None:
    evaluated = evaluate._options(["m", "--annotations", "a.txt", "--videos", "v", option, "score"])
    classified = classify._options(["m", "v", "--out", "o", option, "score"])
    assert (evaluated.average, classified.average) == ("score", "score")


def test_paths_to_nothing_are_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert classify.main(["x3d_s", "clipz", "--out", "out"]) == 2
    assert classify.main(["gone.mar", ".", "--out", "out"]) == 2
    assert evaluate.main(["gone.mar", "--annotations", "val.txt", "--videos", "."]) == 2
    assert capsys.readouterr().err.count("error: ") == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("new", "new_failed", "failures", "nothing_worked"),
    [(2, 2, {"A": 2}, True), (2, 1, {"A": 2}, False), (0, 0, {"A": 3, "B": 1}, True), (0, 0, {"A": 3}, False)],
)
def test_when_nothing_worked(new: int, new_failed: int, failures: dict[str, int], nothing_worked: bool) -> None:
    done = classify.Classified(rows=4, failures=failures, new=new, new_failed=new_failed, seconds=2.0)
    assert done.nothing_worked is nothing_worked


def test_the_summary_says_why_and_how_fast() -> None:
    done = classify.Classified(
        rows=5, failures={"UnsupportedVideo": 2, "MissingFile": 1}, new=4, new_failed=3, seconds=2
    )
    assert classify.summary(done, Path("out")).splitlines() == [
        "out: 5 rows, 4 new, 3 of all failed",
        "  failed: 2 UnsupportedVideo, 1 MissingFile",
        "  4 videos in 2 s, 2 a second",
    ]
