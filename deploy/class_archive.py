"""Records the classes of TorchServe's Java process, so that later starts map them instead of reading and checking them.

    python -m deploy.class_archive

Run once while the image is built. It writes the Java runtime's own archive of classes, which the wheel comes without,
and `torchserve.jsa` beside it with TorchServe's: its second start takes half of the processor time. Java checks an
archive against itself and its class path and leaves it aside where they differ, so a stale one costs time only.
Source: java(1) of JDK 21, -Xshare:dump, -XX:ArchiveClassesAtExit and -XX:SharedArchiveFile.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from deploy.supervise import CLASSES, DEFAULT_CONFIG, JAVA_OPTIONS, children
from serving.environment import Ports, serving_environment

_START_SEC = 120.0


def record(classes: Path, *, config: Path = DEFAULT_CONFIG) -> None:
    """Start TorchServe without a model, ask each port, and stop it. Raises OSError where nothing was recorded."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        env = serving_environment(directory, config)
        subprocess.run([Path(env["JAVA_HOME"], "bin", "java"), "-Xshare:dump", "-Xlog:disable"], check=True)
        empty = directory / "empty"
        empty.mkdir()
        command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--no-config-snapshots",
                   "--model-store", str(empty)]  # fmt: skip
        env[JAVA_OPTIONS] = f"-XX:ArchiveClassesAtExit={classes} -Xlog:cds=error -Xlog:cds+dynamic=error"
        launcher = subprocess.Popen(command, env=env, cwd=empty)
        try:
            _ask(Ports.of_config(config), launcher)
        finally:
            for java in children(launcher.pid):
                os.kill(java, signal.SIGTERM)
            launcher.wait()
    if not classes.is_file():
        raise OSError(f"Java recorded no classes in {classes}")


def _ask(ports: Ports, launcher: subprocess.Popen[bytes]) -> None:
    """What a start runs through: each port, once it answers."""
    deadline = time.monotonic() + _START_SEC
    for port, path in ((ports.inference, "/ping"), (ports.management, "/models"), (ports.metrics, "/metrics")):
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if launcher.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"TorchServe does not answer on port {port}")
            time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.class_archive", description="Record the Java classes that TorchServe's start loads."
    )
    parser.add_argument("--output", type=Path, default=CLASSES, help="the file; default: %(default)s")
    record(parser.parse_args(arguments).output.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
