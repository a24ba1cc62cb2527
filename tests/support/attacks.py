"""What code inside the decoding process could try: each attack does one thing and raises OSError if it is refused.

    python -m tests.support.attacks NAME DESCRIPTOR TARGETS MODE

prepares the attack NAME, confines itself (MODE `confined`, else it does not), makes the attempt, and writes to the
descriptor one line of JSON with the layers and one with what happened. A call that ends the process leaves the first
line only. TARGETS is JSON of `Targets`. The modes `nobody` and `no capabilities` are `confined` for such a user.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from handlers.decode.sandbox import confine

Attempt = Callable[[], object]

_ARM = os.uname().machine == "aarch64"
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long
_LIBC.mmap.restype = ctypes.c_void_p
_PAGE = mmap.PAGESIZE
_MAP_FAILED = ctypes.c_void_p(-1).value
_MAP_NORESERVE = 0x4000
_PR_SET_DUMPABLE, _PR_SET_SECCOMP = 4, 22


@dataclass(frozen=True, slots=True)
class Targets:
    """What there is to attack outside: everything belongs to the parent."""

    pid: int
    secret_file: str
    new_file: str
    tcp_port: int
    udp_port: int
    unix_socket: str
    abstract_socket: str
    secret_address: int
    memory_file: int
    """A descriptor of the parent's, which the attacker has inherited under the same number."""


def _call(x86_64: int, aarch64: int, *arguments: int) -> Callable[[], int]:
    """A system call by its numbers; -1 for an architecture that does not have it."""

    def attempt() -> int:
        number = aarch64 if _ARM else x86_64
        result = int(_LIBC.syscall(*[ctypes.c_long(value) for value in (number, *arguments)]))
        if result < 0:
            raise OSError(ctypes.get_errno(), "refused")
        return result

    return attempt


def _checked(result: int) -> int:
    if result in (-1, _MAP_FAILED):
        raise OSError(ctypes.get_errno(), "refused")
    return result


def _map(size: int, protection: int, flags: int, descriptor: int = -1) -> int:
    arguments = map(ctypes.c_long, (0, size, protection, flags, descriptor, 0))
    return _checked(_LIBC.mmap(*arguments))


def _connect(family: int, kind: int, address: tuple[str, int] | str) -> Attempt:
    def attempt() -> None:
        with socket.socket(family, kind) as made:
            made.connect(address)
            made.send(b"secret")

    return attempt


def _listen() -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _raw_clone(flags: int) -> Attempt:
    def attempt() -> None:
        if _call(56, 220, flags, 0, 0, 0, 0)() == 0:
            os._exit(0)
        os.wait()

    return attempt


def _spawn() -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def _read_memory(target: Targets) -> Attempt:
    here = ctypes.create_string_buffer(6)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(here), 6)  # struct iovec
    remote = (ctypes.c_size_t * 2)(target.secret_address, 6)

    def attempt() -> None:
        _call(310, 270, target.pid, ctypes.addressof(local), 1, ctypes.addressof(remote), 1, 0)()
        assert here.raw == b"secret"

    return attempt


def _take_descriptor(target: Targets) -> None:
    """pidfd_open, pidfd_getfd."""
    process = _call(434, 434, target.pid, 0)()
    _call(438, 438, process, target.memory_file, 0)()


def _read_proc_memory(target: Targets) -> None:
    with Path(f"/proc/{target.pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(target.secret_address)
        assert memory.read(6) == b"secret"


def _make_executable() -> Attempt:
    address = _map(_PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    libc_mprotect = _LIBC.mprotect
    return lambda: _checked(libc_mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_PAGE), mmap.PROT_EXEC))


def _machine_code(code: bytes) -> Attempt:
    """Code that was put into memory before: whoever has found a hole in a decoder needs no new executable page."""
    page = mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    page.write(code)
    start = ctypes.c_char.from_buffer(page)  # keeps the page mapped
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(start))
    return lambda: (run(), start)


def _swap_pipe(pipe: int) -> None:
    """Put the log, descriptor 1, where writing is allowed."""
    os.close(pipe)
    _call(72, 25, 1, 1030, pipe)()
    os.write(pipe, b"[METRICS]forged\n")


def _in_a_thread(attempt: Attempt) -> Attempt:
    """In a thread that runs since before the process was confined."""
    go, errors = threading.Event(), list[OSError]()

    def run() -> None:
        go.wait()
        try:
            attempt()
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def let_it_run() -> None:
        go.set()
        thread.join()
        for error in errors:
            raise error

    return let_it_run


def _after_a_thread_that_ends() -> Attempt:
    """A thread that Python does not know, still there when the process is confined."""
    thread = ctypes.c_ulong()
    sleep = ctypes.cast(_LIBC.usleep, ctypes.c_void_p)
    assert _LIBC.pthread_create(ctypes.byref(thread), None, sleep, ctypes.c_void_p(300_000)) == 0
    return _work_as_usual


def _work_as_usual() -> None:
    """What a decoder does, and must be able to do."""
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(sum(bytearray(8 * 2**20)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0, 0, 0]
    assert threading.Event().wait(0.001) is False
    assert len(os.urandom(8)) == 8


def attacks(target: Targets, pipe: int) -> dict[str, Callable[[], Attempt]]:
    """By name; the outer call prepares, before the process is confined, and the inner one attempts."""
    tcp, unix, datagram = socket.SOCK_STREAM, socket.AF_UNIX, socket.SOCK_DGRAM
    descriptor, pid = target.memory_file, target.pid
    shared = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    simple: dict[str, Attempt] = {
        "read a file": lambda: Path(target.secret_file).read_bytes(),
        "write a file": lambda: Path(target.new_file).write_bytes(b"was here"),
        "append to a file": lambda: Path(target.secret_file).open("ab").close(),
        "stat a path": lambda: Path(target.secret_file).stat(),
        "list a folder": lambda: os.listdir("/"),  # noqa: PTH208
        "read a link": lambda: Path("/proc/self/exe").readlink(),
        "list an open folder": _call(217, 61, 0, 0, 0),
        "remove a file": lambda: Path(target.secret_file).unlink(),
        "make a folder": lambda: Path(target.new_file).mkdir(),
        "change the folder": lambda: os.chdir("/tmp"),
        "change the root": lambda: os.chroot("/tmp"),
        "connect by TCP": _connect(socket.AF_INET, tcp, ("127.0.0.1", target.tcp_port)),
        "listen for TCP": _listen,
        "send by UDP": _connect(socket.AF_INET, datagram, ("127.0.0.1", target.udp_port)),
        "connect to an abstract socket": _connect(unix, tcp, "\0" + target.abstract_socket),
        "connect to a socket in a folder": _connect(unix, tcp, target.unix_socket),
        "pair of sockets": lambda: socket.socketpair(),
        "execve": lambda: os.execv("/bin/true", ["true"]),
        "execveat": _call(322, 281, -100, 0, 0, 0, 0),
        "posix_spawn": _spawn,
        "fork": _fork,
        "vfork": _call(58, -1),
        "clone like fork": _raw_clone(signal.SIGCHLD),
        "clone into a user namespace": _raw_clone(signal.SIGCHLD | 0x1000_0000),
        "clone3": _call(435, 435, 0, 0),
        "unshare": _call(272, 97, 0x1000_0000),
        "setns": _call(308, 268, descriptor, 0),
        "kill": lambda: os.kill(pid, 0),
        "kill itself": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "tgkill": _call(234, 131, pid, pid, 0),
        "tgkill itself": lambda: signal.raise_signal(signal.SIGTERM),
        "queue a signal": _call(129, 138, pid, 0, 0),
        "ptrace": _call(101, 117, 0x4206, pid, 0, 0),  # PTRACE_SEIZE
        "process_vm_writev": _call(311, 271, pid, 0, 0, 0, 0, 0),
        "pidfd_open": _call(434, 434, pid, 0),
        "pidfd_getfd": lambda: _take_descriptor(target),
        "the parent's memory in /proc": lambda: _read_proc_memory(target),
        "the parent's descriptor in /proc": lambda: Path(f"/proc/{pid}/fd/{descriptor}").open("r+b").close(),
        "memfd_create": lambda: os.memfd_create("code"),
        "map writable code": lambda: _map(_PAGE, 7, private),
        "map a file as code": lambda: _map(_PAGE, mmap.PROT_EXEC | mmap.PROT_READ, mmap.MAP_SHARED, descriptor),
        "pkey_mprotect": _call(329, 288, 0, 0, 0, -1),
        "map 4 GiB of shared memory": lambda: _map(2**32, 3, shared | _MAP_NORESERVE),
        "map one shared page": lambda: _map(_PAGE, 3, shared),
        "shmget": _call(29, 194, 0, _PAGE, 0o1600),
        "shrink shared memory": lambda: os.ftruncate(descriptor, 0),
        "fallocate": _call(285, 47, descriptor, 3, 0, _PAGE),
        "io_uring_setup": _call(425, 425, 1, 0),
        "userfaultfd": _call(323, 282, 1),
        "keyctl": _call(250, 219, 0, -3, 0),
        "add_key": _call(248, 217, 0, 0, 0, 0, -3),
        "bpf": _call(321, 280, 0, 0, 0),
        "perf_event_open": _call(298, 241, 0, 0, -1, -1, 0),
        "open by handle": _call(304, 265, -100, 0, 0),
        "mount": _call(165, 40, 0, 0, 0, 0, 0),
        "modify_ldt": _call(154, -1, 0, 0, 0),
        "personality": _call(135, 92, 0x0040_0000),  # READ_IMPLIES_EXEC
        "setuid": lambda: os.setuid(0),
        "capset": _call(126, 91, 0, 0),
        "raise a limit": _call(302, 261, 0, resource.RLIMIT_CORE, 0, 0),
        "change priority": _call(141, 140, 0, 0, 19),
        "handle a signal": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
        "become dumpable": lambda: _checked(_LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)),
        "seccomp by prctl": lambda: _checked(_LIBC.prctl(_PR_SET_SECCOMP, 2, 0, 0, 0)),
        "seccomp": _call(317, 277, 1, 0, 0),
        "landlock": _call(444, 444, 0, 0, 1),
        "futex with priority inheritance": _call(202, 98, 0, 6, 0, 0, 0, 0),
        "write to the log": lambda: os.write(1, b"[METRICS]forged\n"),
        "write to the error log": lambda: os.write(2, b"forged\n"),
        "writev to the log": lambda: os.writev(1, [b"[METRICS]forged\n"]),
        "pwrite64": lambda: os.pwrite(descriptor, b"x", 0),
        "sendfile to the log": _call(40, 71, 1, descriptor, 0, 1),
        "log in the pipe's place": lambda: _swap_pipe(pipe),
        "dup2 of the log": lambda: os.dup2(1, pipe),
        "read elsewhere": lambda: os.read(0, 1),
        "send on the pipe": _call(44, 206, pipe, 0, 0, 0, 0, 0),
        "send a descriptor": _call(46, 211, pipe, 0, 0),
        "call of x32": _call(0x4000_0027, 0x4000_0027),
        "unknown call": _call(1023, 1023),
        "abort": os.abort,
        "work as usual": _work_as_usual,
    }
    prepared: dict[str, Callable[[], Attempt]] = {
        "process_vm_readv": lambda: _read_memory(target),
        "mprotect to code": _make_executable,
        "int 0x80": lambda: _machine_code(bytes.fromhex("b814000000cd80c3")),  # mov eax, 20 (getpid); int 0x80; ret
        "stat in an earlier thread": lambda: _in_a_thread(simple["stat a path"]),
        "work after a thread that ends": _after_a_thread_that_ends,
        "socket in an earlier thread": lambda: _in_a_thread(_listen),
    }
    return {**{name: (lambda attempt=attempt: attempt) for name, attempt in simple.items()}, **prepared}  # type: ignore[misc]


def _drop_capabilities() -> None:
    header, data = (ctypes.c_uint32 * 2)(0x2008_0522, 0), (ctypes.c_uint32 * 6)()  # version 3, this process; none
    _checked(_LIBC.capset(ctypes.byref(header), ctypes.byref(data)))


def main() -> None:
    name, pipe, target, mode = sys.argv[1], int(sys.argv[2]), Targets(**json.loads(sys.argv[3])), sys.argv[4]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    attempt = attacks(target, pipe)[name]()
    if mode == "nobody":
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    elif mode == "no capabilities":
        _drop_capabilities()
    layers = () if mode == "free" else confine(pipe, pipe, log_only=mode == "log")
    os.write(pipe, json.dumps(layers).encode() + b"\n")
    spare = os.dup(pipe) if mode == "free" else pipe  # for an attack that puts something in the pipe's place
    try:
        attempt()
    except OSError as error:
        outcome = errno.errorcode.get(error.errno or 0, str(error))
    else:
        outcome = "done"
    os.write(spare, json.dumps(outcome).encode() + b"\n")


if __name__ == "__main__":
    main()
