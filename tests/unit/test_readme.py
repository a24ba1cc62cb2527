"""The README's tables are those of the specs and of the recorded benchmark; its links lead somewhere."""

from __future__ import annotations

import re

import pytest

from handlers.specs import SPECS
from scripts.readme import README, model_table, rendered


def test_the_tables_are_fresh() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == rendered(text), "run `python -m scripts.readme`"


@pytest.mark.parametrize("name", SPECS)
def test_every_model_has_a_row(name: str) -> None:
    assert f"| `{name}` |" in model_table()


def test_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert len(links) > 8
    missing = [link for link in links if "://" not in link and not (README.parent / link).exists()]
    assert missing == []
