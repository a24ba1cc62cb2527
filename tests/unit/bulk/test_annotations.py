"""Layouts of labelled lists, and what is refused because it could be read in two ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bulk.annotations import AnnotationList, Layout, read_annotations
from bulk.class_ids import InvalidAnnotations
from bulk.files import InvalidSelection, VideoFolder

LABELS = ("abseiling", "air drumming", "yoga")


def read(
    folder: Path,
    text: str,
    *,
    name: str = "val.txt",
    files: tuple[str, ...] = (),
    labels: tuple[str, ...] = LABELS,
    layout: Layout | None = None,
    several_labels: bool = False,
) -> AnnotationList:
    videos = folder / "videos"
    for file in ("placeholder", *files):
        (videos / file).parent.mkdir(parents=True, exist_ok=True)
        (videos / file).write_bytes(b"x")
    (folder / name).write_text(text, encoding="utf-8")
    return read_annotations(
        folder / name, labels=labels, folder=VideoFolder(videos), layout=layout, several_labels=several_labels
    )


def pairs(found: AnnotationList) -> list[tuple[str, int]]:
    return [(annotation.video.name, annotation.label) for annotation in found.annotations]


def test_path_and_label(tmp_path: Path) -> None:
    found = read(tmp_path, "a.mp4 0\nsome dir/b c.mp4 2\n\n", files=("a.mp4",))
    assert found.layout == "path-label"
    assert pairs(found) == [("a.mp4", 0), ("some dir/b c.mp4", 2)]
    assert found.annotations[0].video.path == str(tmp_path / "videos" / "a.mp4")


def test_path_and_label_of_one_word(tmp_path: Path) -> None:
    assert pairs(read(tmp_path, "a.mp4 yoga\nb.mp4 Air_Drumming\n")) == [("a.mp4", 2), ("b.mp4", 1)]


def test_mmaction2_frames_find_the_file_of_the_id(tmp_path: Path) -> None:
    found = read(tmp_path, "yoga/x1 240 2\nabseiling/x2 300 0\n", files=("yoga/x1.webm", "abseiling/x2.mp4"))
    assert found.layout == "frames"
    assert pairs(found) == [("yoga/x1", 2), ("abseiling/x2", 0)]
    assert [Path(item.video.path).suffix for item in found.annotations] == [".webm", ".mp4"]


def test_frames_whose_videos_are_all_missing_are_still_frames(tmp_path: Path) -> None:
    assert read(tmp_path, "x1 240 2\nx2 300 0\n").layout == "frames"


def test_a_number_in_a_files_name_is_told_from_a_count_by_the_disk(tmp_path: Path) -> None:
    found = read(tmp_path, "clip 12 2\nclip 13 0\n", files=("clip 12.mp4", "clip 13.mp4"))
    assert found.layout == "path-label"
    assert pairs(found) == [("clip 12", 2), ("clip 13", 0)]


def test_what_fits_both_ways_is_refused(tmp_path: Path) -> None:
    files = ("clip 12.mp4", "clip.mp4")
    with pytest.raises(InvalidAnnotations, match=r"can be the video 'clip' with 12 frames, or the video 'clip 12'"):
        read(tmp_path, "clip 12 2\n", files=files)
    assert pairs(read(tmp_path, "clip 12 2\n", files=files, layout="frames")) == [("clip", 2)]
    assert pairs(read(tmp_path, "clip 12 2\n", files=files, layout="path-label")) == [("clip 12", 2)]


def test_an_id_of_two_files_is_that_videos_problem_alone(tmp_path: Path) -> None:
    found = read(tmp_path, "x 10 2\ny 10 0\n", files=("x.mp4", "x.mkv", "y.mp4"))
    assert found.annotations[0].video.problem == "x is more than one file: x.mkv, x.mp4"
    assert found.annotations[1].video.problem is None


@pytest.mark.parametrize("separator", [",", "\t"])
def test_csv_by_name(tmp_path: Path, separator: str) -> None:
    lines = ["split,path,label", "val,a.mp4,air drumming", 'val,"b.mp4","yoga"']
    found = read(tmp_path, "\n".join(lines).replace(",", separator), name="val.csv")
    assert (found.layout, pairs(found)) == ("csv", [("a.mp4", 1), ("b.mp4", 2)])


def test_csv_by_id(tmp_path: Path) -> None:
    assert pairs(read(tmp_path, "video,class_id\na.mp4,2\nb.mp4,0\n")) == [("a.mp4", 2), ("b.mp4", 0)]


def test_kinetics_own_list(tmp_path: Path) -> None:
    text = "label,youtube_id,time_start,time_end,split\nair drumming,-AB_c,7,17,val\nyoga,zz,120,130,val\n"
    found = read(tmp_path, text, name="val.csv", files=("air_drumming/-AB_c_000007_000017.mp4", "zz_000120_000130.mkv"))
    assert found.layout == "kinetics"
    assert pairs(found) == [("air_drumming/-AB_c_000007_000017", 1), ("zz_000120_000130", 2)]
    assert all(Path(item.video.path).is_file() for item in found.annotations)


def test_a_missing_file_keeps_its_own_path(tmp_path: Path) -> None:
    found = read(tmp_path, "gone.mp4 1\n")
    assert found.annotations[0].video.path.endswith("videos/gone.mp4")
    assert found.annotations[0].video.problem is None


def test_repeats_count_once_and_contradictions_are_refused(tmp_path: Path) -> None:
    found = read(tmp_path, "a.mp4 1\nb.mp4 0\na.mp4 1\n")
    assert (pairs(found), found.repeated) == ([("a.mp4", 1), ("b.mp4", 0)], 1)
    with pytest.raises(InvalidAnnotations, match=r"a\.mp4 is class 1 on line 1 and class 0 on line 2"):
        read(tmp_path, "a.mp4 1\na.mp4 0\n")


def test_labels_that_are_numbers_and_names(tmp_path: Path) -> None:
    same, other = ("0", "1", "2"), ("2", "1", "0")
    assert pairs(read(tmp_path, "a.mp4 2\n", labels=same)) == [("a.mp4", 2)]
    with pytest.raises(InvalidAnnotations, match="2 is an id, and the name of class 0 too"):
        read(tmp_path, "a.mp4 2\n", labels=other)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "val.txt", "the annotations val.txt are empty"),
        ("a.mp4 3\n", "val.txt", "line 1: label 3; the model's classes are 0 to 2"),
        ("a.mp4 -1\n", "val.txt", "the model has no label '-1'"),
        ("a.mp4 yoha\n", "val.txt", "the model has no label 'yoha'; close ones: 'yoga'"),
        ("a.mp4\n", "val.txt", "line 1: expected 'path label', got 'a.mp4'"),
        ("a.mp4 yoga\nb.mp4 2\n", "val.txt", "labels are ids and names: '2' on line 2, 'yoga' on line 1"),
        ("a.mp4,2\n", "val.csv", "the first line must name the columns"),
        ("path,video_id,label\na,b,2\n", "val.csv", "path and video_id can all be the video"),
        ("path,label\n", "val.csv", "hold a header and nothing else"),
        ("path,label\na.mp4,2,3\n", "val.csv", "line 2: 3 cells, the header has 2"),
        ("label,youtube_id,time_start,time_end\nyoga,a,x,1\n", "val.csv", "line 2: time_start and time_end must be"),
    ],
)
def test_refusals(tmp_path: Path, text: str, name: str, message: str) -> None:
    with pytest.raises(InvalidAnnotations, match=message.replace("(", r"\(")):
        read(tmp_path, text, name=name)


def test_a_list_or_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidSelection, match="No such file"):
        read_annotations(tmp_path / "none.txt", labels=LABELS, folder=VideoFolder(tmp_path))
    with pytest.raises(InvalidSelection, match="does not exist"):
        VideoFolder(tmp_path / "none")


def several(folder: Path, text: str, **options: Any) -> list[tuple[str, tuple[int, ...]]]:
    found = read(folder, text, several_labels=True, **options)
    return [(annotation.video.name, annotation.labels) for annotation in found.annotations]


def test_several_labels_by_a_bar_or_a_line_each(tmp_path: Path) -> None:
    assert several(tmp_path, "a.mp4 2|0\nb.mp4 1\n") == [("a.mp4", (0, 2)), ("b.mp4", (1,))]
    assert several(tmp_path, "a.mp4 2\na.mp4 0\nb.mp4 1\n") == [("a.mp4", (0, 2)), ("b.mp4", (1,))]
    names = "path,label\na.mp4,yoga | air drumming\nb.mp4,\n"
    assert several(tmp_path, names, name="val.csv") == [("a.mp4", (1, 2)), ("b.mp4", ())]


def test_a_name_with_a_bar_in_it_stays_whole(tmp_path: Path) -> None:
    labels = ("left|right", "up", "left")
    assert several(tmp_path, "path,label\na,left|right\nb,left|up\n", name="v.csv", labels=labels) == [
        ("a", (0,)),
        ("b", (1, 2)),
    ]


def test_lines_that_add_no_label_are_repeated(tmp_path: Path) -> None:
    found = read(tmp_path, "a.mp4 2|0\na.mp4 0\na.mp4 1\n", several_labels=True)
    assert (found.repeated, found.annotations[0].labels) == (1, (0, 1, 2))


def test_several_labels_are_checked_as_one_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidAnnotations, match="line 1: label 7"):
        several(tmp_path, "a.mp4 2|7\n")
    with pytest.raises(InvalidAnnotations, match="labels are ids and names"):
        several(tmp_path, "a.mp4 2|yoga\n")
    with pytest.raises(InvalidAnnotations, match=r"the model has no label '2\|0'"):
        read(tmp_path, "a.mp4 2|0\n")
