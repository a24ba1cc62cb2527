"""Labelled lists of videos -> annotations. The layout is recognised; what could be read in two ways is refused.

path label              one video a line, the label as id or as a name of one word
video_id frames label   MMAction2's list of raw frames; the count is not used, the id is found as a video file
CSV or TSV              a header that names the columns; also Kinetics' own (label, youtube_id, time_start, time_end)

Where a video has several labels they are written `3|17`, or a line each; an empty cell of a CSV is a video with none.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from bulk.class_ids import Entry, InvalidAnnotations, all_labels, is_number, only_label
from bulk.files import InvalidSelection, VideoFile, VideoFolder

Layout = Literal["path-label", "frames", "csv", "kinetics"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

VIDEO_COLUMNS = ("path", "video", "video_path", "file", "filename", "file_name", "video_id", "video_name", "id")
LABEL_COLUMNS = ("label", "label_id", "label_name", "class", "class_id", "class_name", "category", "action")
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


@dataclass(frozen=True, slots=True)
class Annotation:
    """A video and the ids of its true classes: one, or any number for a model of several labels."""

    video: VideoFile
    labels: tuple[int, ...]

    @property
    def label(self) -> int:
        """Where there is one label a video."""
        (label,) = self.labels
        return label


@dataclass(frozen=True, slots=True)
class AnnotationList:
    """Annotations in the file's order, each video once; `repeated` lines said the same again."""

    annotations: tuple[Annotation, ...]
    layout: Layout
    repeated: int = 0


def read_annotations(
    path: Path,
    *,
    labels: Sequence[str],
    folder: VideoFolder,
    layout: Layout | None = None,
    several_labels: bool = False,
) -> AnnotationList:
    """The list in `path`, for a model with these labels, of which a video has one, or with `several_labels` any number.

    `layout` None recognises it. Raises InvalidAnnotations, and InvalidSelection where there is no such file.
    """
    lines = _read_lines(path)
    layout = layout or _recognise(lines, path, folder)
    entries = _PARSERS[layout](lines, path, folder)
    if several_labels:
        unique, repeated = all_labels(entries, labels, path.name)
    else:
        unique, repeated = only_label(entries, labels, path.name)
    annotations = tuple(Annotation(folder.find(video), ids) for video, ids in unique.items())
    return AnnotationList(annotations, layout, repeated=repeated)


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidSelection(f"cannot read the annotations {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidAnnotations(f"the annotations {path.name} are not UTF-8 text (byte {error.start})") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise InvalidAnnotations(f"the annotations {path.name} are empty")
    return lines


def _recognise(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> Layout:
    header = _columns(lines[0][1])
    if set(KINETICS_COLUMNS) <= set(header):
        return "kinetics"
    if set(header) & set(VIDEO_COLUMNS) and set(header) & set(LABEL_COLUMNS):
        return "csv"
    if path.suffix.lower() in (".csv", ".tsv"):
        raise InvalidAnnotations(
            f"{path.name}: the first line must name the columns, a video ({', '.join(VIDEO_COLUMNS)}) "
            f"and a label ({', '.join(LABEL_COLUMNS)}); got {lines[0][1].strip()!r}"
        )
    tokens = [line.split() for _, line in lines]
    if not all(len(row) >= 3 and is_number(row[-1]) and is_number(row[-2]) for row in tokens):
        return "path-label"
    return _two_or_three_columns([line for _, line in lines], path, folder)


def _two_or_three_columns(lines: list[str], path: Path, folder: VideoFolder) -> Layout:
    """Every line ends in two numbers: a count and a label, or a name with a space in it and a label? The disk knows."""
    as_frames = sum(folder.has(line.rsplit(maxsplit=2)[0].strip()) for line in lines)
    as_path = sum(folder.has(line.rsplit(maxsplit=1)[0].strip()) for line in lines)
    if as_path and not as_frames:
        return "path-label"
    if as_frames and not as_path:
        return "frames"
    if not as_path and all(len(line.split()) == 3 for line in lines):
        return "frames"
    example = lines[0].rsplit(maxsplit=2)
    raise InvalidAnnotations(
        f"{path.name}: {lines[0].strip()!r} can be the video {example[0]!r} with {example[1]} frames, "
        f"or the video '{example[0]} {example[1]}'; say which with --layout frames or --layout path-label"
    )


def _parse_path_label(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[Entry]:
    return [_split(number, line, 2, path) for number, line in lines]


def _parse_frames(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[Entry]:
    return [_split(number, line, 3, path) for number, line in lines]


def _split(number: int, line: str, columns: int, path: Path) -> Entry:
    parts = line.strip().rsplit(maxsplit=columns - 1)
    if len(parts) < columns or (columns == 3 and not is_number(parts[1])):
        wanted = "'path label'" if columns == 2 else "'video_id frames label'"
        raise InvalidAnnotations(f"{path.name}, line {number}: expected {wanted}, got {line.strip()!r}")
    return Entry(number, parts[0], parts[-1])


def _parse_csv(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[Entry]:
    header = _columns(lines[0][1])
    video = _only_column(header, VIDEO_COLUMNS, "video", path)
    label = _only_column(header, LABEL_COLUMNS, "label", path)
    return [Entry(number, row[video], row[label]) for number, row in _rows(lines, path)]


def _parse_kinetics(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[Entry]:
    """Kinetics' own list: files are called ID_START_END with six digits each, in a folder per label or in one."""
    missing = [column for column in KINETICS_COLUMNS if column not in _columns(lines[0][1])]
    if missing:
        raise InvalidAnnotations(f"{path.name}: the header has no column {missing[0]!r}")
    entries = []
    for number, row in _rows(lines, path):
        try:
            start_sec, end_sec = int(float(row["time_start"])), int(float(row["time_end"]))
        except ValueError:
            raise InvalidAnnotations(f"{path.name}, line {number}: time_start and time_end must be seconds") from None
        name, label = f"{row['youtube_id']}_{start_sec:06d}_{end_sec:06d}", row["label"]
        places = (f"{label}/{name}", f"{label.replace(' ', '_')}/{name}")
        entries.append(Entry(number, next((place for place in places if folder.has(place)), name), label))
    return entries


_PARSERS: Mapping[Layout, Callable[[list[tuple[int, str]], Path, VideoFolder], list[Entry]]] = {
    "path-label": _parse_path_label,
    "frames": _parse_frames,
    "csv": _parse_csv,
    "kinetics": _parse_kinetics,
}


def _delimiter(header: str) -> str:
    return "\t" if "\t" in header else ","


def _columns(header: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([header], delimiter=_delimiter(header)), [])]


def _only_column(header: list[str], known: tuple[str, ...], what: str, path: Path) -> str:
    found = [name for name in header if name in known]
    if len(found) != 1:
        problem = "no column for the" if not found else f"{' and '.join(found)} can all be the"
        raise InvalidAnnotations(f"{path.name}: {problem} {what}; name exactly one column {', '.join(known)}")
    return found[0]


def _rows(lines: list[tuple[int, str]], path: Path) -> list[tuple[int, dict[str, str]]]:
    header = _columns(lines[0][1])
    if len(set(header)) != len(header):
        raise InvalidAnnotations(f"{path.name}: a column name is given twice: {', '.join(header)}")
    rows = []
    for number, line in lines[1:]:
        cells = next(csv.reader([line], delimiter=_delimiter(lines[0][1])))
        if len(cells) != len(header):
            raise InvalidAnnotations(f"{path.name}, line {number}: {len(cells)} cells, the header has {len(header)}")
        rows.append((number, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    if not rows:
        raise InvalidAnnotations(f"the annotations {path.name} hold a header and nothing else")
    return rows
