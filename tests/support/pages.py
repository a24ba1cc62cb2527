"""The pages that users read, and the commands on them: README.md, CONTRIBUTING.md, docs/*.md, clients/README.md.

A fenced block is run by a test, or has a comment in the line before it that says why not:

    <!-- not run: the page runs until it is stopped -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import REPOSITORY

ALL_PAGES = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "clients" / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
)

RUN_BY = {
    "README.md": "tests/e2e/test_page_commands.py",
    "docs/checkpoints.md": "tests/e2e/test_page_commands.py",
    "docs/evaluation.md": "tests/e2e/test_page_commands.py",
    "docs/operations.md": "tests/e2e/test_page_commands.py",
    "docs/clients.md": "tests/e2e/test_clients.py",
    "clients/README.md": "tests/e2e/test_clients.py",
    "docs/protocol.md": "tests/e2e/test_protocol_examples.py",
    "docs/your-own-model.md": "tests/e2e/test_camera_motion.py",
}
"""Which test runs the blocks of a page."""

_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>.*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page. `not_run` is the reason why no test runs it; None means that one does."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's blocks in these languages (all without any), in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        if not languages or match["language"] in languages:
            line = text.count("\n", 0, match.start("code"))
            found.append(Block(page, line, match["language"], match["code"], match["reason"]))
    return found


def run_blocks(page: Path, *languages: str) -> list[Block]:
    """Those that a test has to run."""
    return [block for block in blocks(page, *languages) if block.not_run is None]


def without_blocks(page: Path) -> str:
    """The page's text outside its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The names under which its headings can be linked, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
