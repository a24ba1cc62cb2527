"""The seccomp filter of the decoding process: which system calls it may make, and with which arguments.

The numbers are those of the kernel's headers: asm/unistd_64.h (x86-64), asm-generic/unistd.h (aarch64),
linux/seccomp.h, linux/filter.h and linux/audit.h. Which calls decoding makes was found with strace over the corpus.
"""

from __future__ import annotations

import errno
import mmap
import signal
import struct
from dataclasses import dataclass, replace

# linux/seccomp.h: what a filter may return
KILL_PROCESS, ERRNO, LOG, ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFC_0000, 0x7FFF_0000
_NOT_PERMITTED, _BAD_DESCRIPTOR, _NOT_SUPPORTED = ERRNO | errno.EPERM, ERRNO | errno.EBADF, ERRNO | errno.ENOSYS

# linux/filter.h: operation codes on 32-bit words, and where struct seccomp_data has its fields
_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_WORD = 0xFFFF_FFFF

_PR_SET_NAME = 15
_F_DUPFD_CLOEXEC = 1030
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20
_ADVICE = (4, 8, 14, 15)  # MADV_DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE
_FUTEX_FLAGS = 128 | 256  # PRIVATE_FLAG, CLOCK_REALTIME
_FUTEX_OPERATIONS = (0, 1, 3, 4, 5, 9, 10)  # WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET
_PTHREAD_CREATE = (0x3D_0F00, 0x7D_0F00)  # clone's flags in glibc, and in musl, which adds CLONE_DETACHED

# Numbers on x86-64 and on aarch64; None where the architecture does not have the call.
_CHECKED: dict[str, tuple[int, int | None]] = {
    "futex": (202, 98),
    "read": (0, 63),
    "write": (1, 64),
    "mmap": (9, 222),
    "madvise": (28, 233),
    "mprotect": (10, 226),
    "fcntl": (72, 25),
    "close": (3, 57),
    "prctl": (157, 167),
    "clone": (56, 220),
    "clone3": (435, 435),
    "tgkill": (234, 131),
}
"""Calls whose verdict depends on their arguments; see `_rules`."""

_ALLOWED: dict[str, tuple[int, int | None]] = {
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getcpu": (309, 168),
    "sched_getaffinity": (204, 123),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

_REFUSED: dict[str, tuple[int, int | None]] = {
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "lseek": (8, 62),
    "ioctl": (16, 29),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "prlimit64": (302, 261),
    "writev": (20, 66),
    "rt_sigaction": (13, 134),
    "sigaltstack": (131, 132),
}
"""Calls that libraries try and can do without: they fail with EPERM. Any call that is in no table ends the process."""

_NUMBERS = {**_CHECKED, **_ALLOWED, **_REFUSED}  # compared in this order, so the calls of each frame come first


@dataclass(frozen=True, slots=True)
class Architecture:
    """AUDIT_ARCH value (linux/audit.h), number of the call seccomp, and numbers of the calls that the filter names."""

    audit: int
    seccomp: int
    numbers: dict[str, int]


ARCHITECTURES = {
    "x86_64": Architecture(0xC000_003E, 317, {name: number for name, (number, _) in _NUMBERS.items()}),
    "aarch64": Architecture(0xC000_00B7, 277, {name: n for name, (_, n) in _NUMBERS.items() if n is not None}),
}
"""By the machine's name in `os.uname()`."""


@dataclass(frozen=True, slots=True)
class _Check:
    """Passes when `argument & mask` is one of `values`; with `none_of`, when it is none of them.

    Arguments are numbered from 0. Only their lower 32 bits are compared: the kernel takes most of these arguments as
    32-bit numbers, and the upper halves of clone's, mmap's and mprotect's have no meaning.
    """

    argument: int
    values: tuple[int, ...]
    mask: int = _WORD
    none_of: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    """The verdict on a call whose arguments pass every check, and on one whose arguments do not."""

    verdict: int
    checks: tuple[_Check, ...] = ()
    otherwise: int = KILL_PROCESS


@dataclass(frozen=True, slots=True)
class _Instruction:
    """struct sock_filter; a jump's distance counts from the next instruction."""

    code: int
    value: int
    if_true: int = 0
    if_false: int = 0

    def __bytes__(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.value)


def build_filter(machine: str, read_fd: int, write_fd: int, pid: int, *, log_only: bool = False) -> bytes:
    """The program, 8 bytes for each instruction, for the process `pid` on `machine`, a key of ARCHITECTURES.

    Calls of another architecture (32-bit calls of a 64-bit process) and of x32 (numbers from 2**30) end the process
    like every call that is in no table. With `log_only` such calls, and those that would fail, are logged and done.
    """
    architecture = ARCHITECTURES[machine]
    rules = _rules(read_fd, write_fd, pid)
    if log_only:
        rules = {name: _logging(rule) for name, rule in rules.items()}
    unknown = _Instruction(_RETURN, LOG if log_only else KILL_PROCESS)
    program = [
        _Instruction(_LOAD, _ARCHITECTURE),
        _Instruction(_JUMP_IF_EQUAL, architecture.audit, if_true=1),
        unknown,
        _Instruction(_LOAD, _NUMBER),
    ]
    for name, number in architecture.numbers.items():
        block = _compiled(rules[name])
        program += [_Instruction(_JUMP_IF_EQUAL, number, if_false=len(block)), *block]
    return b"".join(map(bytes, [*program, unknown]))


def _compiled(rule: _Rule) -> list[_Instruction]:
    """The instructions that come to a verdict; none is left without one."""
    block: list[_Instruction] = []
    for check in rule.checks:
        block.append(_Instruction(_LOAD, _ARGUMENTS + 8 * check.argument))
        if check.mask != _WORD:
            block.append(_Instruction(_AND, check.mask))
        for left, value in zip(reversed(range(len(check.values))), check.values, strict=True):
            # The next instruction but `left` returns `otherwise`; behind it comes what follows a passed check.
            if check.none_of:
                block.append(_Instruction(_JUMP_IF_EQUAL, value, if_true=left, if_false=0 if left else 1))
            else:
                block.append(_Instruction(_JUMP_IF_EQUAL, value, if_true=left + 1))
        block.append(_Instruction(_RETURN, rule.otherwise))
    return [*block, _Instruction(_RETURN, rule.verdict)]


def _logging(rule: _Rule) -> _Rule:
    """The rule with `LOG` for refusals. clone3 stays unsupported, so that threads start in the same way."""
    verdicts = [verdict if verdict in (ALLOW, _NOT_SUPPORTED) else LOG for verdict in (rule.verdict, rule.otherwise)]
    return replace(rule, verdict=verdicts[0], otherwise=verdicts[1])


def _rules(read_fd: int, write_fd: int, pid: int) -> dict[str, _Rule]:
    """What the filter does with each call of the tables."""
    pipe = (read_fd, write_fd)
    not_executable = _Check(2, (0,), mask=mmap.PROT_EXEC)
    # RLIMIT_DATA does not count anonymous memory that is shared.
    counted = _Check(3, (_MAP_SHARED | _MAP_ANONYMOUS,), mask=_MAP_SHARED | _MAP_ANONYMOUS, none_of=True)
    return {
        **dict.fromkeys(_ALLOWED, _Rule(ALLOW)),
        **dict.fromkeys(_REFUSED, _Rule(_NOT_PERMITTED)),
        "read": _Rule(ALLOW, (_Check(0, (read_fd,)),), _BAD_DESCRIPTOR),
        "write": _Rule(ALLOW, (_Check(0, (write_fd,)),), _BAD_DESCRIPTOR),
        # Else the log, descriptor 1, could be put in the pipe's place and be written to.
        "close": _Rule(ALLOW, (_Check(0, pipe, none_of=True),), _NOT_PERMITTED),
        "mmap": _Rule(ALLOW, (not_executable, counted), _NOT_PERMITTED),
        "mprotect": _Rule(ALLOW, (not_executable,), _NOT_PERMITTED),
        "madvise": _Rule(ALLOW, (_Check(2, _ADVICE),), _NOT_PERMITTED),
        "futex": _Rule(ALLOW, (_Check(1, _FUTEX_OPERATIONS, mask=_WORD & ~_FUTEX_FLAGS),)),
        "fcntl": _Rule(ALLOW, (_Check(1, (_F_DUPFD_CLOEXEC,)),), _NOT_PERMITTED),
        "prctl": _Rule(ALLOW, (_Check(0, (_PR_SET_NAME,)),), _NOT_PERMITTED),
        "clone": _Rule(ALLOW, (_Check(0, _PTHREAD_CREATE),)),
        # libc then takes clone. Its flags can be checked; those of clone3 are in memory, which a filter cannot read.
        "clone3": _Rule(_NOT_SUPPORTED),
        # Of signals, abort()'s alone: a failed assertion in a library stays distinct from a forbidden call.
        "tgkill": _Rule(ALLOW, (_Check(0, (pid,)), _Check(2, (signal.SIGABRT,)))),
    }
