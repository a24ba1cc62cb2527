"""What the kernel knows about a decoding process: the system calls that it makes, and what can confine it."""

from __future__ import annotations

import ctypes
import re

TRACED = """
import sys
from pathlib import Path
from handlers.video.sampling import Sampling
from handlers.decode.processes import ProcessDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
service = ProcessDecodeService(get_spec("x3d_xs"), Limits(), processes=1)
service._replacement._not_before = float("inf")  # one process for all files
print(service.process_ids()[0], flush=True)
for name in sys.argv[1:]:
    job = service.submit(Path(name).read_bytes(), Sampling())
    while not job.ended:
        service.wait(1)
        while job.deliveries:
            job.deliveries.popleft().release()
print(service.process_ids()[0], flush=True)
service.close()
"""
"""A program that decodes the files it is given in one process, and prints that process before and after."""


def calls_of(process: str, lines: list[str]) -> list[str]:
    """The calls that a process and its threads made, in order."""
    threads, calls = {process}, []
    for line in lines:
        thread, call = line.split(maxsplit=1)
        if thread in threads:
            calls.append(call)
            if "clone" in call and (made := re.search(r"= (\d+)$", call)):
                threads.add(made[1])
    return calls


def landlock_version() -> int:
    """0 where the kernel, or how it was started, does not offer it."""
    return max(int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)), 0)
