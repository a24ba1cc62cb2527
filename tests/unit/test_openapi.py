"""The OpenAPI description is fresh, consistent in itself, and agrees with the parser."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from handlers.errors import REQUEST_ERRORS, InvalidOption
from handlers.limits import Limits
from handlers.request.option_table import OPTIONS
from handlers.request.options import given_by_name, parse_options
from scripts.openapi import TARGET, document, main, option_schema, render


def test_the_file_is_fresh() -> None:
    assert TARGET.read_text() == render(), "run: python -m scripts.openapi"
    assert main(["--check"]) == 0


def test_a_stale_file_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: Any) -> None:
    monkeypatch.setattr("scripts.openapi.TARGET", tmp_path / "openapi.json")
    assert main(["--check"]) == 1
    assert "run: python -m scripts.openapi" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_every_reference_leads_somewhere() -> None:
    found = document()
    for reference in set(re.findall(r'"#/([^"]+)"', json.dumps(found))):
        target: Any = found
        for step in reference.split("/"):
            target = target[step]
        assert target


def test_every_error_and_option_is_there() -> None:
    found = document()
    statuses = {str(int(error.status)) for error in REQUEST_ERRORS.values()}
    for path in found["paths"].values():
        assert statuses | {"200"} == set(path["post"]["responses"])
    for option in OPTIONS.values():
        assert {option.name, option.header} <= set(found["components"]["parameters"])


def _accepted(name: str, value: object) -> bool:
    try:
        given, labels = given_by_name({name: value}, others=""), [f"label {number}" for number in range(400)]
        explained = labels if OPTIONS[name].explains else None
        parse_options(given, num_classes=400, limits=Limits(), explained=explained)
    except InvalidOption:
        return False
    return True


@pytest.mark.parametrize("name", OPTIONS)
def test_the_schema_and_the_parser_agree_at_the_bounds(name: str) -> None:
    schema = option_schema(OPTIONS[name])
    for choice in schema.get("enum", ()):
        assert _accepted(name, choice)
    if "enum" in schema:
        assert not _accepted(name, "other")
        assert not _accepted(name, 2)
    if "minimum" in schema:
        assert _accepted(name, schema["minimum"]) is not schema.get("exclusiveMinimum", False)
        assert not _accepted(name, schema["minimum"] - 1)
    if "maximum" in schema:
        assert _accepted(name, schema["maximum"])
        assert not _accepted(name, schema["maximum"] * 1.01)
    if schema["type"] == "boolean":
        assert _accepted(name, True)
        assert not _accepted(name, 2)
    if schema["type"] == "integer":
        assert not _accepted(name, 1.5)
