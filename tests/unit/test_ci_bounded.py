"""`.ci/bounded.py`: a command with an end, stacks when it has none, and no process left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc and adopts them")

LEAVES_A_SERVER = """
import faulthandler, subprocess, sys, time
from pathlib import Path

def hangs():
    time.sleep(60)

faulthandler.enable()
server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
Path(sys.argv[1]).write_text(str(server.pid))
hangs() if sys.argv[2] == "hang" else sys.exit(int(sys.argv[2]))
"""


def bounded(*command: str, seconds: str = "30") -> subprocess.CompletedProcess[str]:
    """Its output is read to its end, which comes when the last process that holds it has ended."""
    script = str(REPOSITORY / ".ci" / "bounded.py")
    return subprocess.run(
        [sys.executable, script, seconds, *command], capture_output=True, text=True, check=False, timeout=25
    )


def server_is_gone(path: Path) -> bool:
    return not psutil.pid_exists(int(path.read_text()))


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_that_ends_gives_its_status_and_its_server_is_stopped(tmp_path: Path, status: int) -> None:
    done = bounded(sys.executable, "-c", LEAVES_A_SERVER, str(tmp_path / "pid"), str(status))
    assert (done.returncode, done.stderr) == (status, "")
    assert server_is_gone(tmp_path / "pid")


def test_a_command_that_hangs_is_stopped_with_its_stacks(tmp_path: Path) -> None:
    command = ["bash", "-c", '"$@"; echo the shell goes on', "-", sys.executable, "-c", LEAVES_A_SERVER]
    done = bounded(*command, str(tmp_path / "pid"), "hang", seconds="6")
    assert done.returncode == 124
    assert "has not ended after 6 s" in done.stderr
    assert "in hangs" in done.stderr
    assert server_is_gone(tmp_path / "pid")


def test_an_orphan_that_ends_is_no_zombie() -> None:
    """Tests ask whether a process is there; a zombie would be."""
    orphan = "sleep 0.3 > /dev/null & echo $!"
    done = bounded("bash", "-c", f"pid=$({orphan}); kill -0 $pid && sleep 1.5; ! kill -0 $pid 2>/dev/null")
    assert done.returncode == 0


def test_a_killed_command_is_no_success() -> None:
    assert bounded("bash", "-c", "kill -9 $$").returncode == 128 + 9


def test_a_command_is_needed() -> None:
    done = bounded(seconds="2")
    assert done.returncode == 2
    assert "SECONDS COMMAND" in done.stderr
