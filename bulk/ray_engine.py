"""Workers as actors on a Ray cluster, through Ray Data. The only module that imports ray.

One row of the dataset is one batch. Its videos' bytes are read where the files are (by default on the machine this runs
on, and carried through Ray's object store; with shared storage, or URIs, by the workers themselves), an actor with one
warmed model turns them into outcomes, and this process takes those in. Ray Data's `read_binary_files` would stop at the
first file that cannot be read; here that is a row.

A node that goes away takes the batches it held with it. Ray Data is set to go on without them (`max_errored_blocks`,
no actor restarts, which would wait for a machine that may never come back), and what is missing at the end of a pass is
run again. Batches are known by number, so none is taken twice.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import ray.exceptions
from numpy.typing import NDArray

import bulk
import handlers
from bulk.archives import WorkerShare
from bulk.cores import claim_cores
from bulk.engines import TASK_BATCHES, Worker, WorkerLost, WorkerPlan
from bulk.files import VideoFile
from bulk.outcomes import Outcome, ScoringOptions
from bulk.scratch import remove_leftovers, scratch_folder
from bulk.work import Batch, FinishedBatch, LoadedBatch, load_batch
from handlers.errors import SetupError

_PASSES_WITHOUT_PROGRESS = 3
_WORKERS_PER_READER = 4  # starting one takes seconds of a core

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """How to use the cluster. `address`: as Ray's own commands take it, or `local` for one started here and stopped
    afterwards. `workers` 0: as many as the cluster has room for. `gpus_per_worker` None: 1 where the cluster has any.
    """

    address: str
    workers: int = 0
    cpus_per_worker: int = 1
    gpus_per_worker: float | None = None
    shared_storage: bool = False


class RayEngine:
    """bulk.engines.Engine on a cluster; the connection lasts from construction to `close`."""

    def __init__(self, archive: Path, options: RayOptions, *, max_video_bytes: int) -> None:
        if options.address.startswith("ray://"):
            raise SetupError(
                "Ray Client (ray://) carries no datasets: run this on a node of the cluster and give its address, "
                "as in --ray auto or --ray 10.0.0.1:6379"
            )
        self._options, self._max_video_bytes = options, max_video_bytes
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            _connect(options.address)
        self._archive: Any = ray.put(np.frombuffer(archive.read_bytes(), np.uint8))
        _set_up_data()

    def close(self) -> None:
        if self._connected_here:
            ray.shutdown()

    def run(self, batches: Sequence[Batch], options: ScoringOptions) -> Iterator[FinishedBatch]:
        remaining = {batch.number: batch for batch in batches}
        stalled = 0
        while remaining:
            before = len(remaining)
            reason = "its workers were lost"
            try:
                for finished in self._one_pass(list(remaining.values()), options):
                    if remaining.pop(finished.number, None) is not None:
                        yield finished
            except ray.exceptions.RayError as error:
                reason = _reason(error)
            stalled = 0 if len(remaining) < before else stalled + 1
            if stalled >= _PASSES_WITHOUT_PROGRESS:
                raise WorkerLost(f"no batch came back in {stalled} attempts on this cluster: {reason}")
            if remaining:
                _log.warning("%d batches did not come back (%s); running them again", len(remaining), reason)

    def _one_pass(self, batches: list[Batch], options: ScoringOptions) -> Iterator[FinishedBatch]:
        workers, gpus = self._pool()
        dataset = ray.data.from_items([_batch_row(batch) for batch in batches], override_num_blocks=len(batches))
        if not self._options.shared_storage:
            dataset = dataset.map_batches(
                _read_here,
                fn_kwargs={"max_video_bytes": self._max_video_bytes},
                batch_size=TASK_BATCHES,
                compute=ray.data.TaskPoolStrategy(size=-(-workers // _WORKERS_PER_READER)),
                num_cpus=0,
                label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
            )
        dataset = dataset.map_batches(
            _Actor,
            batch_size=TASK_BATCHES,
            compute=ray.data.ActorPoolStrategy(
                min_size=1, initial_size=workers, max_size=workers, max_tasks_in_flight_per_actor=2
            ),
            fn_constructor_args=(self._archive, self._options.cpus_per_worker, options),
            num_cpus=self._options.cpus_per_worker,
            num_gpus=gpus or None,
            ray_remote_args_fn=_no_restarts,
        )
        for row in dataset.iter_rows():
            yield _finished(row)

    def _pool(self) -> tuple[int, float]:
        """How many workers fit on the nodes that are up, at most as many as were asked for; and GPUs for each."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = self._options.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if any(node.get("GPU", 0) for node in nodes) else 0.0
        fitting = sum(
            min(
                int(node.get("CPU", 0) // self._options.cpus_per_worker),
                int(node.get("GPU", 0) // gpus) if gpus else 1 << 30,
            )
            for node in nodes
        )
        if not fitting:
            raise SetupError(
                f"no node of the cluster has room for a worker of {self._options.cpus_per_worker} CPUs"
                + (f" and {gpus:g} GPUs" if gpus else "")
            )
        return min(fitting, self._options.workers or fitting), gpus


def _read_here(rows: dict[str, NDArray[Any]], *, max_video_bytes: int) -> Iterator[dict[str, list[Any]]]:
    """Rows of batches -> the same with the files' bytes; a task pinned to the machine that has the files."""
    for text in rows["batch"]:
        yield {"batch": [text], "payloads": [pickle.dumps(load_batch(_batch(text), max_video_bytes).payloads)]}


class _Actor:
    """One warmed model; lives as long as the pass."""

    def __init__(self, archive: Any, cpus: int, options: ScoringOptions) -> None:
        self._options = options
        self._claims = claim_cores(cpus)  # before anything that starts threads or processes
        remove_leftovers()
        with scratch_folder() as folder:
            path = folder / "model.mar"
            path.write_bytes(ray.get(archive).tobytes())
            share = WorkerShare(threads=cpus, decode_processes=cpus)
            self._worker = Worker(WorkerPlan(archive=path, share=share))

    def __call__(self, rows: dict[str, NDArray[Any]]) -> Iterator[dict[str, list[Any]]]:
        for finished in self._worker.run_loaded(self._loaded(rows), self._options):
            outcomes = json.dumps([outcome.to_json() for outcome in finished.outcomes])
            made_by = json.dumps(finished.made_by)
            yield {"number": [finished.number], "outcomes": [outcomes], "made_by": [made_by]}

    def _loaded(self, rows: dict[str, NDArray[Any]]) -> Iterator[LoadedBatch]:
        limit = self._worker.classifier.config.limits.max_video_bytes
        for index, text in enumerate(rows["batch"]):
            batch = _batch(text)
            if "payloads" in rows:
                yield LoadedBatch(batch, pickle.loads(rows["payloads"][index]))
            else:
                yield load_batch(batch, limit)


def _no_restarts() -> dict[str, int]:
    """A restarted actor waits for room, and the batches sent to it with it: for ever, when the machine is gone."""
    return {"max_restarts": 0, "max_task_retries": 0}


def _batch_row(batch: Batch) -> dict[str, str]:
    files = [[file.name, file.path, file.problem] for file in batch.files]
    return {"batch": json.dumps([batch.number, files])}


def _batch(text: str) -> Batch:
    number, files = json.loads(text)
    return Batch(number, tuple(VideoFile(*file) for file in files))


def _finished(row: dict[str, Any]) -> FinishedBatch:
    outcomes = tuple(Outcome.from_json(item) for item in json.loads(row["outcomes"]))
    return FinishedBatch(int(row["number"]), outcomes, json.loads(row["made_by"]))


def _connect(address: str) -> None:
    """Joins the cluster, or starts one on this machine; workers get these two packages from here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "local":
        ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **_QUIET)
        return
    modules = [str(Path(package.__file__ or "").parent) for package in (handlers, bulk)]
    try:
        ray.init(address=address, runtime_env={"py_modules": modules, "excludes": ["__pycache__"]}, **_QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SetupError(f"cannot connect to the Ray cluster at {address}: {str(error).splitlines()[0]}") from error


_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


def _set_up_data() -> None:
    """Every finished batch is a block of its own, sent at once: what has come is not lost with the worker.

    Progress and lost work are reported here, once, in this tool's own words.
    """
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.max_errored_blocks = -1
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _reason(error: ray.exceptions.RayError) -> str:
    """The innermost sentence; a worker that could not be set up says why in its own words."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(cause).__name__
