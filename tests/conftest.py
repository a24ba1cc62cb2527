"""What every test shares: the policy on skips, the shared corpus, small synthesised videos.

With REQUIRE_ALL=1 a skip is a failure, whatever its reason: nothing that a machine is expected to run is passed over in
silence. REQUIRE_ALL may also name what is required, comma-separated: any of the markers `e2e`, `corpus`, `browser`,
`ray`, `gpu`; then only their skips are failures. A machine without a GPU is never required to have one by `1`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.videos import PLANS, make_video

# The recipe's clips take gigabytes: without huge pages a third of its time is the kernel's, handing out small ones.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
CORPUS = REPOSITORY.parent / "shared" / "corpus"

_OPTIONAL_HARDWARE = {"gpu"}

# A busy machine is no defect of the code: nothing here is timed.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report: pytest.TestReport = yield
    if report.skipped and not hasattr(report, "wasxfail") and _is_required(item):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped but is required (REQUIRE_ALL): {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole module that skips itself (pytest.importorskip) has no markers yet: REQUIRE_ALL=1 alone forbids it."""
    report: pytest.CollectReport = yield
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped but is required (REQUIRE_ALL): {reason}"
    return report


def _is_required(item: pytest.Item) -> bool:
    wanted = os.environ.get("REQUIRE_ALL", "")
    markers = {marker.name for marker in item.iter_markers()}
    if wanted in ("", "0"):
        return False
    if wanted == "1":
        return not markers & _OPTIONAL_HARDWARE
    return bool(markers & set(wanted.split(",")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that asks for a fixture that starts a server, or for the corpus, gets that marker without saying so."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "corpus" in fixtures:
            item.add_marker(pytest.mark.corpus)
        if "server" in fixtures:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The shared corpus's folder; skips where it is not there."""
    if not (CORPUS / "manifest.json").is_file():
        pytest.skip("the shared video corpus is not on this machine")
    return CORPUS


@cache
def _video(name: str) -> bytes:
    return make_video(PLANS[name])


@pytest.fixture(scope="session")
def indexed_video() -> Callable[[str], bytes]:
    """`indexed_video("h264")`: two seconds of frames that carry their index; names in tests.support.videos.PLANS."""
    return _video


@pytest.fixture(scope="session")
def h264_video() -> bytes:
    """60 frames at 30 frames per second, 320 x 240, H.264 with B-frames, mp4."""
    return _video("h264")


def pytest_report_header() -> list[str]:
    lines: list[Any] = [f"REQUIRE_ALL={os.environ.get('REQUIRE_ALL', '')!r}", f"corpus: {CORPUS.is_dir()}"]
    return [str(line) for line in lines]
