"""How much faster bulk classification is with two Ray workers than with one: `python -m benchmarks.ray_scaling`.

Two nodes of one CPU each on this machine's loopback interface, small videos of 3x3 views, the two sides in turn. Only
the steady state counts: from the first finished batches, when every model is loaded, to nine tenths of the videos. On a
machine that others use, more rounds of fewer videos tell more than few long ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.ray_cluster import two_nodes
from benchmarks.videos import VIDEOS, ensure_video
from bulk.shards import JOURNAL
from serving.environment import REPOSITORY
from serving.package import PackageOptions, package

TARGET = 0.6
_TIMEOUT_SEC = 900.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure two Ray workers against one on this machine.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs, in turn (default 3)")
    parser.add_argument("--videos", type=int, default=200, help="videos of each run (default 200)")
    parser.add_argument("--output", type=Path, help="also write the result as JSON")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        print("this machine has one core; two workers cannot be faster than one", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="scaling-") as name, two_nodes() as cluster:
        result = measure(Path(name), cluster.address, options.rounds, options.videos)
    text = json.dumps(result, indent=2)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, address: str, rounds: int, count: int) -> dict[str, Any]:
    """Seconds per video and of the whole command in each run, and whether the medians' ratio meets the target."""
    archive = package(PackageOptions(spec="x3d_xs", weights="random", output=folder)).path
    videos = folder / "videos"
    videos.mkdir()
    source = ensure_video(VIDEOS["320x240"]).read_bytes()
    for index in range(count):
        (videos / f"{index:03d}.mp4").write_bytes(source)
    runs: dict[int, list[Run]] = {1: [], 2: []}
    with tqdm(total=2 * rounds, unit="run") as bar:
        for attempt in range(rounds):
            for workers, done in runs.items():
                done.append(classify(address, archive, videos, folder / f"{workers}-{attempt}", workers, count))
                bar.update()
    pace = {workers: statistics.median(run.seconds_per_video for run in done) for workers, done in runs.items()}
    whole = {workers: statistics.median(run.whole_command_sec for run in done) for workers, done in runs.items()}
    ratio = pace[2] / pace[1]
    return {
        "workers": {workers: [asdict(run) for run in done] for workers, done in runs.items()},
        "ratio": ratio,
        "ratio_of_whole_commands": whole[2] / whole[1],
        "target": TARGET,
        "met": ratio <= TARGET,
    }


@dataclass(frozen=True, slots=True)
class Run:
    """One run of `scripts.classify`: its steady state, and all of it, from starting actors to writing the result."""

    seconds_per_video: float
    whole_command_sec: float


def classify(address: str, archive: Path, videos: Path, out: Path, workers: int, count: int) -> Run:
    """`scripts.classify` with that many workers."""
    arguments = ("--ray", address, "--workers", str(workers), "--views", "3x3", "--batch-size", "2")
    command = [sys.executable, "-W", "ignore", "-m", "scripts.classify", str(archive), str(videos), "--out", str(out)]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    try:
        readings = list(_readings(process, out, begun))
        if process.wait() != 0:
            raise SystemExit("scripts.classify failed; its message is above")
        return Run(seconds_per_video(readings, count), time.perf_counter() - begun)
    finally:
        process.kill()
        process.wait()


def _readings(process: subprocess.Popen[bytes], out: Path, begun: float) -> Iterator[tuple[float, int]]:
    """(seconds, rows) whenever there are more rows than before, until the command ends."""
    seen = 0
    while process.poll() is None:
        if time.perf_counter() - begun > _TIMEOUT_SEC:
            raise SystemExit(f"scripts.classify has {seen} rows after {_TIMEOUT_SEC:g} s")
        rows = _rows(out)
        if rows > seen:
            seen = rows
            yield time.perf_counter(), rows
        time.sleep(0.05)


def seconds_per_video(readings: Sequence[tuple[float, int]], count: int) -> float:
    """The pace between the readings nearest to a tenth and to nine tenths of the videos, from above and from below."""
    inside = [reading for reading in readings if count // 10 <= reading[1] <= count * 9 // 10]
    if len(inside) < 2:
        raise SystemExit(f"too few readings for a pace ({len(inside)}); ask for more videos than {count}")
    (began, first), (ended, last) = inside[0], inside[-1]
    return (ended - began) / (last - first)


def _rows(out: Path) -> int:
    """Rows that unfinished output holds by now; none before the first and after the last."""
    try:
        return (out / JOURNAL).read_bytes().count(b'"path":')
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
