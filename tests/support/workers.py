"""The whole suite in two processes side by side; tests/conftest.py calls these from pytest's and pytest-xdist's hooks.

Half of the suite waits for other programs or uses one core. The tests of a file stay together and in order. So do all
files that share the session's server, whose models they share too, and those that open archives: each archive is
packaged once per process, which takes ten seconds.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

WORKERS = 2
"""With more of them, tests with deadlines of a second or two would fail on a busy machine."""

SHARED_SERVER = "the shared server"
ARCHIVES = "packaged archives"

# They run commands, or servers of their own, in a folder of their own. The longest is first.
_APART = (
    "tests/e2e/test_page_commands.py",
    "tests/e2e/test_benchmark_command.py",
    "tests/e2e/test_setup_commands.py",
    "tests/e2e/test_setup_server.py",
)


def choose(config: pytest.Config) -> None:
    """Two processes where the command line names no test and says nothing about -n; one where there is one core."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.pluginmanager.has_plugin("xdist"):
        return  # this is one of them, or was started by a test in one; or -p no:xdist
    options = config.option
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if options.numprocesses is None and whole and not options.usepdb and (os.cpu_count() or 1) >= WORKERS:
        options.numprocesses = WORKERS
    if options.numprocesses:
        # The workers have it in their environment, and so has all that they start.
        options.testrunuid = options.testrunuid or uuid.uuid4().hex
        # OpenMP's threads wait by spinning, which takes the core from the other process's.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.numprocesses and options.dist == "no":
        options.dist = "loadscope"
        options.loadscopereorder = False  # `in_order` has the long ones first


def stop_orphans(config: pytest.Config) -> None:
    """After Ctrl-C, or a worker that hung or crashed, its servers go on; pytest-xdist knows nothing of them."""
    run = getattr(config.option, "testrunuid", None)
    if run is None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("PYTEST_XDIST_TESTRUNUID") == run:
                process.kill()


def group(nodeid: str) -> str:
    """What runs in one process, in order: a file, or everything that shares a server or archives."""
    file = nodeid.partition("::")[0]
    if file.startswith("tests/archive/"):
        return ARCHIVES
    if file.startswith("tests/e2e/") and file not in _APART:
        return SHARED_SERVER
    return file


def in_order(items: list[pytest.Item]) -> None:
    """The longest groups first, so that both processes end at about the same time."""
    places = {name: place for place, name in enumerate((SHARED_SERVER, *_APART, ARCHIVES))}
    items.sort(key=lambda item: places.get(group(item.nodeid), len(places)))


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not checked
    """Hands out groups to whichever process is free."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)

    def remove_node(self, node: Any) -> str | None:
        """As its base, but the test in which a process ended is not given to the next one, which it would end too."""
        units: dict[str, dict[str, bool]] = self.assigned_work.pop(node)
        unfinished = [(unit, nodeid) for unit in units.values() for nodeid, done in unit.items() if not done]
        if not unfinished:
            return None
        unit, crashed = unfinished[0]
        unit[crashed] = True
        self.workqueue.update({scope: unit for scope, unit in units.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed


def scheduling(config: pytest.Config, log: Producer) -> GroupScheduling | None:
    """Unless another distribution was asked for."""
    return GroupScheduling(config, log) if config.option.dist == "loadscope" else None


def count_deselected(node: Any) -> None:
    """Into the closing line, as in one process; each worker has left out the same."""
    config: pytest.Config = node.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    count = getattr(node, "workeroutput", {}).get("deselected", 0)
    if reporter is not None and count and "deselected" not in reporter.stats:
        config.hook.pytest_deselected(items=[SimpleNamespace()] * count)  # all that is asked of them is how many


def seconds_per_file(reports: Iterable[object]) -> Counter[str]:
    """Setting up, calling and tearing down the tests of each file, by pytest's own clock."""
    seconds: Counter[str] = Counter()
    for report in reports:
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0]] += report.duration  # type: ignore[assignment]
    return seconds
