"""How a decoding process is started: with nothing of the server's but three descriptors and its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import handlers

_HEAP_BYTES = 32 * 2**20  # allocations up to this size come from the heap; it is the most that glibc allows
_KEPT_HEAP_BYTES = 128 * 2**20
_ROOT = Path(handlers.__file__).resolve().parent.parent
_CODE = "import sys; sys.path.insert(0, {root!r}); from handlers.decode.worker import main; main()"


def launch(descriptors: Sequence[int], settings: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """A process that runs `handlers.decode.worker.main` with these descriptors; raises OSError.

    Its standard error is the server's until it has warmed up, so that the log says why it could not start.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _CODE.format(root=str(_ROOT)), *map(str, descriptors), json.dumps(settings)],
        pass_fds=tuple(descriptors),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=_bare_environment(),
        cwd="/",
    )


def _bare_environment() -> dict[str, str]:
    """No secret of the server reaches the process that decodes; one thread per library is enough for it.

    One arena for malloc, too: each job has a thread of its own, and arenas of ended threads would keep their memory.
    That arena keeps what frames leave, for the next job: new pages for every frame took 20 ms of a clip of 1920x1080.
    The process gives them back from time to time.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    kept_memory = {"MALLOC_MMAP_THRESHOLD_": str(_HEAP_BYTES), "MALLOC_TRIM_THRESHOLD_": str(_KEPT_HEAP_BYTES)}
    return {**kept, **threads, **kept_memory, "PYTHONDONTWRITEBYTECODE": "1"}
