"""What the tests of bulk runs share: a folder of small videos, running and killing the commands, reading their rows."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bulk.shards import JOURNAL, read_manifest, read_rows
from tests.support.paths import REPOSITORY
from tests.support.videos import VideoPlan, make_video

_DISTINCT = 24


def make_videos(folder: Path, count: int) -> list[Path]:
    """Short H.264 videos, at most 24 different ones: what differs are sizes and lengths, so scores do too."""
    folder.mkdir(parents=True)
    distinct = [
        make_video(VideoPlan(num_frames=12 + 3 * index, width=160 + 4 * index, height=120))
        for index in range(min(count, _DISTINCT))
    ]
    paths = [folder / f"v{index:03d}.mp4" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(distinct[index % _DISTINCT])
    return paths


def command(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", f"scripts.{name}", *map(str, arguments)]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(name: str, *arguments: str | Path, status: int = 0) -> Done:
    """What `python -m scripts.NAME ARGUMENTS` does, in this process, which has torch loaded already."""
    main = import_module(f"scripts.{name}").main
    handler = signal.getsignal(signal.SIGTERM)
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = main([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert code == status, f"{name} {arguments}\n{stdout.getvalue()}\n{stderr.getvalue()}"
    return Done(code, stdout.getvalue(), stderr.getvalue())


def run_apart(name: str, *arguments: str | Path, timeout_sec: float = 600) -> Done:
    """The same in a process of its own."""
    done = subprocess.run(
        command(name, *arguments), cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout_sec, check=False
    )
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return Done(done.returncode, done.stdout, done.stderr)


def run_and_kill(name: str, *arguments: str | Path, when: Callable[[], bool], timeout_sec: float = 300) -> None:
    """Starts the command and kills it with SIGKILL, its processes too, as soon as `when` holds."""
    process = subprocess.Popen(command(name, *arguments), cwd=REPOSITORY, start_new_session=True)
    try:
        wait_until(when, process, timeout_sec)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(when: Callable[[], bool], process: subprocess.Popen[Any], timeout_sec: float) -> None:
    deadline = time.monotonic() + timeout_sec
    while not when():
        assert process.poll() is None, f"the run ended ({process.returncode}) before it could be interrupted"
        assert time.monotonic() < deadline, "the run got nowhere"
        time.sleep(0.02)


def journal_lines(path: Path) -> int:
    """Finished batches so far; 0 when there is no journal yet."""
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def unfinished_rows(out: Path) -> int:
    return sum(line.count(b'"path":') for line in (out / JOURNAL).read_bytes().split(b"\n")) if out.exists() else 0


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows of a finished folder."""
    manifest = read_manifest(out)
    assert manifest["complete"]
    return [row for shard in manifest["shards"] for row in read_rows(out / shard["file"])]


def timeless(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows by path without what took how long."""
    kept = {row["path"]: {key: value for key, value in row.items() if not key.endswith("_ms")} for row in rows}
    assert len(kept) == len(rows), "a video has more than one row"
    return kept
