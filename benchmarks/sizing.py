"""What each spec takes of a machine: memory, start and cost per clip: `python -m benchmarks.sizing`.

Each is packaged with random weights, which cost what trained ones do, served by one worker of the default form, asked
for one clip of a small video again and again, and unregistered. Cost is time of cores, not of the clock: on a machine
that does other things as well it grows little, and divided by the cores it bounds how many clips a second they answer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from benchmarks.machine import ROOT, git_state, load_average, machine, versions
from benchmarks.memory import worker_processes
from benchmarks.result_file import InvalidResult
from benchmarks.timed_clients import connect
from benchmarks.videos import VIDEOS, ensure_video
from handlers.specs import SPECS, ModelSpec
from serving.server import Server, ServerError, TorchServe

RESULT = ROOT / "benchmarks" / "results" / "sizing.json"
VIDEO = "320x240"
_MB = 10**6
_WARM_REQUESTS = 2
_LEAST_REQUESTS, _MOST_REQUESTS = 3, 12
_ENOUGH_SEC = 20.0  # of requests, where the least have been made
_SETTINGS = ("minWorkers=1", "maxWorkers=1")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "specs", nargs="*", metavar="SPEC", help="which (default: all, the quick ones first; some take minutes each)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULT,
        help="the result as JSON, written after each spec; others that are in it stay (default: %(default)s). "
        "`python -m scripts.readme` writes the table of docs/performance.md from the default one",
    )
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.specs if name not in SPECS]:
        parser.error(f"unknown spec {unknown[0]!r}; known: {', '.join(SPECS)}")
    specs = [SPECS[name] for name in options.specs] or sorted(SPECS.values(), key=_expected_cost)
    try:
        result = read_sizing(options.output) if options.output.is_file() else {"specs": {}}
    except InvalidResult as error:
        parser.error(str(error))
    video = ensure_video(VIDEOS[VIDEO]).read_bytes()
    failed = 0
    for spec in tqdm(specs, unit="spec", disable=options.no_progress or None):
        try:
            result["specs"][spec.name] = measure(spec, video)
        except (ServerError, RuntimeError) as error:
            failed += 1
            print(f"{spec.name}: {error}", file=sys.stderr)
            continue
        options.output.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(sizing_table(result))
    return 1 if failed else 0


def _expected_cost(spec: ModelSpec) -> float:
    return spec.published.flops_g or 2 * spec.published.params_m


def measure(spec: ModelSpec, video: bytes) -> dict[str, Any]:
    """One spec's row, with what it was measured on. Raises ServerError, and RuntimeError where packaging fails."""
    # A short path: worker sockets live below the server's folder.
    with tempfile.TemporaryDirectory(prefix="sizing-") as folder:
        archive = _packaged(spec, Path(folder))
        with TorchServe(Path(folder)) as server:
            started = time.perf_counter()
            server.register(archive.name, name=spec.name)
            ready_sec = time.perf_counter() - started
            row: dict[str, Any] = {
                "archive_mb": round(archive.stat().st_size / _MB, 1),
                "ready_sec": round(ready_sec, 2),
                "ready_core_sec": round(core_seconds(worker_processes(server, spec.name)), 2),
            }
            row |= _asked(server, spec.name, video)
    return {**row, "machine": machine(), "versions": versions(), "git": git_state(), "load_average": load_average()}


def _packaged(spec: ModelSpec, folder: Path) -> Path:
    """In a process of its own: converting a large model leaves gigabytes with the allocator."""
    command = [sys.executable, "-W", "ignore", "-m", "scripts.package", spec.name, "--weights", "random"]
    settings = [part for setting in _SETTINGS for part in ("--set", setting)]
    done = subprocess.run(
        [*command, *settings, "--output", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"packaging failed: {done.stderr.strip().splitlines()[-1]}")
    return folder / f"{spec.name}.mar"


def _asked(server: Server, model: str, video: bytes) -> dict[str, Any]:
    """Cost of a clip, and memory after all of them."""
    with closing(connect(server, "http")) as client:
        for _ in range(_WARM_REQUESTS):
            _ask(client, model, video)
        processes = worker_processes(server, model)
        times: list[float] = []
        before, until = core_seconds(processes), time.perf_counter() + _ENOUGH_SEC
        while len(times) < _MOST_REQUESTS and (len(times) < _LEAST_REQUESTS or time.perf_counter() < until):
            times.append(_ask(client, model, video))
        spent = core_seconds(processes) - before
    times.sort()
    return {
        "requests": len(times),
        "clip_core_sec": round(spent / len(times), 3),
        "clip_median_ms": round(times[len(times) // 2], 1),
        **memory(processes),
    }


def _ask(client: Any, model: str, video: bytes) -> float:
    reply = client.ask(model, video)
    if reply.error is not None:
        raise RuntimeError(f"a request failed: {reply.error}")
    return float(reply.milliseconds)


def core_seconds(processes: Sequence[psutil.Process]) -> float:
    """Seconds of cores that the processes have used, those of their ended children left out."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            used = process.cpu_times()
            total += used.user + used.system
    return total


def memory(processes: Sequence[psutil.Process]) -> dict[str, float]:
    """Megabytes of 10^6 bytes of a worker, the first of these, and its decoding processes: `first_worker_mb` with the
    libraries, `further_worker_mb` without what another worker would share."""
    worker, *others = (process.memory_full_info() for process in processes)
    own = sum(each.uss for each in others)
    return {
        "first_worker_mb": round((worker.rss + own) / _MB),
        "further_worker_mb": round((worker.uss + own) / _MB),
    }


def read_sizing(path: Path) -> dict[str, Any]:
    """A result file of this command; raises InvalidResult for another one."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidResult(f"{path} is not JSON: {error}") from error
    if not isinstance(result, dict) or not isinstance(result.get("specs"), dict):
        raise InvalidResult(f"{path} is not a result of benchmarks.sizing")
    return result


def sizing_table(result: Mapping[str, Any]) -> str:
    """A Markdown row for every spec that was measured, cheapest first, and a line that says on what and what is not."""
    head = "| model | archive | first worker | each further one | ready after | of which cores work | a clip |"
    if not result["specs"]:
        return "Nothing has been measured yet."
    rows = [
        f"| `{name}` | {row['archive_mb']:.0f} MB | {row['first_worker_mb']} MB | {row['further_worker_mb']} MB "
        f"| {row['ready_sec']:.1f} s | {row['ready_core_sec']:.1f} core-s | {row['clip_core_sec']:.2f} core-s |"
        for name, row in sorted(result["specs"].items(), key=lambda item: item[1]["clip_core_sec"])
    ]
    conditions = _conditions(list(result["specs"].values())) + _missing(result["specs"])
    return "\n".join([head, "|---" * 7 + "|", *rows, "", conditions])


def _conditions(rows: Sequence[Mapping[str, Any]]) -> str:
    """Machines, libraries, and how busy the machine was meanwhile."""
    machines = sorted({f"{row['machine']['cpu']}, {row['machine']['cores']} cores" for row in rows})
    libraries = sorted({f"openvino {row['versions']['openvino']}, torch {row['versions']['torch']}" for row in rows})
    loads = [row["load_average"][0] for row in rows]
    return f"{'; '.join(machines)}; {'; '.join(libraries)}; load average {min(loads):.1f} to {max(loads):.1f}."


def _missing(names: Collection[str]) -> str:
    """Which specs nobody has measured yet."""
    missing = [f"`{name}`" for name in SPECS if name not in names]
    return f" Not measured: {', '.join(missing)}." if missing else ""


if __name__ == "__main__":
    raise SystemExit(main())
