"""Generated tables of README and docs are those of the specs and of the recorded benchmark; links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from handlers.specs import SPECS
from scripts.readme import PAGES, model_table, rendered
from tests.support.pages import ALL_PAGES, anchors, without_blocks
from tests.support.paths import REPOSITORY


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_fresh(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert text == rendered(page, text), "run `python -m scripts.readme`"


@pytest.mark.parametrize("name", SPECS)
def test_every_model_has_a_row(name: str) -> None:
    assert f"| `{name}` |" in model_table()


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", without_blocks(page))
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_index_names_every_page() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    for page in ALL_PAGES:
        if page.parent.name == "docs" and page.name != "README.md":
            assert f"]({page.name})" in index, page.name


def test_tests_that_pages_name_exist() -> None:
    """`tests/FILE.py` and `tests/FILE.py::test_name`, wherever a page says so."""
    named = {match for page in ALL_PAGES for match in re.findall(r"`?(tests/[\w/]+\.py(?:::\w+)?)", page.read_text())}
    assert len(named) > 8
    for each in named:
        file, _, test = each.partition("::")
        assert (REPOSITORY / file).is_file(), each
        assert not test or f"def {test}(" in (REPOSITORY / file).read_text(), each
