"""Workers of one model that see each other: what each is doing, whose turn it is, and what a dead one leaves behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers import neighbours
from handlers.neighbours import FILE, Activity, Neighbours
from tests.support.paths import REPOSITORY

WORKER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from handlers.neighbours import Activity, Neighbours
with ExitStack() as held:
    mine = Neighbours(Path(sys.argv[1]), cores=2)
    for command in sys.stdin:
        if command == "turn\\n":
            held.enter_context(mine.turn())
        elif command == "give back\\n":
            held.close()
        else:
            mine.set(Activity[command.strip()])
        print("done", flush=True)
"""


class Other:
    """A worker in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def other(folder: Path) -> Iterator[Other]:
    worker = Other(folder)
    try:
        yield worker
    finally:
        worker.kill()


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Neighbours]:
    worker = Neighbours(tmp_path, cores=2)
    yield worker
    worker.close()


def test_each_sees_what_the_others_do(mine: Neighbours, tmp_path: Path) -> None:
    mine.set(Activity.LONG)
    assert mine.busy() == []
    with other(tmp_path) as first, other(tmp_path) as second:
        first.tell("QUICK")
        second.tell("LONG")
        assert sorted(mine.busy()) == [Activity.QUICK, Activity.LONG]
        first.tell("IDLE")
        assert mine.busy() == [Activity.LONG]


def test_one_that_was_killed_is_not_busy_and_has_no_turn(mine: Neighbours, tmp_path: Path) -> None:
    with other(tmp_path) as doomed:
        doomed.tell("LONG")
        doomed.tell("turn")
        doomed.tell("turn")
        assert mine.busy() == [Activity.LONG]
        doomed.kill()
        assert mine.busy() == []
        started = time.monotonic()
        with mine.turn(), mine.turn():
            assert time.monotonic() - started < neighbours._TURN_PATIENCE_SEC


def test_its_place_is_taken_by_the_next(mine: Neighbours, tmp_path: Path) -> None:
    with other(tmp_path) as doomed:
        doomed.tell("LONG")
        doomed.kill()
    with other(tmp_path) as successor:
        successor.tell("IDLE")
        assert mine.busy() == []
        successor.tell("QUICK")
        assert mine.busy() == [Activity.QUICK]


def test_a_turn_is_waited_for(mine: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_TURN_PATIENCE_SEC", 60.0)
    with other(tmp_path) as holder:
        holder.tell("turn")
        holder.tell("turn")
        got = threading.Event()

        def take() -> None:
            with mine.turn():
                got.set()

        waiting = threading.Thread(target=take)
        waiting.start()
        assert not got.wait(0.1)
        holder.tell("give back")
        assert got.wait(30)
        waiting.join()


def test_a_turn_that_never_comes_is_not_waited_for_without_end(
    mine: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder may have been stopped."""
    monkeypatch.setattr(neighbours, "_TURN_PATIENCE_SEC", 0.05)
    with other(tmp_path) as holder:
        holder.tell("turn")
        holder.tell("turn")
        with mine.turn():
            pass
        with mine.turn():
            pass


def test_threads_of_one_worker_share_the_turns_too(mine: Neighbours, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_TURN_PATIENCE_SEC", 60.0)
    lock, inside, most = threading.Lock(), 0, 0

    def take() -> None:
        nonlocal inside, most
        with mine.turn():
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_a_quick_request_keeps_a_turn_for_itself(
    mine: Neighbours, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mine.turns == 2
    monkeypatch.setattr(neighbours, "_QUICK_SEC", 3600.0)
    with other(tmp_path) as quick:
        quick.tell("LONG")
        assert mine.turns == 2
        quick.tell("QUICK")
        assert mine.turns == 1
        quick.tell("IDLE")
        assert mine.turns == 1, "the next request of the same client is likely to come at once"
    mine._quick_until = 0.0
    assert mine.turns == 2


def test_one_core_leaves_one_turn(tmp_path: Path) -> None:
    mine = Neighbours(tmp_path, cores=1)
    with other(tmp_path) as quick:
        quick.tell("QUICK")
        assert mine.turns == 1
    mine.close()


@pytest.mark.parametrize("folder", ["missing", None])
def test_without_a_folder_that_can_be_written_it_is_alone(tmp_path: Path, folder: str | None) -> None:
    alone = Neighbours(None if folder is None else tmp_path / folder, cores=1)
    alone.set(Activity.LONG)
    assert alone.busy() == []
    assert alone.turns > 1000
    with alone.turn(), alone.turn(), alone.turn():
        pass
    alone.close()


def test_what_somebody_else_wrote_into_the_file_does_no_harm(mine: Neighbours, tmp_path: Path) -> None:
    with (tmp_path / FILE).open("r+b") as file:
        file.write(bytes([255]) * 200)
    assert mine.busy() == []
    with mine.turn():
        pass


def test_a_closed_one_gives_everything_back(mine: Neighbours, tmp_path: Path) -> None:
    with other(tmp_path) as witness:
        witness.tell("QUICK")
        mine.close()
        assert mine.busy() == []
        mine.set(Activity.LONG)
    again = Neighbours(tmp_path, cores=2)
    assert again.busy() == []
    again.close()
