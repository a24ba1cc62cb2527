"""Waiting for the workers of a model over HTTP.

TorchServe 0.12 can wait itself (`synchronous=true`), but does so in one of the few threads that read and answer HTTP
requests: predictions on every connection of that thread stand still until the workers have loaded their model, ten
seconds and more. So the workers are asked for without waiting, and then looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .errors import RequestTimeout, ServingError
from .results import ModelInfo

TIMEOUT_SEC = 600.0
_POLL_SEC = 0.1


def wait_for_workers(
    look: Callable[[], ModelInfo], count: int | None, *, timeout_sec: float = TIMEOUT_SEC
) -> ModelInfo:
    """Return when the version has `count` workers and all are ready; None for `count`: its own least number.

    Raises ServingError when a worker ends while it loads, which TorchServe would start again and again; RequestTimeout.
    """
    deadline = time.monotonic() + timeout_sec
    seen: dict[str, int] = {}
    while True:
        info = look()
        wanted = min(info.min_workers, info.max_workers) if count is None else count
        ready = [worker for worker in info.workers if worker.status == "READY"]
        if len(ready) == len(info.workers) == wanted:
            return info
        for worker in info.workers:
            if worker.status != "READY" and seen.get(worker.id, worker.pid) not in (worker.pid, -1):
                raise ServingError(
                    f"Failed to start workers for model {info.name} version: {info.version}; "
                    "TorchServe's model_log.log says why",
                    status=500,
                    type="InternalServerException",
                )
            seen[worker.id] = worker.pid
        if time.monotonic() >= deadline:
            raise RequestTimeout(
                f"{info.name} {info.version} has {len(ready)} of {wanted} workers after {timeout_sec:g} s"
            )
        time.sleep(_POLL_SEC)
