"""Labels of a list's entries -> ids of the model's classes: all ids or all names, one a video or several."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handlers.errors import SetupError


class InvalidAnnotations(SetupError):
    """The list of labelled videos is wrong, or can be read in more than one way."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list: what it says of a video, as text."""

    line: int
    video: str
    label: str


def only_label(entries: list[Entry], labels: Sequence[str], origin: str) -> tuple[dict[str, tuple[int, ...]], int]:
    """Each video with its label, and how many lines said the same again."""
    ids = _resolve_labels(entries, labels, origin)
    unique: dict[str, tuple[int, int]] = {}
    for entry, label in zip(entries, ids, strict=True):
        first_line, first_label = unique.setdefault(entry.video, (entry.line, label))
        if first_label != label:
            raise InvalidAnnotations(
                f"{origin}: {entry.video} is class {first_label} on line {first_line} "
                f"and class {label} on line {entry.line}"
            )
    return {video: (label,) for video, (_, label) in unique.items()}, len(entries) - len(unique)


def all_labels(entries: list[Entry], labels: Sequence[str], origin: str) -> tuple[dict[str, tuple[int, ...]], int]:
    """Each video with the labels of all its lines, in the order of their ids, and how many lines added none."""
    single = [
        Entry(entry.line, entry.video, label) for entry in entries for label in _split_labels(entry.label, labels)
    ]
    ids = iter(_resolve_labels(single, labels, origin))
    found: dict[str, set[int]] = {}
    repeated = 0
    for entry in entries:
        is_new = entry.video not in found
        known = found.setdefault(entry.video, set())
        named = {next(ids) for _ in _split_labels(entry.label, labels)}
        repeated += not is_new and named <= known
        known |= named
    return {video: tuple(sorted(each)) for video, each in found.items()}, repeated


def _split_labels(text: str, labels: Sequence[str]) -> list[str]:
    """`3|17` -> 3 and 17; a label whose own name holds a bar stays whole."""
    if text in labels:
        return [text]
    return [part.strip() for part in text.split("|") if part.strip()]


def is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _resolve_labels(entries: list[Entry], labels: Sequence[str], origin: str) -> list[int]:
    """Class ids; all entries must be ids or all of them names."""
    names = {name: index for index, name in enumerate(labels)}
    numbers = [entry for entry in entries if is_number(entry.label)]
    confusing = [entry for entry in numbers if names.get(entry.label, int(entry.label)) != int(entry.label)]
    if confusing:
        raise InvalidAnnotations(
            f"{origin}, line {confusing[0].line}: {confusing[0].label} is an id, and the name of class "
            f"{names[confusing[0].label]} too; rename the model's labels to make clear which is meant"
        )
    named = [entry for entry in entries if not is_number(entry.label) or entry.label in names]
    if len(numbers) == len(entries):
        return [_checked_id(entry, labels, origin) for entry in entries]
    if len(named) == len(entries):
        return [_id_of_name(entry, labels, names, origin) for entry in entries]
    first_name = next(entry for entry in entries if not is_number(entry.label))
    raise InvalidAnnotations(
        f"{origin}: labels are ids and names: {numbers[0].label!r} on line {numbers[0].line}, "
        f"{first_name.label!r} on line {first_name.line}"
    )


def _checked_id(entry: Entry, labels: Sequence[str], origin: str) -> int:
    if int(entry.label) >= len(labels):
        raise InvalidAnnotations(
            f"{origin}, line {entry.line}: label {entry.label}; the model's classes are 0 to {len(labels) - 1}"
        )
    return int(entry.label)


def _id_of_name(entry: Entry, labels: Sequence[str], names: Mapping[str, int], origin: str) -> int:
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
