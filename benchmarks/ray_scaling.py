"""How much faster bulk classification is with two Ray workers than with one: `python -m benchmarks.ray_scaling`.

Two nodes of one CPU each on this machine's loopback interface, 200 small videos of 3x3 views, the two sides in turn.
Only the steady state counts: from the first finished batches, when every model is loaded, to nine tenths of the videos.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.videos import VIDEOS, ensure_video
from bulk.shards import JOURNAL
from scripts._environment import REPOSITORY
from scripts.package import PackageOptions, package

VIDEOS_COUNT = 200
TARGET = 0.6
_NODE = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "node_ip_address": "127.0.0.1"}
_TIMEOUT_SEC = 900.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure two Ray workers against one on this machine.")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side runs, in turn (default 2)")
    parser.add_argument("--output", type=Path, help="also write the result as JSON")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        print("this machine has one core; two workers cannot be faster than one", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="scaling-") as name, two_nodes() as address:
        result = measure(Path(name), address, options.rounds)
    text = json.dumps(result, indent=2)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, address: str, rounds: int) -> dict[str, Any]:
    """Seconds per video of each run, their medians' ratio, and whether it meets the target."""
    archive = package(PackageOptions(spec="x3d_xs", weights="random", output=folder)).path
    videos = folder / "videos"
    videos.mkdir()
    source = ensure_video(VIDEOS["320x240"]).read_bytes()
    for index in range(VIDEOS_COUNT):
        (videos / f"{index:03d}.mp4").write_bytes(source)
    paces: dict[int, list[float]] = {1: [], 2: []}
    with tqdm(total=2 * rounds, unit="run") as bar:
        for attempt in range(rounds):
            for workers, pace in paces.items():
                pace.append(seconds_per_video(address, archive, videos, folder / f"{workers}-{attempt}", workers))
                bar.update()
    ratio = statistics.median(paces[2]) / statistics.median(paces[1])
    return {"seconds_per_video": paces, "ratio": ratio, "target": TARGET, "met": ratio <= TARGET}


def seconds_per_video(address: str, archive: Path, videos: Path, out: Path, workers: int) -> float:
    """One run of `scripts.classify` with that many workers, in its steady state."""
    arguments = ("--ray", address, "--workers", str(workers), "--views", "3x3", "--batch-size", "2")
    command = [sys.executable, "-W", "ignore", "-m", "scripts.classify", str(archive), str(videos), "--out", str(out)]
    process = subprocess.Popen([*command, *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    try:
        _wait(process, out, VIDEOS_COUNT // 10)
        first, started = _rows(out), time.perf_counter()
        _wait(process, out, VIDEOS_COUNT * 9 // 10)
        pace = (time.perf_counter() - started) / (_rows(out) - first)
        if process.wait(timeout=_TIMEOUT_SEC) != 0:
            raise SystemExit("scripts.classify failed; its message is above")
    finally:
        process.kill()
        process.wait()
    return pace


def _wait(process: subprocess.Popen[bytes], out: Path, rows: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_SEC
    while _rows(out) < rows:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"scripts.classify did not reach {rows} rows; its message is above")
        time.sleep(0.05)


def _rows(out: Path) -> int:
    """Rows that unfinished output holds by now."""
    journal = out / JOURNAL
    return journal.read_bytes().count(b'"path":') if journal.exists() else 0


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a Ray cluster that only this process knows."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # sockets: a short path
        # Where Ray notes the cluster's address, outside of `temp_dir`; it expects the folder to be there.
        os.environ["RAY_TMPDIR"] = folder
        Path(folder, "ray").mkdir()
        node = {**_NODE, "temp_dir": folder}
        cluster: Any = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            cluster.add_node(**node)
            yield str(cluster.address)
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    raise SystemExit(main())
