"""Replacing and removing versions of a model without losing a request.

TorchServe 0.12 gives up the requests of a version that is unregistered: those that wait never get an answer, those
that a worker has get 500. So a version is removed only when it has none left. Whether one waits, TorchServe tells;
whether a worker has one, the handler's description does (`other_busy_workers`). A request is for a moment with neither,
on its way to the worker, so the version has to be seen without requests several times.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import ClientError, Conflict, RequestTimeout

if TYPE_CHECKING:
    from .management import Management
    from .results import ModelInfo

DRAIN_SEC = 60.0
_POLL_SEC = 0.25
_LOOKS = 3


def drain(client: Management, model: str, version: str | None, *, timeout_sec: float) -> None:
    """Return when the version has no request left. Raises RequestTimeout if it still has some after `timeout_sec`."""
    deadline = time.monotonic() + timeout_sec
    quiet = 0
    while quiet < _LOOKS:
        quiet = quiet + 1 if _is_quiet(client.describe(model, version)) else 0
        if quiet == _LOOKS:
            return
        if time.monotonic() >= deadline:
            which = model if version is None else f"{model} {version}"
            raise RequestTimeout(
                f"{which} still has requests after {timeout_sec:g} s and was not removed; make another version the "
                "default, wait longer, or remove it at once and lose them"
            )
        time.sleep(_POLL_SEC)


def _is_quiet(info: ModelInfo) -> bool:
    busy = (info.metadata or {}).get("other_busy_workers", 0)
    return info.pending_requests == 0 and not busy


def upgrade(client: Management, model: str, archive: str, *, workers: int | None, drain_sec: float) -> str:
    """See `Management.upgrade`."""
    before = {info.version: info for info in client.models() if info.name == model}
    old = next((info for info in before.values() if info.default), None)
    try:
        client.register(archive, model=model, workers=workers or (old.min_workers if old is not None else None))
    except Conflict as error:
        served = ", ".join(sorted(before))
        raise Conflict(
            f"{archive} has a version of {model} that is served already ({served}); package it with another --version",
            status=error.status,
            type=error.type,
        ) from None
    new = next((info.version for info in client.models() if info.name == model and info.version not in before), None)
    if new is None:  # somebody else has removed it meanwhile
        raise ClientError(f"{model} was registered, but has no version besides {', '.join(sorted(before))}")
    if old is not None:
        client.set_default(model, new)
        client.unregister(model, old.version, drain_sec=drain_sec)
    return new
