"""Labelled lists of videos -> annotations. The layout is recognised; what could be read in two ways is refused.

path label              one video a line, the label as id or as a name of one word
video_id frames label   MMAction2's list of raw frames; the count is not used, the id is found as a video file
CSV or TSV              a header that names the columns; also Kinetics' own (label, youtube_id, time_start, time_end)
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from bulk.files import InvalidSelection, VideoFile, VideoFolder
from handlers.errors import SetupError

Layout = Literal["path-label", "frames", "csv", "kinetics"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

VIDEO_COLUMNS = ("path", "video", "video_path", "file", "filename", "file_name", "video_id", "video_name", "id")
LABEL_COLUMNS = ("label", "label_id", "label_name", "class", "class_id", "class_name", "category", "action")
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


class InvalidAnnotations(SetupError):
    """The list of labelled videos is wrong, or can be read in more than one way."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A video and the id of its true class."""

    video: VideoFile
    label: int


@dataclass(frozen=True, slots=True)
class AnnotationList:
    """Annotations in the file's order, each video once; `repeated` lines said the same again."""

    annotations: tuple[Annotation, ...]
    layout: Layout
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    line: int
    video: str
    label: str


def read_annotations(
    path: Path, *, labels: Sequence[str], folder: VideoFolder, layout: Layout | None = None
) -> AnnotationList:
    """The list in `path`, for a model with these labels; `layout` None recognises it. Raises InvalidAnnotations,
    and InvalidSelection where there is no such file."""
    lines = _read_lines(path)
    layout = layout or _recognise(lines, path, folder)
    entries = _PARSERS[layout](lines, path, folder)
    ids = _resolve_labels(entries, labels, path.name)
    unique: dict[str, tuple[int, int]] = {}
    for entry, label in zip(entries, ids, strict=True):
        first_line, first_label = unique.setdefault(entry.video, (entry.line, label))
        if first_label != label:
            raise InvalidAnnotations(
                f"{path.name}: {entry.video} is class {first_label} on line {first_line} "
                f"and class {label} on line {entry.line}"
            )
    annotations = tuple(Annotation(folder.find(video), label) for video, (_, label) in unique.items())
    return AnnotationList(annotations, layout, repeated=len(entries) - len(annotations))


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
    if not all(len(row) >= 3 and _is_number(row[-1]) and _is_number(row[-2]) for row in tokens):
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


def _parse_path_label(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[_Entry]:
    return [_split(number, line, 2, path) for number, line in lines]


def _parse_frames(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[_Entry]:
    return [_split(number, line, 3, path) for number, line in lines]


def _split(number: int, line: str, columns: int, path: Path) -> _Entry:
    parts = line.strip().rsplit(maxsplit=columns - 1)
    if len(parts) < columns or (columns == 3 and not _is_number(parts[1])):
        wanted = "'path label'" if columns == 2 else "'video_id frames label'"
        raise InvalidAnnotations(f"{path.name}, line {number}: expected {wanted}, got {line.strip()!r}")
    return _Entry(number, parts[0], parts[-1])


def _parse_csv(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[_Entry]:
    header = _columns(lines[0][1])
    video = _only_column(header, VIDEO_COLUMNS, "video", path)
    label = _only_column(header, LABEL_COLUMNS, "label", path)
    return [_Entry(number, row[video], row[label]) for number, row in _rows(lines, path)]


def _parse_kinetics(lines: list[tuple[int, str]], path: Path, folder: VideoFolder) -> list[_Entry]:
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
        entries.append(_Entry(number, next((place for place in places if folder.has(place)), name), label))
    return entries


_PARSERS: Mapping[Layout, Callable[[list[tuple[int, str]], Path, VideoFolder], list[_Entry]]] = {
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


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _resolve_labels(entries: list[_Entry], labels: Sequence[str], origin: str) -> list[int]:
    """Class ids; all entries must be ids or all of them names."""
    names = {name: index for index, name in enumerate(labels)}
    numbers = [entry for entry in entries if _is_number(entry.label)]
    confusing = [entry for entry in numbers if names.get(entry.label, int(entry.label)) != int(entry.label)]
    if confusing:
        raise InvalidAnnotations(
            f"{origin}, line {confusing[0].line}: {confusing[0].label} is an id, and the name of class "
            f"{names[confusing[0].label]} too; rename the model's labels to make clear which is meant"
        )
    named = [entry for entry in entries if not _is_number(entry.label) or entry.label in names]
    if len(numbers) == len(entries):
        return [_checked_id(entry, labels, origin) for entry in entries]
    if len(named) == len(entries):
        return [_id_of_name(entry, labels, names, origin) for entry in entries]
    first_name = next(entry for entry in entries if not _is_number(entry.label))
    raise InvalidAnnotations(
        f"{origin}: labels are ids and names: {numbers[0].label!r} on line {numbers[0].line}, "
        f"{first_name.label!r} on line {first_name.line}"
    )


def _checked_id(entry: _Entry, labels: Sequence[str], origin: str) -> int:
    if int(entry.label) >= len(labels):
        raise InvalidAnnotations(
            f"{origin}, line {entry.line}: label {entry.label}; the model's classes are 0 to {len(labels) - 1}"
        )
    return int(entry.label)


def _id_of_name(entry: _Entry, labels: Sequence[str], names: Mapping[str, int], origin: str) -> int:
    """The class of that name; case, underscores for spaces and quotes around it do not matter if one class is left."""
    if entry.label in names:
        return names[entry.label]
    matches = [index for index, name in enumerate(labels) if _folded(name) == _folded(entry.label)]
    if len(matches) == 1:
        return matches[0]
    close = difflib.get_close_matches(entry.label, labels, n=3)
    hint = f"; close ones: {', '.join(map(repr, close))}" if close else f" among its {len(labels)}"
    raise InvalidAnnotations(f"{origin}, line {entry.line}: the model has no label {entry.label!r}{hint}")


def _folded(name: str) -> str:
    return name.strip().strip('"').replace("_", " ").casefold()
