"""Folders, lists, globs: which videos a run is about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulk.files import InvalidSelection, select_files
from video_action_client.source import VIDEO_SUFFIXES


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MKV", "sub/deep/c.webm", "notes.md", "odd.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(folder: Path, *arguments: str) -> list[str]:
    return [os.path.relpath(file.path, folder) for file in select_files(arguments).files]


def test_a_folder_gives_its_videos_in_order_and_counts_the_rest(videos: Path) -> None:
    selection = select_files([str(videos)])
    assert [os.path.relpath(file.path, videos) for file in selection.files] == ["a.MKV", "b.mp4", "sub/deep/c.webm"]
    assert selection.passed_over == 2


def test_a_folder_is_searched_for_what_the_client_takes_for_videos_too(tmp_path: Path) -> None:
    for suffix in VIDEO_SUFFIXES:
        (tmp_path / f"video{suffix}").touch()
    assert len(names(tmp_path, str(tmp_path))) == len(VIDEO_SUFFIXES)
    assert {".ogg", ".y4m", ".divx", ".mp4"} <= VIDEO_SUFFIXES


def test_a_glob_takes_what_it_matches_whatever_its_suffix(videos: Path) -> None:
    assert names(videos, f"{videos}/**/*.[bw]*") == ["odd.bin", "sub/deep/c.webm"]


def test_a_list_is_relative_to_itself(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (videos / "sub" / "list.txt").write_text("# chosen\ndeep/c.webm\n\n../b.mp4\ns3://bucket/x.mp4\n")
    monkeypatch.chdir("/")
    for argument in (f"@{videos}/sub/list.txt", f"{videos}/sub/list.txt"):
        paths = [file.path for file in select_files([argument]).files]
        assert [Path(path).resolve() for path in paths[:2]] == [videos / "sub/deep/c.webm", videos / "b.mp4"]
        assert paths[2] == "s3://bucket/x.mp4"


def test_a_file_named_twice_is_one_video(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(videos)
    selection = select_files(["b.mp4", str(videos / "b.mp4"), str(videos)])
    assert [file.name for file in selection.files] == ["b.mp4", str(videos / "a.MKV"), str(videos / "sub/deep/c.webm")]
    assert selection.repeated == 2


def test_a_missing_file_of_a_list_stays_to_become_a_row(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("gone.mp4\n")
    assert names(tmp_path, str(tmp_path / "list.txt")) == ["gone.mp4"]


def test_a_mistyped_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSelection, match=r"gone\.mp4 does not exist; name a video"):
        select_files([str(tmp_path / "gone.mp4")])


def test_a_link_to_nothing_stays_to_become_a_row(videos: Path) -> None:
    for link in ("dead.mp4", "sub/dead.mkv", "dead.md"):
        (videos / link).symlink_to("nowhere")
    selection = select_files([str(videos)])
    found = [os.path.relpath(file.path, videos) for file in selection.files]
    assert found == ["a.MKV", "b.mp4", "dead.mp4", "sub/dead.mkv", "sub/deep/c.webm"]
    assert names(videos, str(videos / "dead.mp4")) == ["dead.mp4"]
    assert names(videos, f"{videos}/d*.mp4") == ["dead.mp4"]


def test_hidden_files_and_folders_are_left_out_and_counted(videos: Path) -> None:
    for name in (".venv/media/x.mp4", "sub/.cache/y.mp4", ".partial.mp4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_bytes(b"x")
    selection = select_files([str(videos)])
    assert len(selection.files) == 3
    assert selection.hidden == 3
    assert names(videos, str(videos / ".venv")) == [".venv/media/x.mp4"]  # named, so it is meant


def test_a_link_in_a_circle_ends(videos: Path) -> None:
    (videos / "sub" / "up").symlink_to(videos)
    assert len(select_files([str(videos)]).files) == 3
    with pytest.raises(InvalidSelection, match="matches no file"):
        select_files([f"{videos}/sub/u*"])


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].mp4").write_bytes(b"x")
    assert names(tmp_path, str(tmp_path / "a[1].mp4")) == ["a[1].mp4"]


def test_a_name_that_is_not_utf8_gets_a_printable_identity(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff.mp4"
    os.close(os.open(raw, os.O_CREAT | os.O_WRONLY))
    file = select_files([str(tmp_path)]).files[0]
    assert file.name.endswith("\\xff.mp4")
    assert os.fsencode(file.path) == raw
    file.name.encode("utf-8")


@pytest.mark.parametrize(
    ("argument", "message"),
    [("{}/empty", "no video in the folder"), ("{}/*.avi", "matches no file"), ("@{}/none.txt", "cannot read the list")],
)
def test_nothing_found_is_refused(tmp_path: Path, argument: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSelection, match=message):
        select_files([argument.format(tmp_path)])


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n# nothing\n")
    with pytest.raises(InvalidSelection, match="names no video"):
        select_files([str(tmp_path / "list.txt")])
