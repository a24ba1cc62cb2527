"""What a quick request waits for beside others: `python -m benchmarks.beside_others`.

One client asks for one view of a small video, again and again, alone and beside quick ones, long ones, one giant and an
upload of 100 MB. Two forms of the same model are loaded in one TorchServe and take turns: the one that packaging gives
(several workers, one request each), and one worker that batches.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from benchmarks.machine import machine
from benchmarks.samples import summarise
from benchmarks.timed_clients import connect
from benchmarks.videos import VIDEOS, ensure_video
from serving.package import PackageOptions, package
from serving.server import Server, TorchServe

SEVERAL, ONE = "several", "one"
ONE_WORKER = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8}
LONG = {"num_clips": "30", "num_crops": "3"}
GIANT = {"num_clips": "4096", "num_crops": "3"}
_UPLOAD_BYTES = 100 * 10**6
_SETTLE_SEC = 1.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Who else asks, all the time: so many quick clients, and so many with these options and so many bytes more."""

    quick: int = 0
    others: int = 0
    options: Mapping[str, str] | None = None
    padding: int = 0
    forms: Sequence[str] = (SEVERAL, ONE)


SCENES: Mapping[str, Scene] = {
    "alone": Scene(),
    "among 2 quick": Scene(quick=1),
    "among 4 quick": Scene(quick=3),
    "among 8 quick": Scene(quick=7),
    "beside 1 of 90 views": Scene(others=1, options=LONG),
    "beside 3 of 90 views": Scene(others=3, options=LONG),
    "beside 7 of 90 views": Scene(others=7, options=LONG),
    # One worker that batches answers nobody for a minute then, so there is nothing to measure.
    "beside 1 of 12,288 views": Scene(others=1, options=GIANT, forms=(SEVERAL,)),
    "beside uploads of 100 MB": Scene(others=1, padding=_UPLOAD_BYTES),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="x3d_s", help="the spec, with random weights (default x3d_s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each form meets each scene (default 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds of each (default 6)")
    parser.add_argument("--scene", action="append", choices=list(SCENES), help="only this one; may be repeated")
    parser.add_argument("--output", type=Path, help="also write the result as JSON")
    options = parser.parse_args(arguments)
    video = ensure_video(VIDEOS["320x240"]).read_bytes()
    with tempfile.TemporaryDirectory(prefix="beside-") as name:
        result = measure(Path(name), options.model, video, options.scene or list(SCENES), options)
    print(table(result))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(
    store: Path, model: str, video: bytes, scenes: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds of the quick client's requests by scene and form; start-up and memory of each form."""
    result: dict[str, Any] = {"machine": machine(), "model": model, "forms": {}, "scenes": {}}
    with TorchServe(store) as server:
        for form, settings in ((SEVERAL, {}), (ONE, ONE_WORKER)):
            archive = package(PackageOptions(spec=model, weights="random", name=form, output=store, settings=settings))
            started = time.perf_counter()
            with server.client() as client:
                client.register(archive.path.name)
            ready_sec = time.perf_counter() - started
            pids = server.worker_pids(form)
            result["forms"][form] = {"workers": len(pids), "ready_sec": ready_sec, "memory_mb": memory_mb(pids)}
            result["forms"][form]["first_line_ms"] = first_line_ms(server, form, video)
        turns = [(scene, form) for _ in range(options.rounds) for scene in scenes for form in SCENES[scene].forms]
        found: dict[tuple[str, str], list[float]] = {turn: [] for turn in turns}
        for scene, form in tqdm(turns, unit="scene"):
            found[scene, form] += quick_times(server, form, video, SCENES[scene], options.seconds)
        for (scene, form), times in found.items():
            result["scenes"].setdefault(scene, {})[form] = summarise(times).to_json()
        for form in result["forms"]:
            result["forms"][form]["memory_after_mb"] = memory_mb(server.worker_pids(form))
    return result


def quick_times(server: Server, form: str, video: bytes, scene: Scene, seconds: float) -> list[float]:
    """Milliseconds of one client's requests in that scene; raises RuntimeError when one of them fails."""
    with ExitStack() as stack:
        for _ in range(scene.quick):
            stack.enter_context(asking(server, form, video, None))
        for _ in range(scene.others):
            stack.enter_context(asking(server, form, video + bytes(scene.padding), scene.options))
        time.sleep(_SETTLE_SEC)
        times = []
        with closing(connect(server, "http")) as client:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                reply = client.ask(form, video)
                if reply.error is not None:
                    raise RuntimeError(f"a quick request failed: {reply.error}")
                times.append(reply.milliseconds)
        return times


@contextmanager
def asking(server: Server, form: str, video: bytes, options: Mapping[str, str] | None) -> Iterator[None]:
    """One client that asks without a pause; what it is answered does not matter."""
    stop = threading.Event()

    def run() -> None:
        with closing(connect(server, "http")) as client:
            while not stop.is_set():
                client.ask(form, video, options)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def first_line_ms(server: Server, form: str, video: bytes) -> dict[str, float]:
    """Until the first event of a streamed timeline, and until its end."""
    with server.client() as client:
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            events = client.stream(video, model=form, stride_sec=0.1)
            next(events)
            first = time.perf_counter() - started
            for _ in events:
                pass
        return {"first": first * 1e3, "last": (time.perf_counter() - started) * 1e3}


def memory_mb(pids: Sequence[int]) -> list[float]:
    """Memory of each worker with its decoding processes; shared pages are divided among those that share them."""
    workers = [psutil.Process(pid) for pid in pids]
    return [
        round(sum(process.memory_full_info().pss for process in (worker, *worker.children(recursive=True))) / 1e6, 1)
        for worker in workers
    ]


def table(result: Mapping[str, Any]) -> str:
    """Medians by scene, a column for each form."""
    lines = []
    for form, facts in result["forms"].items():
        lines.append(
            f"{form}: {facts['workers']} workers, ready after {facts['ready_sec']:.2f} s, "
            f"{facts['memory_after_mb']} MB, first line after {facts['first_line_ms']['first']:.0f} ms"
        )
    lines += ["", f"{'quick request':<28}{SEVERAL:>12}{ONE:>12}   median ms"]
    for scene, forms in result["scenes"].items():
        cells = [f"{forms[form]['median']:>12.0f}" if form in forms else f"{'-':>12}" for form in (SEVERAL, ONE)]
        lines.append(f"{scene:<28}{''.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
