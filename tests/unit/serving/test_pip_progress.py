"""What a user sees of pip: one line of progress, and the end of its log when it fails."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from serving.install import REQUIREMENTS, expected_packages
from serving.pip_progress import PipFailed, Progress, run_pip

LINES = [
    "Looking in indexes: somewhere\n",
    "Collecting torch==2.14.1 (from -r base.txt)\n",
    "  Downloading torch-2.14.1-cp311.whl (900.0 MB)\n",
    "Requirement already satisfied: numpy in here\n",
    "Installing collected packages: torch, numpy\n",
    "Successfully installed torch-2.14.1\n",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end() -> None:
    out = Terminal()
    Progress(4, out).follow(LINES)
    steps = out.getvalue().split("\r\033[K")
    assert "1/4 torch" in steps[1]
    assert "2/4 numpy" in steps[2]
    assert "2/4 writing 2 packages" in steps[3]
    assert steps[-1] == ""
    assert "\n" not in out.getvalue()


def test_elsewhere_there_are_few_lines() -> None:
    out = io.StringIO()
    Progress(300, out).follow([f"Collecting package{number}\n" for number in range(300)] + LINES[-2:])
    assert len(out.getvalue().splitlines()) == 2
    assert "300 of about 300 packages: writing 2 packages" in out.getvalue()


def test_more_packages_than_expected_do_not_pass_the_end() -> None:
    out = Terminal()
    Progress(1, out).follow(LINES)
    assert "2/2 numpy" in out.getvalue()


def test_the_log_is_kept_and_its_end_is_shown_on_failure(tmp_path: Path) -> None:
    log = tmp_path / "install.log"
    code = "import sys; print('Collecting x'); print('no such version', file=sys.stderr); sys.exit(3)"
    with pytest.raises(PipFailed, match=r"(?s)no such version.*exit status 3.*install\.log"):
        run_pip([sys.executable, "-c", code], {}, packages=1, log=log)
    assert "Collecting x" in log.read_text()
    run_pip([sys.executable, "-c", "print('Collecting y')"], {}, packages=1, log=log)
    assert log.read_text().endswith("Collecting y\n")


def test_the_pins_are_counted() -> None:
    base = expected_packages(REQUIREMENTS / "base.txt")
    assert 40 < base <= expected_packages(REQUIREMENTS / "dev.txt")
