"""docs/architecture.md and docs/glossary.md name what is there: packages, messages of the decoding process, terms."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from handlers.decode.messages import FromProcess, ToProcess
from tests.support.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")


def test_the_messages_are_those_of_the_code() -> None:
    section = PAGE.partition("## Decoding processes")[2]
    table = re.findall(r"^\| (?:to the process|from the process)? *\| `(\w+)` \|", section, re.MULTILINE)
    assert table == [message.__name__ for message in (*get_args(ToProcess), *get_args(FromProcess))]


def test_every_package_of_handlers_has_a_row() -> None:
    packages = {path.parent.name for path in (REPOSITORY / "handlers").glob("*/__init__.py")}
    assert packages == set(re.findall(r"^\| `(\w+)/` \|", PAGE, re.MULTILINE))


def test_every_module_that_is_named_exists() -> None:
    """`packet_plan` and `request/budgets.py` alike, in handlers or beside it."""
    known = {path.stem for path in (REPOSITORY / "handlers").rglob("*.py")}
    named = {name for text in re.findall(r"\(`([^)]*)`\)", PAGE) for name in re.findall(r"(\w+)(?:\.py)?(?:`|$)", text)}
    assert named
    assert {name for name in named if not name.isupper()} - {"py"} <= known


@pytest.mark.parametrize(
    "term", ["Window", "Clip", "View", "Crop", "Pathway", "Slot", "Plan fallback", "Recipe", "Spec"]
)
def test_the_glossary_has_the_terms_of_the_code(term: str) -> None:
    assert f"**{term}.**" in GLOSSARY
