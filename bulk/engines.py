"""Where workers run on this machine: in this process, or in several. N batches in, N out, in any order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bulk.archives import WorkerShare, unpacked
from bulk.environment import made_by
from bulk.outcomes import ScoringOptions
from bulk.work import BATCHES_IN_FLIGHT, Batch, FinishedBatch, LoadedBatch, classify_batches, load_batch
from handlers.cpu import cores
from handlers.errors import SetupError
from handlers.pipeline import VideoClassifier

TASK_BATCHES = 4
"""Batches handed to a worker process at a time: decoding and the model overlap within these."""


class WorkerLost(SetupError):
    """A worker died and its unfinished work is lost; finished work is kept."""


class Engine(Protocol):
    """Runs batches; what has been yielded is finished. Raises SetupError when it cannot go on."""

    def run(self, batches: Sequence[Batch], options: ScoringOptions) -> Iterator[FinishedBatch]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """How to make a worker: archive, share of the machine, and where the model runs (None: the best there is)."""

    archive: Path
    share: WorkerShare
    device: str | None = None


class Worker:
    """A warmed classifier and its unpacked archive."""

    def __init__(self, plan: WorkerPlan) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(unpacked(plan.archive, plan.share))
            self.classifier = VideoClassifier.from_directory(folder, device=plan.device)
            stack.callback(self.classifier.close)
            self.classifier.warm_up()
            self.made_by = made_by(self.classifier.describe())
            self._stack = stack.pop_all()

    def run(self, batches: Sequence[Batch], options: ScoringOptions) -> Iterator[FinishedBatch]:
        limit = self.classifier.config.limits.max_video_bytes
        return self.run_loaded((load_batch(batch, limit) for batch in batches), options)

    def run_loaded(self, batches: Iterable[LoadedBatch], options: ScoringOptions) -> Iterator[FinishedBatch]:
        for finished in classify_batches(self.classifier, batches, options):
            yield replace(finished, made_by=self.made_by)

    def close(self) -> None:
        self._stack.close()


@dataclass(frozen=True, slots=True)
class InProcess:
    """One worker, here, with all cores."""

    plan: WorkerPlan

    def run(self, batches: Sequence[Batch], options: ScoringOptions) -> Iterator[FinishedBatch]:
        worker = Worker(self.plan)
        try:
            yield from worker.run(batches, options)
        finally:
            worker.close()


@dataclass(frozen=True, slots=True)
class Processes:
    """Several worker processes on this machine, each with its share of the cores."""

    plan: WorkerPlan
    workers: int

    def run(self, batches: Sequence[Batch], options: ScoringOptions) -> Iterator[FinishedBatch]:
        tasks = [batches[start : start + TASK_BATCHES] for start in range(0, len(batches), TASK_BATCHES)]
        pool = ProcessPoolExecutor(
            max_workers=self.workers,
            mp_context=multiprocessing.get_context("spawn"),  # fork would copy this process's threads' locks
            initializer=_start_worker,
            initargs=(self.plan,),
        )
        try:
            yield from _in_flight(lambda task: pool.submit(_run_task, task, options), tasks, self.workers)
        except BrokenProcessPool:
            raise WorkerLost("a worker process died; run the same command again to go on from here") from None
        finally:
            pool.shutdown(cancel_futures=True)


def local_engine(archive: Path, *, workers: int, device: str | None) -> Engine:
    """One worker here, or several processes that divide the cores between them."""
    if workers == 1:
        return InProcess(WorkerPlan(archive=archive, share=WorkerShare(), device=device))
    threads = max(1, cores() // workers)
    share = WorkerShare(threads=threads, decode_processes=threads)
    return Processes(WorkerPlan(archive=archive, share=share, device=device), workers)


def _in_flight(
    submit: Callable[[Sequence[Batch]], Future[list[FinishedBatch]]], tasks: list[Sequence[Batch]], workers: int
) -> Iterator[FinishedBatch]:
    """Few tasks at a time, so that an interrupted run has little to throw away."""
    running: set[Future[list[FinishedBatch]]] = set()
    waiting = iter(tasks)
    while True:
        for task in waiting:
            running.add(submit(task))
            if len(running) >= workers * BATCHES_IN_FLIGHT:
                break
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield from future.result()


_worker: Worker | None = None


def _start_worker(plan: WorkerPlan) -> None:
    """Runs once in each worker process, which keeps its model until it ends."""
    global _worker
    _worker = Worker(plan)
    multiprocessing.util.Finalize(None, _worker.close, exitpriority=1)


def _run_task(batches: Sequence[Batch], options: ScoringOptions) -> list[FinishedBatch]:
    assert _worker is not None
    return list(_worker.run(batches, options))
