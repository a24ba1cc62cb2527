"""The files for one machine, held against the programs that read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.supervise import _STOP_SEC, DEFAULT_DRAIN_SEC
from tests.support.deployment import DEPLOY, program
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow
UNITS = sorted((DEPLOY / "machine").glob("*.service"))


def analyze(folder: Path, unit: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze on a copy whose programs are where this machine has some."""
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
    (folder / unit.name).write_text(re.sub(r"^WorkingDirectory=.*$", "", text, flags=re.MULTILINE))
    arguments = [program("systemd-analyze", "systemd"), *command, str(folder / unit.name)]
    return subprocess.run(arguments, capture_output=True, text=True)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    for other in UNITS:  # they name each other
        shutil.copy(other, tmp_path)
    done = analyze(tmp_path, unit, "verify")
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_unit_is_confined(unit: Path, tmp_path: Path) -> None:
    done = analyze(tmp_path, unit, "security", "--offline=yes")
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) < 3.0


def test_the_unit_has_time_to_drain() -> None:
    text = (DEPLOY / "machine" / "video-serving.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= DEFAULT_DRAIN_SEC + _STOP_SEC


def test_nginx_understands_the_edge(tmp_path: Path) -> None:
    nginx = program("nginx", "nginx-light")
    pem = REPOSITORY / "tests" / "support" / "loopback_tls.pem"
    site = re.sub(r"/etc/video-serving/tls\.\w+", str(pem), (DEPLOY / "machine" / "nginx.conf").read_text())
    (tmp_path / "site.conf").write_text(site)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {tmp_path}/site.conf; }}"
    )
    done = subprocess.run([nginx, "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr
