"""The filter's verdict on every system call of both architectures, by an interpreter of its program."""

from __future__ import annotations

import errno
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.decode.seccomp_filter import ALLOW, ARCHITECTURES, ERRNO, KILL_PROCESS, LOG, build_filter
from tests.support.bpf import instructions, verdict

PIPE_IN, PIPE_OUT, PID = 7, 8, 4321
EPERM, EBADF, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.EBADF, ERRNO | errno.ENOSYS
NUMBERS = [*range(1024), *range(2**30, 2**30 + 1024), -1, 2**31 - 1, 2**31]
"""Every number that a kernel has, those of x32, and the ends of the range."""
FOREIGN = {
    "x86_64": (0x4000_0003, 0xC000_00B7, 0),  # AUDIT_ARCH_I386 (int 0x80), that of aarch64, none
    "aarch64": (0x4000_0028, 0xC000_003E, 0),  # AUDIT_ARCH_ARM, that of x86-64, none
}


def names(text: str) -> set[str]:
    return set(text.split())


ALLOWED = names(
    "munmap brk mremap rt_sigprocmask rt_sigreturn set_robust_list rseq membarrier sched_yield restart_syscall"
    " clock_gettime gettimeofday time nanosleep clock_nanosleep getpid gettid getcpu sched_getaffinity getrandom"
    " exit exit_group"
)
REFUSED = names(
    "open openat openat2 stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink"
    " readlinkat getcwd lseek ioctl uname sysinfo prlimit64 writev rt_sigaction sigaltstack"
)
WITHOUT_ARGUMENTS = {
    "read": EBADF,
    "write": EBADF,
    "close": ALLOW,
    "mmap": ALLOW,
    "mprotect": ALLOW,
    "madvise": EPERM,
    "futex": ALLOW,  # FUTEX_WAIT
    "fcntl": EPERM,
    "prctl": EPERM,
    "clone": KILL_PROCESS,
    "clone3": ENOSYS,
    "tgkill": KILL_PROCESS,
}
"""Calls whose arguments count, when all of them are 0."""
X86_ONLY = {"time", "open", "stat", "lstat", "access", "readlink"}

READ, WRITE, EXEC = 1, 2, 4
SHARED, PRIVATE, SHARED_VALIDATE, FIXED, ANONYMOUS, NORESERVE, STACK = 1, 2, 3, 0x10, 0x20, 0x4000, 0x20000
CASES = [
    ("read", (PIPE_IN,), ALLOW),
    ("read", (PIPE_OUT,), EBADF),
    ("read", (PIPE_IN + 2**32,), ALLOW),  # the kernel takes a descriptor as 32 bits
    ("read", (-1 % 2**64,), EBADF),
    ("write", (PIPE_OUT,), ALLOW),
    ("write", (PIPE_IN,), EBADF),
    ("write", (1,), EBADF),
    ("write", (2,), EBADF),
    ("close", (PIPE_IN,), EPERM),
    ("close", (PIPE_OUT,), EPERM),
    ("close", (PIPE_OUT + 1,), ALLOW),
    ("mmap", (0, 4096, READ | WRITE, PRIVATE | ANONYMOUS, -1 % 2**64), ALLOW),
    ("mmap", (0, 4096, 0, PRIVATE | ANONYMOUS | NORESERVE | STACK, -1 % 2**64), ALLOW),
    ("mmap", (0, 4096, READ, SHARED, 5), ALLOW),
    ("mmap", (0, 4096, READ | WRITE, SHARED, 6), ALLOW),
    ("mmap", (0, 4096, READ | EXEC, PRIVATE | ANONYMOUS, -1 % 2**64), EPERM),
    ("mmap", (0, 4096, READ | WRITE | EXEC, PRIVATE | ANONYMOUS, -1 % 2**64), EPERM),
    ("mmap", (0, 4096, EXEC, SHARED, 5), EPERM),
    ("mmap", (0, 4096, READ | WRITE, SHARED | ANONYMOUS, -1 % 2**64), EPERM),
    ("mmap", (0, 4096, READ | WRITE, SHARED_VALIDATE | ANONYMOUS | FIXED, -1 % 2**64), EPERM),
    ("mprotect", (0, 4096, READ | WRITE), ALLOW),
    ("mprotect", (0, 4096, READ | EXEC), EPERM),
    *[("madvise", (0, 4096, advice), ALLOW if advice in (4, 8, 14, 15) else EPERM) for advice in range(105)],
    *[("futex", (0, operation), ALLOW) for operation in (0, 1, 3, 4, 5, 9, 10, 128, 129, 137, 137 | 256, 9 | 256)],
    *[("futex", (0, operation), KILL_PROCESS) for operation in (2, 6, 7, 8, 11, 12, 13, 6 | 128, 13 | 128, 512)],
    *[("fcntl", (5, command), ALLOW if command == 1030 else EPERM) for command in (*range(20), *range(1024, 1050))],
    *[("prctl", (option,), ALLOW if option == 15 else EPERM) for option in (*range(80), 0x53564D41)],
    ("clone", (0x3D0F00,), ALLOW),  # glibc's pthread_create
    ("clone", (0x7D0F00,), ALLOW),  # musl's
    ("clone", (0x1200011,), KILL_PROCESS),  # fork
    ("clone", (0x4111,), KILL_PROCESS),  # posix_spawn
    ("clone", (0x3D0F00 | 0x1000_0000,), KILL_PROCESS),  # with CLONE_NEWUSER
    ("clone", (0x3D0F00 & ~0x10000,), KILL_PROCESS),  # without CLONE_THREAD
    ("tgkill", (PID, PID, 6), ALLOW),
    ("tgkill", (PID, PID + 3, 6), ALLOW),  # abort() in another thread of the process
    ("tgkill", (PID, PID, 9), KILL_PROCESS),
    ("tgkill", (PID - 1, PID - 1, 6), KILL_PROCESS),
]


@cache
def program(machine: str, *, log_only: bool = False) -> bytes:
    return build_filter(machine, PIPE_IN, PIPE_OUT, PID, log_only=log_only)


def expected(machine: str) -> dict[int, int]:
    """Verdicts on calls whose arguments are 0, by number; a number that is not there ends the process."""
    numbers = ARCHITECTURES[machine].numbers
    missing = X86_ONLY if machine == "aarch64" else set()
    assert set(numbers) == (ALLOWED | REFUSED | set(WITHOUT_ARGUMENTS)) - missing
    verdicts = {**dict.fromkeys(ALLOWED, ALLOW), **dict.fromkeys(REFUSED, EPERM), **WITHOUT_ARGUMENTS}
    return {numbers[name]: verdicts[name] for name in numbers}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_gets_its_verdict(machine: str) -> None:
    wanted = expected(machine)
    audit = ARCHITECTURES[machine].audit
    found = {number: verdict(program(machine), audit, number) for number in NUMBERS}
    assert found == {number: wanted.get(number, KILL_PROCESS) for number in NUMBERS}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_calls_of_another_architecture_end_the_process(machine: str) -> None:
    for foreign in FOREIGN[machine]:
        assert {verdict(program(machine), foreign, number) for number in NUMBERS} == {KILL_PROCESS}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_arguments_decide(machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    for name, arguments, wanted in CASES:
        found = verdict(program(machine), architecture.audit, architecture.numbers[name], arguments)
        assert found == wanted, f"{name}{arguments}: {found:#x}"


@pytest.mark.parametrize("machine", ARCHITECTURES)
@given(protection=st.integers(0, 2**32 - 1), flags=st.integers(0, 2**32 - 1))
def test_no_memory_is_executable_or_uncounted(machine: str, protection: int, flags: int) -> None:
    architecture = ARCHITECTURES[machine]
    found = verdict(program(machine), architecture.audit, architecture.numbers["mmap"], (0, 4096, protection, flags, 5))
    uncounted = bool(flags & SHARED) and bool(flags & ANONYMOUS)
    assert found == (EPERM if protection & EXEC or uncounted else ALLOW)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_in_log_mode_everything_is_done_and_refusals_are_logged(machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    logging = program(machine, log_only=True)
    for number in NUMBERS:
        strict = verdict(program(machine), architecture.audit, number)
        wanted = strict if strict in (ALLOW, ENOSYS) else LOG
        assert verdict(logging, architecture.audit, number) == wanted
    for name, arguments, strict in CASES:
        wanted = ALLOW if strict == ALLOW else LOG
        assert verdict(logging, architecture.audit, architecture.numbers[name], arguments) == wanted
    assert verdict(logging, FOREIGN[machine][0], 20) == LOG


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_program_is_one_that_a_kernel_takes(machine: str) -> None:
    """At most 4096 instructions, every jump lands inside, and the last instruction returns."""
    steps = instructions(program(machine))
    assert len(steps) <= 4096
    for at, (code, if_true, if_false, _) in enumerate(steps):
        if code == 0x15:
            assert at + 1 + max(if_true, if_false) < len(steps)
    assert steps[-1][0] == 0x06


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_are_those_of_the_kernel_headers(machine: str, header: str) -> None:
    if not Path(header).is_file():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    text = Path(header).read_text()
    defined = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    if machine == "aarch64":
        defined["newfstatat"] = defined["fstatat"]  # called so where a word has 64 bits
    architecture = ARCHITECTURES[machine]
    assert {name: defined.get(name) for name in architecture.numbers} == architecture.numbers
    assert architecture.seccomp == defined["seccomp"]
    assert (defined["landlock_create_ruleset"], defined["landlock_restrict_self"]) == (444, 446)
    absent = X86_ONLY if machine == "aarch64" else set()
    assert not absent & set(defined)
