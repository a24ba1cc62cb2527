"""Process 1 of the container, and the main process of the systemd unit: TorchServe in the foreground, with a drain.

    python -m deploy.supervise --models camera_motion.mar

TorchServe resets every request under way when it gets SIGTERM. This process takes the signal instead, waits until the
server has no connection or `--drain-sec` is over, and stops it then. While it waits, requests are still served: whoever
sends them (a Service, an edge) needs a moment to learn that this replica is leaving.

Exit status: 0 after SIGTERM or SIGINT, else TorchServe's own, or 1 where that ended by itself with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from deploy.connections import established
from deploy.readiness import Readiness
from serving.environment import Ports, serving_environment

DEFAULT_CONFIG = Path(__file__).parent / "config.properties"
CLASSES = Path(sys.prefix) / "torchserve.jsa"
"""Where `deploy.class_archive` leaves the classes of TorchServe's Java process."""
JAVA_OPTIONS = "JDK_JAVA_OPTIONS"  # read by the `java` command itself
DEFAULT_DRAIN_SEC = 90.0  # above a request's longest time, request_timeout_sec, which is 60 unless an archive says more
_QUIET_SEC = 1.0  # without a connection: HAProxy closes one and opens the next for each request
_STOP_SEC = 20.0
_POLL_SEC = 0.05
_PR_SET_CHILD_SUBREAPER = 36  # include/uapi/linux/prctl.h


class Supervisor:
    """One child, in a process group of its own, and whatever it leaves behind."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, ports: Sequence[int]) -> None:
        self._command, self._env, self._cwd = list(command), dict(env), cwd
        self._ports = frozenset(ports)
        self._asked_to_stop = False

    def run(self, *, drain_sec: float, quiet_sec: float = _QUIET_SEC) -> int:
        """Start the child, wait for its end or for a signal to stop; the exit status."""
        # Workers of a Java process that was killed, and their decoding processes, are then this process's to wait for.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        child = subprocess.Popen(self._command, env=self._env, cwd=self._cwd, start_new_session=True)
        status = None
        while status is None and not self._asked_to_stop:
            time.sleep(_POLL_SEC)
            status = _reap().get(child.pid)
        if status is not None:
            _say(f"TorchServe ended by itself with status {status}")
            _end_group(child.pid)
            return status or 1
        self._drain(drain_sec, quiet_sec)
        _end_group(child.pid)
        return 0

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_stop = True

    def _drain(self, drain_sec: float, quiet_sec: float) -> None:
        """Wait until there was no connection for `quiet_sec`, at most `drain_sec`."""
        now = time.monotonic()
        deadline, quiet_since = now + drain_sec, now
        _say(f"stopping: {established(self._ports)} connections, waiting up to {drain_sec:g} s for them")
        while (now := time.monotonic()) < deadline and now - quiet_since < quiet_sec:
            if established(self._ports):
                quiet_since = now
            _reap()
            time.sleep(_POLL_SEC)
        left = established(self._ports)
        _say(f"stopping TorchServe with {left} connections" + (": the time is over" if left else ""))


def _reap() -> dict[int, int]:
    """Exit statuses by process id of all children that have ended, adopted ones included."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


def children(pid: int) -> list[int]:
    """Process ids of what this process started and has not outlived."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            # The name in brackets may hold blanks; after it: state, parent (proc(5)).
            if folder.name.isdigit() and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
    return found


def _end_group(group: int) -> None:
    """SIGTERM to the Java process, and SIGKILL to what is left of the process group after `_STOP_SEC`.

    The Java process ends its workers itself; workers that end before it are started again, which holds up its end. The
    launcher waits for it, so what is signalled is the launcher's child.
    """
    for pid in children(group) or [group]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    for number, seconds in ((0, _STOP_SEC), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(group, number)
            while time.monotonic() < deadline:
                _reap()
                os.killpg(group, 0)
                time.sleep(_POLL_SEC)
        except ProcessLookupError:
            return


def _say(sentence: str) -> None:
    print(f"supervise: {sentence}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.supervise", description="Run TorchServe in the foreground and drain it on SIGTERM."
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["all"], metavar="FILE.mar", help="archives of the model store; default: all")
    add("--config", type=Path, default=DEFAULT_CONFIG, help="TorchServe's config.properties; default: the image's")
    add("--model-store", type=Path, default=Path("/models"), help="folder of archives; default: %(default)s")
    written = "the one folder that is written to: logs, sockets, unpacked archives; default: %(default)s"
    add("--directory", type=Path, default=Path("/serving"), help=written)
    drain = "longest wait for requests under way before TorchServe is stopped; default: %(default)g"
    add("--drain-sec", type=float, default=DEFAULT_DRAIN_SEC, help=drain)
    ready = "loopback port where GET /ready says whether every model answers, 0 for none; default: %(default)s"
    add("--ready-port", type=int, default=8083, help=ready)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    directory: Path = options.directory
    # A container that is started again finds its volume as the last one left it: a process id, an unpacked archive.
    shutil.rmtree(directory / ".serving", ignore_errors=True)
    env = serving_environment(directory, options.config.resolve()) | {"HOME": str(directory)}
    if CLASSES.is_file():
        env[JAVA_OPTIONS] = f"-XX:SharedArchiveFile={CLASSES}"
    # Java takes recorded classes only if the folders of its class path, of which this is one, are empty.
    folder = Path(env["TEMP"], "empty")
    folder.mkdir(exist_ok=True)
    ports = Ports.of_config(options.config)
    command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots",
               "--model-store", str(options.model_store.resolve()), "--models", *options.models]  # fmt: skip
    if options.ready_port:
        Readiness(ports).serve(options.ready_port)
    served = (ports.inference, ports.grpc_inference)
    return Supervisor(command, env=env, cwd=folder, ports=served).run(drain_sec=options.drain_sec)


if __name__ == "__main__":
    sys.exit(main())
