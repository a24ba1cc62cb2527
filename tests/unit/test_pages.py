"""Commands on the pages: each is run by a test or says why not, and none uses a variable that the page does not set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.pages import ALL_PAGES, RUN_BY, Block, blocks, run_blocks, without_blocks
from tests.support.paths import REPOSITORY

SHELL_BLOCKS = [block for page in ALL_PAGES for block in blocks(page, "bash", "sh", "shell", "console", "zsh")]
_COMMAND = re.compile(
    r"^ {4}(?:[A-Z_]+=\S+ )*(?:(?:python|pip|curl|source|torchserve|export|git|docker) |\./|\.ci/)", re.MULTILINE
)
# What a shell has by itself.
_GIVEN = {"HOME", "PWD", "PATH", "USER"}


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def test_there_are_commands() -> None:
    assert len(SHELL_BLOCKS) > 25


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_commands_are_in_blocks_that_a_test_can_read(page: Path) -> None:
    assert _COMMAND.findall(without_blocks(page)) == [], "put commands into a ```bash block"
    assert {block.language for block in blocks(page)} <= {"bash", "python", "json", "text", "yaml", ""}


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_blocks_are_run_or_say_why_not(page: Path) -> None:
    name = name_of(page)
    if run_blocks(page, "bash", "python"):
        assert page.name in (REPOSITORY / RUN_BY[name]).read_text(), f"{RUN_BY[name]} does not name {page.name}"
    else:
        assert name not in RUN_BY
    for block in blocks(page):
        assert block.not_run is None or len(block.not_run.split()) >= 4, f"{block}: {block.not_run}"
    marks = re.findall(r"^<!-- not run", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(marks) == sum(block.not_run is not None for block in blocks(page)), "a mark without a block after it"


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_no_variable_is_undefined(block: Block) -> None:
    before = block.page.read_text(encoding="utf-8").splitlines()[: block.line]
    earlier = [other.code for other in SHELL_BLOCKS if other.page == block.page and other.line <= block.line]
    defined = set(re.findall(r"^\s*(?:export )?(\w+)=", "\n".join(earlier), re.MULTILINE)) | _GIVEN
    code = re.sub(r"'[^']*'", "", block.code)
    used = set(re.findall(r"\$\{?([A-Za-z_]\w*)", code))
    assert used <= defined
    if "$(key" in code:
        assert any("source scripts/env" in line for line in [*before, *block.code.splitlines()])
