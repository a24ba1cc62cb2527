"""Many requests to one worker: damaged files, and memory and files after good ones.

Two hundred of each, with `--all` by the thousand; MUTANTS=20000 and REQUESTS=10000 make that longer still.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.decode.replacement import INTERVAL_SEC
from serving.server import TorchServe
from tests.support.decoding import wait_until
from tests.support.mutation import mutate, seed_files
from tests.support.traffic import Client, process_tree, resident_bytes

pytestmark = pytest.mark.e2e

FEW = 200
MUTANTS = int(os.environ.get("MUTANTS", "2000"))
REQUESTS = int(os.environ.get("REQUESTS", "1000"))
THREADS = 6
_MOST_GROWTH = 0.03
_SEED_BYTES = 60_000
_CHUNK = 200


@pytest.mark.parametrize(
    "chosen", [range(FEW), pytest.param(range(FEW, MUTANTS), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_mutants_get_an_answer_or_a_4xx_and_the_worker_stays(
    server: TorchServe, h264_video: bytes, chosen: range, capsys: pytest.CaptureFixture[str]
) -> None:
    pids = server.worker_pids("x3d_xs")
    client = Client(server, "x3d_xs")
    files = [seed for seed in seed_files() if len(seed) < _SEED_BYTES]
    good = client.post(h264_video)
    assert good.status == 200
    statuses: Counter[int] = Counter()
    started = time.monotonic()
    for start in range(0, len(chosen), _CHUNK):
        numbers = chosen[start : start + _CHUNK]
        # Every eighth is whole: it must not notice what it shares a batch with.
        mutants = [h264_video if number % 8 == 0 else mutate(files, number) for number in numbers]
        for number, answer in zip(numbers, client.post_all(mutants, threads=THREADS), strict=True):
            assert answer.status in (200, 400, 413, 415, 422, 504), f"mutant {number}: {answer.body!r}"
            assert number % 8 or answer.body == good.body, f"the good request {number} got {answer.body!r}"
            statuses[answer.status] += 1
    with capsys.disabled():
        print(f"\n{len(chosen)} mutants in {time.monotonic() - started:.0f} s: {dict(statuses)}")
    assert server.worker_pids("x3d_xs") == pids
    assert client.post(h264_video).body == good.body
    assert len(statuses) > 2


@pytest.mark.parametrize("count", [FEW * 4 // 5, pytest.param(REQUESTS, marks=pytest.mark.slow)], ids=["few", "many"])
def test_memory_and_files_do_not_grow(
    server: TorchServe, indexed_video: Callable[[str], bytes], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    client = Client(server, "x3d_xs")
    videos = [indexed_video(name) for name in ("h264", "h264_ts", "vp9", "mpeg4", "mjpeg", "hevc")]
    cycle = [*videos, videos[0][:4000], b"not a video"]
    pids = server.worker_pids("x3d_xs")

    def send(count: int) -> None:
        answers = client.post_all([cycle[index % len(cycle)] for index in range(count)], threads=THREADS)
        assert Counter(answer.status for answer in answers) == {200: count * 6 // 8, 422: count // 8, 415: count // 8}

    def settled() -> int:
        """The least of a few readings between requests, once no decoding process is being replaced any more."""
        family, since = process_tree(pids), time.monotonic()
        while time.monotonic() - since < 1.5 * INTERVAL_SEC:
            assert client.post(videos[0]).status == 200  # a successor takes its place when a request comes
            time.sleep(0.2)
            if process_tree(pids) != family:
                family, since = process_tree(pids), time.monotonic()
        readings = []
        for _ in range(5):
            time.sleep(0.2)
            readings.append(resident_bytes(pids))
        return min(readings)

    send(count // 4 // 8 * 8)  # allocators reach their size
    before, files = settled(), leftovers(server)
    send(count // 8 * 8)
    after = settled()
    with capsys.disabled():
        print(f"\nworker and decoding processes: {before / 2**20:.1f} MiB, after {count} requests "
              f"{after / 2**20:.1f} MiB")  # fmt: skip
    assert after < before * (1 + _MOST_GROWTH)
    wait_until("no file more than before", lambda: leftovers(server) <= files)
    assert server.worker_pids("x3d_xs") == pids


def leftovers(server: TorchServe) -> set[Path]:
    """Files of the server's folder, where its temporary ones go too, but for its logs."""
    logs = server.directory / "logs"
    return {
        path for path in server.directory.rglob("*") if logs not in path.parents and "__pycache__" not in path.parts
    }
