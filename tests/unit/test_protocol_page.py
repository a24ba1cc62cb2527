"""docs/protocol.md says what the code does: its tables are those of the option table, the limits and the errors."""

from __future__ import annotations

import re
from dataclasses import fields

import yaml

from handlers.config import HandlerConfig
from handlers.errors import REQUEST_ERRORS
from handlers.limits import Limits
from handlers.request.option_table import OPTIONS, OptionSpec
from serving.model_config import model_config
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "protocol.md").read_text()
_DECLARED = yaml.safe_load((REPOSITORY / "metrics.yaml").read_text())["model_metrics"]
METRICS = {metric["name"] for metrics in _DECLARED.values() for metric in metrics}
_BOUNDS = {"num_classes": "the number of classes", "max_windows": "the limit max_windows", "last_class": "the last"}


def _allowed(option: OptionSpec) -> str:
    if option.maximum_is is None:
        return option.allowed(option.maximum)
    return option.allowed(12345).replace("12345", _BOUNDS[option.maximum_is])


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table under that heading, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_the_options_are_the_tables() -> None:
    assert _rows("Options") == [
        [f"`{option.name}`", f"`{option.header}`", _allowed(option), option.default, option.help]
        for option in OPTIONS.values()
    ]


def test_the_limits_are_all_there_with_their_defaults() -> None:
    defaults = Limits()
    found = {cells[0].strip("`"): cells[1] for cells in _rows("Limits")}
    assert found == {field.name: str(getattr(defaults, field.name)) for field in fields(Limits)}


def test_the_errors_over_a_limit_exist() -> None:
    named = [
        (int(status), name)
        for status, name in re.findall(r"(\d+) `(\w+)`", " ".join(row[4] for row in _rows("Limits")))
    ]
    assert len(named) == len(fields(Limits)) - 1  # probe_bytes: whatever is found by then
    assert all(REQUEST_ERRORS[name].status == status for status, name in named)


def test_a_new_archive_has_the_same_sentence_beside_each_limit() -> None:
    text = model_config(
        name="m", spec="x3d_s", head="pytorchvideo", runtime="auto", precision="float32", light_workers=True
    )
    comments = dict(re.findall(r"^ +(\w+): *\S* +# (.*)$", text, re.MULTILINE))
    for name, _, unit, what, _ in _rows("Limits"):
        assert comments[name.strip("`")] == (what if unit == "count" else f"{unit}: {what}")
    for setting in fields(HandlerConfig):
        assert comments[setting.name] == setting.metadata["help"]


def test_the_errors_are_all_there_with_their_status() -> None:
    found = {cells[1].strip("`"): int(cells[0]) for cells in _rows("Errors")}
    assert found == {name: int(error.status) for name, error in REQUEST_ERRORS.items()}


def test_every_named_error_exists() -> None:
    named = set(re.findall(r"`((?:Invalid|Missing|Un|Empty|Video|Frame|Internal|Decode)[A-Z]?[a-z]*[A-Z]\w+)`", PAGE))
    assert named - METRICS - {"VideoTotalTime", "InvalidKeyException"} <= set(REQUEST_ERRORS)


def test_the_metrics_are_those_of_the_file() -> None:
    shown = {name for cells in _rows("Metrics") for name in re.findall(r"`(\w+)`", cells[0])}
    written = {name for name in METRICS if name.startswith("Video")}
    assert shown == {re.sub("_(bucket|sum|count)$", "", name) for name in written}
