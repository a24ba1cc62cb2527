"""A decoding process under watch: what every hostile file must leave as it was."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handlers.decode.processes import ProcessDecodeService
from handlers.limits import Limits
from handlers.specs import ModelSpec
from tests.support.decoding import MIB, Outcome, decode, decode_all, memory_bytes, never_replace, reset_peak
from tests.support.hostile import CANARY_PATH, LISTENER_PORT

MOST_SEC = 5.0
MOST_BYTES = 500 * MIB


@dataclass(frozen=True, slots=True)
class Guarded:
    """A service of one process, with what that process held when it was idle, and a good video's answer."""

    service: ProcessDecodeService
    idle_bytes: int
    good: bytes
    expected: Outcome


@contextmanager
def guarded_service(spec: ModelSpec, good: bytes) -> Iterator[Guarded]:
    """One decoding process, the same for all files; `good` is a video that must always get the answer it gets first."""
    service = ProcessDecodeService(spec, Limits(), processes=1)
    never_replace(service)
    try:
        idle = memory_bytes(service.process_ids()[0], "VmRSS")
        yield Guarded(service, idle, good, decode(service, good))
    finally:
        service.close()


@contextmanager
def listening() -> Iterator[list[str]]:
    """Whoever connects to the port that hostile files name. A canary lies where they look, if it can be put there."""
    seen: list[str] = []
    canary = Path(CANARY_PATH)
    made = not canary.parent.parent.exists() and os.access(canary.anchor, os.W_OK)
    if made:
        canary.parent.mkdir(parents=True)
        canary.write_text("the canary")
    with socket.create_server(("127.0.0.1", LISTENER_PORT)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, seen), daemon=True)
        thread.start()
        yield seen
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    if made:
        shutil.rmtree(canary.parent.parent)


def _accept(listener: socket.socket, seen: list[str]) -> None:
    while True:
        try:
            connection, address = listener.accept()
        except OSError:
            return
        seen.append(str(address))
        connection.close()


def check(guarded: Guarded, payload: bytes) -> Outcome:
    """The file's outcome, with everything that holds for every file: time, memory, the process, its successor."""
    pid = guarded.service.process_ids()[0]
    reset_peak(pid)
    outcome, after = decode_all(guarded.service, [payload, guarded.good])
    assert guarded.service.losses == 0, "the decoding process had to be replaced"
    assert outcome.seconds < MOST_SEC
    assert memory_bytes(pid, "VmHWM") < guarded.idle_bytes + MOST_BYTES
    assert after.error is None
    np.testing.assert_array_equal(after.views[0], guarded.expected.views[0])
    assert outcome.status in ("ok", "4xx"), outcome.error
    if outcome.error is not None:
        assert "Too many open files" not in outcome.error.message, "something was opened that had to be open before"
        assert not re.search(r"(?<!\w)/\w+/|\.py|0x[0-9a-f]{6}|Traceback", outcome.error.message)
    return outcome
