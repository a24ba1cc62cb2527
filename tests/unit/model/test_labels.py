from __future__ import annotations

import json
from pathlib import Path

import pytest

from handlers.errors import InvalidLabels
from handlers.model.labels import check_label_count, index_to_name, read_labels

NAMES = ("waving", "clapping hands", "jumping")


def _write(folder: Path, text: str | bytes, name: str = "labels.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "waving\nclapping hands\njumping\n",
        "waving\nclapping hands\njumping",
        "waving \r\n clapping hands\r\njumping\r\n\r\n\n",
        'waving\n"clapping hands"\njumping\n',
        b"\xef\xbb\xbfwaving\nclapping hands\njumping\n",
        '{"0": "waving", "1": "clapping hands", "2": "jumping"}',
        '{"2": "jumping", "1": "clapping hands", "0": "waving"}',
        '{"waving": 0, "jumping": 2, "\\"clapping hands\\"": 1}',
        '["waving", "clapping hands", "jumping"]',
    ],
    ids=["lines", "no-newline", "crlf", "quoted", "bom", "id-to-name", "unordered", "name-to-id", "list"],
)
def test_every_form_of_label_file(tmp_path: Path, text: str | bytes) -> None:
    assert read_labels(_write(tmp_path, text)) == NAMES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.txt holds no labels"),
        ("\n\n", "labels.txt holds no labels"),
        ("{}", "labels.txt holds no labels"),
        ("a\n\nb\n", "the label of class 1 is blank"),
        ("a\nb\na\n", "1 labels are given more than once: 'a'"),
        ('a\n"a"\n', "1 labels are given more than once: 'a'"),
        ('{"0": "a", "0": "b"}', "class id 0 is given more than once"),
        ('{"a": 0, "b": 0}', "class id 0 is given more than once"),
        ('{"0": "a", "2": "b"}', "class id 1 is missing; 2 labels need ids 0 to 1"),
        ('{"1": "a", "2": "b"}', "class id 0 is missing"),
        ('{"a": -1, "b": 0}', "'-1' is not a class id"),
        ('{"zero": "a", "one": "b"}', "'zero' is not a class id"),
        ('{"0": ["n01440764", "tench"]}', "must map ids to names"),
        ('{"a": 0.5}', "must map ids to names"),
        ('{"a": true}', "must map ids to names"),
        ('["a", 1]', "must map ids to names"),
        ('{"0": "a"', "is not valid JSON"),
        (b"caf\xe9\n", r"is not UTF-8 text \(byte 3\)"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidLabels, match=message):
        read_labels(_write(tmp_path, text))


def test_json_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidLabels, match=r"labels.json is not valid JSON"):
        read_labels(_write(tmp_path, "waving\n", "labels.json"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidLabels, match=r"cannot read the label file none.txt: No such file"):
        read_labels(tmp_path / "none.txt")


def test_count_must_be_the_models() -> None:
    check_label_count(NAMES, 3, origin="labels.txt")
    with pytest.raises(InvalidLabels, match=r"labels.txt has 3 labels, but the model has 400 classes"):
        check_label_count(NAMES, 400, origin="labels.txt")
    with pytest.raises(InvalidLabels, match="is its first line, 'id,name', a header"):
        check_label_count(("id,name", *NAMES), 3, origin="labels.csv")


def test_index_to_name_reads_back(tmp_path: Path) -> None:
    labels = (*NAMES, "naïve café", "tai chi")
    path = _write(tmp_path, index_to_name(labels), "index_to_name.json")
    assert json.loads(path.read_text(encoding="utf-8"))["3"] == "naïve café"
    assert read_labels(path) == labels
