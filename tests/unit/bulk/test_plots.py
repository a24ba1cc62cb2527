"""The pictures of a result: what is written in them, also with 400 classes, and the same bytes again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from bulk.class_rows import class_rows
from bulk.confused import most_confused
from bulk.metrics import confusion_matrix
from bulk.plots import PictureFormat, write_plots
from bulk.samples import samples_of

pytest.importorskip("matplotlib")


def result(classes: int, samples: int = 4, *, several_labels: bool = False) -> dict[str, Any]:
    """Every even class is taken for the next one in one of its samples."""
    labels = [f"class {index} of many" for index in range(classes)]
    records = []
    for label in range(classes):
        for number in range(samples):
            predicted = label + 1 if label % 2 == 0 and number == 0 and label + 1 < classes else label
            sample = {"predicted": predicted, "rank": int(predicted != label)}
            sample["scores"] = np.eye(classes)[predicted].tolist()
            truth = {"labels": [label]} if several_labels else {"label": label}
            records.append({"video": f"{label}-{number}", **truth, "samples": [sample]})
    found = samples_of(records, classes, several_labels=several_labels)
    counts = None if found.labels is None else confusion_matrix(found.labels, found.predicted, classes).tolist()
    return {
        "job": {"model": {"archive": {"name": "mine"}}, "options": {"views": "10x1"}},
        "labels": labels,
        "counts": {"scored": len(records)},
        "classes": class_rows(found, labels),
        "confusion": None if counts is None else {"counts": counts},
    }


def texts(path: Path) -> str:
    """Every word of an SVG, a line for each text."""
    root = ElementTree.fromstring(path.read_text())
    return "\n".join("".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text"))


def test_a_few_classes_are_all_there_with_numbers(tmp_path: Path) -> None:
    classes, confusion = write_plots(result(6), tmp_path / "r.json")
    assert (classes.name, confusion.name) == ("r.classes.svg", "r.confusion.svg")
    assert "mine, 10x1 views, 24 videos: 6 classes, mean 87.5 % (dashed)" in texts(classes)
    assert "class 5 of many (4)" in texts(classes)
    found = texts(confusion)
    assert "6 classes, percent of the true class" in found
    assert found.splitlines().count("25") == 3


def test_four_hundred_classes_can_be_read(tmp_path: Path) -> None:
    classes, confusion = write_plots(result(400), tmp_path / "r.json")
    named = re.findall(r"class \d+ of many \(4\)", texts(classes))
    assert len(set(named)) == 400
    found = texts(confusion)
    assert "the 30 most confused of 400 classes" in found
    assert "(other classes)" in found
    assert len(set(re.findall(r"class \d+ of many \(4\)", found))) == 30
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', classes.read_text())[:2]
    assert float(width) < 2000
    assert float(height) < 1500


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_plots(result(6), tmp_path / name / "r.json")
    for picture in ("r.classes.svg", "r.confusion.svg"):
        assert (tmp_path / "a" / picture).read_bytes() == (tmp_path / "b" / picture).read_bytes()


@pytest.mark.parametrize(("picture", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_other_formats(tmp_path: Path, picture: PictureFormat, start: bytes) -> None:
    for path in write_plots(result(6), tmp_path / "r.json", picture):
        assert path.suffix == f".{picture}"
        assert path.read_bytes().startswith(start)


def test_several_labels_have_average_precisions_and_no_confusion(tmp_path: Path) -> None:
    (classes,) = write_plots(result(6, several_labels=True), tmp_path / "r.json")
    assert "average precision, percent" in texts(classes)


def test_confused_classes_stand_together() -> None:
    counts = np.zeros((6, 6), dtype=np.int64)
    counts[0, 3], counts[3, 0], counts[5, 1], counts[1, 4], counts[2, 2] = 2, 3, 4, 1, 9
    assert most_confused(counts, 6) == [0, 3, 1, 5, 4]  # 0-3: 5 times; 1-5: 4; 1-4: 1; class 2 never
    assert most_confused(counts, 4) == [0, 3, 1, 5]
    assert most_confused(np.diag([1, 2]).astype(np.int64), 2) == []
