"""Any bytes as the start of a file, as a packet, as a table of packets: the properties of tests.support.harnesses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from handlers.video import h264
from handlers.video.codecs import FORMATS, WIDE
from handlers.video.packet_plan import PacketTable
from tests.support.harnesses import HARNESSES
from tests.support.paths import REPOSITORY
from tests.support.run_harness import with_mutants

FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))


@pytest.mark.parametrize("name", HARNESSES)
def test_mutants_of_the_seeds(name: str) -> None:
    assert with_mutants(HARNESSES[name], 0.0, at_least=500) == 500


def _all_but_the_last(table: PacketTable, wanted: set[int], *, trust_keys: bool) -> list[range]:
    del wanted, trust_keys
    return [range(max(len(table.pts) - 1, 0))]


def _break_plan(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PacketTable, "intervals", _all_but_the_last)


def _break_nal_units(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(h264, "_OF_ONE_PICTURE", h264._OF_ONE_PICTURE | {7})  # a sequence parameter set


def _break_containers(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(FORMATS, "unconfined", replace(FORMATS["unconfined"], demuxers=WIDE.demuxers))


@pytest.mark.parametrize(
    ("name", "break_it"),
    [("plan", _break_plan), ("nal_units", _break_nal_units), ("containers", _break_containers)],
)
def test_a_defect_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        with_mutants(HARNESSES[name], 0.0, at_least=5000)


@pytest.mark.slow
@pytest.mark.parametrize("name", HARNESSES)
def test_for_long(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With atheris where it is installed, in a process of its own, which it needs."""
    command = [sys.executable, "-m", "tests.support.run_harness", name, "--seconds", str(FUZZ_SECONDS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with capsys.disabled():
        print(
            name, *(line for line in (done.stdout + done.stderr).splitlines() if "mutants" in line or "Done " in line)
        )
