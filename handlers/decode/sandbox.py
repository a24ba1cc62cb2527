"""Takes from the decoding process every right that decoding does not need: Landlock and seccomp, through ctypes.

Landlock denies files, TCP, abstract sockets and signals to other processes. A seccomp filter then allows the few system
calls that decoding makes, refuses with an error those that libraries try and can do without, and ends the process at
any other. Neither needs a package, a privilege or a writable file system; neither can be undone by the process.

Constants and structures are those of the kernel's headers: linux/landlock.h, linux/seccomp.h, linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from handlers.decode.seccomp_filter import ARCHITECTURES, build_filter

LAYERS = ("landlock", "seccomp")

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1  # all threads of the process, those that exist already as well

# The same numbers on both architectures.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_FIELDS = 3  # of struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped
_BITS = 64  # of each field
_THREAD_END_SEC = 5.0  # how long a thread that has ended may be seen; it takes microseconds on an idle machine


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine(read_fd: int, write_fd: int, *, log_only: bool = False) -> tuple[str, ...]:
    """Confine this process, all threads, for good; it may read from one descriptor and write to the other.

    Returns the layers that hold, of LAYERS and in this order. A layer that the kernel or a policy
    around this process refuses is left out and never raises; so is one that was accepted but does not refuse what it
    should, as in an emulated kernel. Landlock does not reach threads that run already: if there are any it is left out,
    too. On systems other than Linux nothing is done. Call it once, and with a descriptor to spare.

    With `log_only` nothing is refused: what would be refused goes to the kernel's log (audit records of type 1326),
    which shows what a new version of a library tries. No layer holds then.
    """
    if sys.platform != "linux":
        return ()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        return ()
    if log_only:
        _install_filter(libc, read_fd, write_fd, log_only=True)
        return ()
    alone = _is_single_threaded()
    layers = []
    if _install_landlock(libc) and alone and _refuses_files():
        layers.append("landlock")
    if _install_filter(libc, read_fd, write_fd) and _refuses_calls():
        layers.append("seccomp")
    return tuple(layers)


def _install_landlock(libc: ctypes.CDLL) -> bool:
    """Restrict this thread by a ruleset that handles every right the kernel knows and has no rule that grants one."""
    rights = _known_rights(libc)
    if not any(rights):
        return False
    ruleset = _create_ruleset(libc, rights)
    if ruleset < 0:
        return False
    try:
        return _call(libc, _LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        _close(ruleset)


def _known_rights(libc: ctypes.CDLL) -> list[int]:
    """The bits of each field that this kernel takes, found by trying one after the other; newer rights are included.

    All zero where Landlock is not available, and where trying failed for a reason other than an unknown bit.
    """
    rights = [0] * _LANDLOCK_FIELDS
    for field in range(_LANDLOCK_FIELDS):
        for bit in range(_BITS):
            wanted = rights.copy()
            wanted[field] |= 1 << bit
            ruleset = _create_ruleset(libc, wanted)
            if ruleset >= 0:
                _close(ruleset)
                rights = wanted
            elif ctypes.get_errno() in (errno.EINVAL, errno.E2BIG):  # no such bit, no such field
                break
            else:
                return [0] * _LANDLOCK_FIELDS
    return rights


def _create_ruleset(libc: ctypes.CDLL, rights: list[int]) -> int:
    """The ruleset's descriptor, or -1."""
    attributes = (ctypes.c_uint64 * _LANDLOCK_FIELDS)(*rights)
    return _call(libc, _LANDLOCK_CREATE_RULESET, ctypes.addressof(attributes), ctypes.sizeof(attributes), 0)


def _close(descriptor: int) -> None:
    with suppress(OSError):  # a kernel that only claims to have made a ruleset
        os.close(descriptor)


def _install_filter(libc: ctypes.CDLL, read_fd: int, write_fd: int, *, log_only: bool = False) -> bool:
    machine = os.uname().machine
    if machine not in ARCHITECTURES or sys.byteorder != "little" or sys.maxsize < 2**32:  # a 32-bit Python
        return False
    instructions = build_filter(machine, read_fd, write_fd, os.getpid(), log_only=log_only)
    program = _Program(len(instructions) // 8, instructions)
    number = ARCHITECTURES[machine].seccomp
    # Where one thread cannot be given the filter its id is returned, and no thread has got it.
    flags, address = _SECCOMP_FILTER_FLAG_TSYNC, ctypes.addressof(program)
    return _call(libc, number, _SECCOMP_SET_MODE_FILTER, flags, address) == 0


def _call(libc: ctypes.CDLL, number: int, *arguments: int) -> int:
    """syscall(2), each argument as a whole register; -1 and errno on failure."""
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(*map(ctypes.c_long, (number, *arguments))))


def _is_single_threaded() -> bool:
    """Whether this thread is the only one. One that was joined may take a moment until the kernel is done with it."""
    deadline = time.monotonic() + _THREAD_END_SEC
    while (count := _count_threads()) > 1 and threading.active_count() == 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    return count == 1


def _count_threads() -> int:
    """0 where /proc does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:")), 0)


def _refuses_files() -> bool:
    return _is_refused(lambda: any(Path("/").iterdir()))


def _refuses_calls() -> bool:
    """Whether the filter is obeyed, for a call and for an argument."""
    size, flags = mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return _is_refused(Path("/").stat) and _is_refused(lambda: mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_EXEC))


def _is_refused(attempt: Callable[[], object]) -> bool:
    """Whether what anybody may do otherwise fails for want of permission."""
    try:
        attempt()
    except PermissionError:
        return True
    except OSError:
        return False
    return False
