"""Which video files: folders, list files and globs, and the file that an entry of a dataset's list means."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from handlers.errors import SetupError

_GLOB = frozenset("*?[")


class InvalidSelection(SetupError):
    """What was named to be read is not there, or the videos asked for cannot be made out."""


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video to classify: `name` is its identity in the output, unique in a run; `path` is what is opened.

    `problem` is the sentence to record instead when the file cannot even be determined.
    """

    name: str
    path: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """The videos in a fixed order; `repeated` names the same file again, `passed_over` lie in folders without a
    video's suffix, `hidden` entries of folders begin with a dot and were not looked into."""

    files: tuple[VideoFile, ...]
    repeated: int = 0
    passed_over: int = 0
    hidden: int = 0


def select_files(arguments: Sequence[str]) -> Selection:
    """What `classify` was given: each a folder (searched to the bottom, but for what begins with a dot), a list
    (`@FILE` or `*.txt`: one path a line, relative to the list), a glob, or a file.

    A file of a list that does not exist is kept, to become a row that says so, and so is a link to nothing; an argument
    that names nothing, and a folder, a list or a glob with nothing in it, are refused. URIs (`s3://...`) are kept as
    they are.
    """
    found: list[str] = []
    passed_over = hidden = 0
    for argument in arguments:
        if argument.startswith("@") or (argument.endswith(".txt") and not _is_uri(argument)):
            found += _from_list(Path(argument.removeprefix("@")))
        elif not _is_uri(argument) and Path(argument).is_dir():
            folder = _from_folder(Path(argument))
            found += folder.videos
            passed_over += folder.others
            hidden += folder.hidden
        elif not _is_uri(argument) and _GLOB & set(argument) and not Path(argument).exists():
            found += _from_glob(argument)
        elif _is_uri(argument) or _lies_there(Path(argument)):
            found.append(argument)
        else:
            raise InvalidSelection(f"{argument} does not exist; name a video, a folder, a list (@FILE) or a glob")
    unique: dict[str, str] = {}
    for path in found:
        unique.setdefault(path if _is_uri(path) else str(Path(path).absolute()), path)
    files = tuple(VideoFile(_printable(path), path) for path in unique.values())
    return Selection(files, repeated=len(found) - len(files), passed_over=passed_over, hidden=hidden)


def _printable(path: str) -> str:
    """Names on disk may be any bytes; rows are UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_video(path: Path) -> bool:
    """By its suffix: what a folder is searched for. A file that is named, or matched by a glob, may end in anything."""
    # Here, because a Ray worker gets handlers and bulk alone, and searches no folder.
    from video_action_client.source import VIDEO_SUFFIXES

    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_uri(text: str) -> bool:
    return "://" in text


def _from_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidSelection(f"cannot read the list {path}: {reason}") from error
    entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not entries:
        raise InvalidSelection(f"the list {path} names no video")
    return [entry if _is_uri(entry) else str(path.parent / entry) for entry in entries]


def _lies_there(path: Path) -> bool:
    """Whatever it is; a link to nothing, too."""
    return os.path.lexists(path)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


@dataclass(frozen=True, slots=True)
class _Folder:
    """What lies in a folder: its videos in order, how many other files, and how many hidden entries."""

    videos: list[str]
    others: int
    hidden: int


def _from_folder(path: Path) -> _Folder:
    """Hidden folders hold what programs keep for themselves (.git, .venv), hidden files what they have not finished.
    Links to folders are not followed, so that none leads in a circle; links to nothing count as the files they name."""
    files: list[Path] = []
    hidden = 0
    for parent, folders, names in os.walk(path):
        shown = [name for name in names if not name.startswith(".")]
        hidden += len(names) - len(shown) + sum(name.startswith(".") for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        entries = (Path(parent, name) for name in shown)
        files += [entry for entry in entries if entry.is_file() or _leads_nowhere(entry)]
    videos = [str(entry) for entry in sorted(files) if _is_video(entry)]
    if not videos:
        more = f", {hidden} hidden entries" if hidden else ""
        raise InvalidSelection(f"no video in the folder {path} ({len(files)} files with other suffixes{more})")
    return _Folder(videos, len(files) - len(videos), hidden)


def _from_glob(pattern: str) -> list[str]:
    found = (Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
    matches = sorted(str(match) for match in found if match.is_file() or _leads_nowhere(match))
    if not matches:
        raise InvalidSelection(f"the pattern {pattern} matches no file")
    return matches


class VideoFolder:
    """Finds the file that a dataset's entry means: itself, or the one video whose name continues it with a suffix."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise InvalidSelection(f"the folder of videos, {root}, does not exist")
        self._root = root
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def find(self, entry: str) -> VideoFile:
        """A file that is missing keeps the entry's own path, so that opening it says so."""
        path = self._root / entry
        if path.is_file():
            return VideoFile(entry, str(path))
        candidates = self._siblings(path.parent).get(path.name, [])
        if len(candidates) > 1:
            names = ", ".join(candidate.name for candidate in candidates)
            return VideoFile(entry, str(path), problem=f"{entry} is more than one file: {names}")
        return VideoFile(entry, str(candidates[0] if candidates else path))

    def has(self, entry: str) -> bool:
        return (self._root / entry).is_file() or bool(self._siblings((self._root / entry).parent).get(Path(entry).name))

    def _siblings(self, folder: Path) -> dict[str, list[Path]]:
        """Videos of a folder by name without suffix; each folder is listed once."""
        if folder not in self._listed:
            self._listed[folder] = _by_stem(folder)
        return self._listed[folder]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    names: dict[str, list[Path]] = {}
    entries: Iterable[Path] = folder.iterdir() if folder.is_dir() else ()
    for entry in sorted(entries):
        if _is_video(entry):
            names.setdefault(entry.stem, []).append(entry)
    return names
