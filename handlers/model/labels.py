"""Label files -> tuple of class names in id order; counts, duplicates, blanks and stray quotes checked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from handlers.errors import InvalidLabels

_SHOWN = 5


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names by id from a file of one name a line, or of JSON: id -> name, name -> id, or a list of names.

    Blank lines at the end are no labels; anywhere else they are refused, as are duplicates and ids that are not
    0 to n - 1. A pair of double quotes around a name is dropped: Kinetics' own file has them on every name of more
    than one word. Raises InvalidLabels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidLabels(f"cannot read the label file {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidLabels(f"the label file {path.name} is not UTF-8 text (byte {error.start})") from error
    if path.suffix == ".json" or text.lstrip().startswith(("{", "[")):
        names = _from_json(text, path.name)
    else:
        names = text.rstrip().splitlines()
    return checked_labels(names, origin=path.name)


def checked_labels(names: list[str] | tuple[str, ...], *, origin: str) -> tuple[str, ...]:
    """The names without stray quotes; raises InvalidLabels when there is none, a blank one or one given twice."""
    labels = tuple(_clean(name) for name in names)
    if not labels:
        raise InvalidLabels(f"{origin} holds no labels")
    blank = [index for index, label in enumerate(labels) if not label]
    if blank:
        raise InvalidLabels(f"{origin}: the label of class {blank[0]} is blank ({len(blank)} blank labels)")
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        shown = ", ".join(repr(label) for label in twice[:_SHOWN])
        raise InvalidLabels(f"{origin}: {len(twice)} labels are given more than once: {shown}")
    return labels


def check_label_count(labels: tuple[str, ...], num_classes: int, *, origin: str) -> None:
    """Raises InvalidLabels unless there is exactly one label per class."""
    if len(labels) != num_classes:
        header = f"; is its first line, {labels[0]!r}, a header?" if len(labels) == num_classes + 1 else ""
        raise InvalidLabels(f"{origin} has {len(labels)} labels, but the model has {num_classes} classes{header}")


def index_to_name(labels: tuple[str, ...]) -> str:
    """The text of an archive's index_to_name.json: {"0": name, ...}, TorchServe's own layout."""
    return json.dumps({str(index): label for index, label in enumerate(labels)}, indent=1, ensure_ascii=False) + "\n"


def _clean(name: str) -> str:
    name = name.strip()
    if len(name) >= 2 and name[0] == name[-1] == '"':
        name = name[1:-1].strip()
    return name


def _from_json(text: str, origin: str) -> list[str]:
    try:
        parsed = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise InvalidLabels(f"{origin} is not valid JSON: {error}") from error
    if text.lstrip().startswith("{"):
        return _by_id(parsed, origin)
    if isinstance(parsed, list) and all(isinstance(name, str) for name in parsed):
        return parsed
    raise InvalidLabels(f"{origin} must map ids to names or names to ids, or list names")


def _by_id(pairs: list[tuple[str, Any]], origin: str) -> list[str]:
    """Pairs of a JSON object, duplicates kept, as names in id order; the values' type says which part is the id."""
    if all(isinstance(value, str) for _, value in pairs):
        numbered = [(key, value) for key, value in pairs]
    elif all(isinstance(value, int) and not isinstance(value, bool) for _, value in pairs):
        numbered = [(str(value), key) for key, value in pairs]
    else:
        odd = next(value for _, value in pairs if not isinstance(value, str))
        raise InvalidLabels(f"{origin} must map ids to names (text) or names to ids (whole numbers), got {odd!r}")
    names: dict[int, str] = {}
    for number, name in numbered:
        if not (number.isascii() and number.isdigit()):
            raise InvalidLabels(f"{origin}: {number!r} is not a class id; ids are 0 to {len(pairs) - 1}")
        if int(number) in names:
            raise InvalidLabels(f"{origin}: class id {number} is given more than once")
        names[int(number)] = name
    missing = [index for index in range(len(names)) if index not in names]
    if missing:
        raise InvalidLabels(
            f"{origin}: class id {missing[0]} is missing; {len(names)} labels need ids 0 to {len(names) - 1}"
        )
    return [names[index] for index in range(len(names))]
