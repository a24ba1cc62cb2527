"""What every test shares: the policy on what runs and what may be skipped, the shared corpus, small synthesised videos.

The policy is described in tests/support/policy.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import policy, workers
from tests.support.paths import CORPUS
from tests.support.videos import PLANS, make_video

# The recipe's clips take gigabytes: without huge pages a third of its time is the kernel's, handing out small ones.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# A busy machine is no defect of the code: nothing here is timed.
hypothesis.settings.register_profile(
    "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests too")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    workers.choose(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    return workers.scheduling(config, log)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """A worker process tells how many it has left out: only its reports get to the first process by themselves."""
    if items and isinstance(items[0], pytest.Item):
        output = getattr(items[0].config, "workeroutput", {})
        output["deselected"] = output.get("deselected", 0) + len(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    workers.count_deselected(node)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    workers.stop_orphans(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the time went. The tests of two processes are mixed in what is printed before."""
    seconds = workers.seconds_per_file(report for each in terminalreporter.stats.values() for report in each)
    slow = [f"{each:7.1f} {file}" for file, each in seconds.most_common() if each >= 1]
    if slow:
        terminalreporter.section("seconds per file")
        terminalreporter.write_line("\n".join(slow))


def pytest_report_header() -> list[str]:
    return [f"REQUIRE_ALL={os.environ.get('REQUIRE_ALL', '')!r}", *policy.folder_lines()]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that asks for a fixture that starts a server, or for the corpus, gets that marker without saying so."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "corpus" in fixtures:
            item.add_marker(pytest.mark.corpus)
        if "server" in fixtures:
            item.add_marker(pytest.mark.e2e)
    policy.deselect(config, items, policy.left_out(config, items))
    if hasattr(config, "workerinput"):
        workers.in_order(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report: pytest.TestReport = yield
    markers = (marker.name for marker in item.iter_markers())
    if report.skipped and not hasattr(report, "wasxfail") and policy.is_required(markers):
        policy.fail_skip(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole module that skips itself (pytest.importorskip) has no markers yet: REQUIRE_ALL=1 alone forbids it."""
    report: pytest.CollectReport = yield
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1":
        policy.fail_skip(report, collector.nodeid)
    return report


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
