"""Which tests run, and which of them may be skipped. tests/conftest.py calls these from pytest's hooks.

`slow` marks what takes minutes: long fuzzing, endurance, Ray, whole benchmark runs, the recipe on every file. Such a
test is left out, unless `--all` is given, an `-m` expression chooses the tests, or the command line names its file.

With REQUIRE_ALL=1 a skip is a failure, so nothing that a machine is expected to run is passed over in silence.
Excepted are what needs a GPU, and what needs a folder beside the repository, where that folder is missing.
REQUIRE_ALL may also name markers, comma-separated: then the skips of these alone are failures, without exceptions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tests.support import paths


def left_out(config: pytest.Config, items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The slow ones among the collected tests, where nothing asks for them."""
    if config.getoption("--all") or config.option.markexpr:
        return []
    files = _named_files(config)
    return [item for item in items if item.get_closest_marker("slow") and item.path not in files]


def _named_files(config: pytest.Config) -> set[Path]:
    """The files that the command line names, whole or by one of their tests."""
    named = (config.invocation_params.dir / argument.split("::")[0] for argument in config.args)
    return {path.resolve() for path in named if path.is_file()}


def is_required(markers: Iterable[str]) -> bool:
    """Whether a test with these markers has to run, by REQUIRE_ALL."""
    found = set(markers)
    wanted = os.environ.get("REQUIRE_ALL", "")
    if wanted in ("", "0"):
        return False
    if wanted == "1":
        return not found & {"gpu", *missing_folders()}
    return bool(found & set(wanted.split(",")))


def missing_folders() -> list[str]:
    """The markers of the tests that need a folder which is not beside the repository."""
    return [marker for marker, folder in _folders().items() if not folder.exists()]


def folder_lines() -> list[str]:
    """One line for each of these folders: whether it is there, and what that means for its tests."""
    missing = missing_folders()
    return [
        f"{marker}: {folder} is missing, its tests may be skipped"
        if marker in missing
        else f"{marker}: {folder} is there, with REQUIRE_ALL=1 none of its tests may be skipped"
        for marker, folder in _folders().items()
    ]


def _folders() -> dict[str, Path]:
    return {"corpus": paths.CORPUS, "dialects": paths.DIALECTS}


def fail_skip(report: pytest.TestReport | pytest.CollectReport, what: str) -> None:
    """Turn the report of a skip into one of a failure that repeats its reason."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{what} was skipped but is required (REQUIRE_ALL): {reason}"


def deselect(config: pytest.Config, items: list[pytest.Item], chosen: Sequence[pytest.Item]) -> None:
    """Take `chosen` out of `items` as pytest does for -k and -m: they count as deselected, not as skipped."""
    if chosen:
        config.hook.pytest_deselected(items=chosen)
        gone = set(chosen)
        items[:] = [item for item in items if item not in gone]
