"""Runs a command under a seccomp filter that answers some system calls for the kernel, as a container's policy does.

    python -m tests.support.outer_filter ERRNO NAME,NAME,... COMMAND...

Each call named fails with that error number; with 0 it seems to succeed but does nothing, as in a kernel that is
emulated badly.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

_NUMBERS = {  # x86-64, aarch64
    "seccomp": (317, 277),
    "prctl": (157, 167),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(error: int, names: list[str]) -> None:
    column = ("x86_64", "aarch64").index(os.uname().machine)
    steps = [(0x20, 0, 0, 0)]  # the number of the call
    for name in names:
        steps += [(0x15, 0, 1, _NUMBERS[name][column]), (0x06, 0, 0, 0x0005_0000 | error)]
    steps.append((0x06, 0, 0, 0x7FFF_0000))
    instructions = b"".join(struct.pack("=HBBI", *step) for step in steps)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(steps), instructions)
    done = (
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)),
    )
    assert done == (0, 0), f"the outer filter was refused: {os.strerror(ctypes.get_errno())}"


if __name__ == "__main__":
    install(int(sys.argv[1]), sys.argv[2].split(","))
    os.execv(sys.argv[3], sys.argv[3:])
