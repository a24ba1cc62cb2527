"""What code inside a confined process can still do: attacks from such a process, and kernels that refuse a layer."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from handlers.decode.sandbox import confine
from tests.support.attacks import Targets, attacks
from tests.support.paths import REPOSITORY
from tests.support.tracing import landlock_version

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")

BOTH = ("landlock", "seccomp")
SECRET = ctypes.create_string_buffer(b"secret")

OUTCOMES = {
    **dict.fromkeys(
        (
            "read a file",
            "write a file",
            "append to a file",
            "stat a path",
            "stat in an earlier thread",
            "list a folder",
            "read a link",
            "the parent's memory in /proc",
            "the parent's descriptor in /proc",
            "map writable code",
            "map a file as code",
            "mprotect to code",
            "map 4 GiB of shared memory",
            "map one shared page",
            "raise a limit",
            "handle a signal",
            "become dumpable",
            "seccomp by prctl",
            "writev to the log",
            "log in the pipe's place",
        ),
        "EPERM",
    ),
    **dict.fromkeys(("write to the log", "write to the error log", "read elsewhere"), "EBADF"),
    "clone3": "ENOSYS",
    "abort": "SIGABRT",
    "work as usual": "done",
    "work after a thread that ends": "done",
}
"""What becomes of each attack. Those that are not named here end the process: SIGSYS."""

WORK_OTHERWISE = (
    "read a file",
    "write a file",
    "append to a file",
    "stat a path",
    "stat in an earlier thread",
    "list a folder",
    "read a link",
    "remove a file",
    "make a folder",
    "change the folder",
    "connect by TCP",
    "listen for TCP",
    "socket in an earlier thread",
    "send by UDP",
    "connect to an abstract socket",
    "connect to a socket in a folder",
    "pair of sockets",
    "posix_spawn",
    "fork",
    "clone like fork",
    "kill",
    "tgkill",
    "memfd_create",
    "map writable code",
    "map a file as code",
    "mprotect to code",
    "map 4 GiB of shared memory",
    "map one shared page",
    "shmget",
    "shrink shared memory",
    "fallocate",
    "raise a limit",
    "handle a signal",
    "become dumpable",
    "write to the log",
    "write to the error log",
    "writev to the log",
    "pwrite64",
    "log in the pipe's place",
    "dup2 of the log",
    "work as usual",
)
"""Attacks that any user's process can make where nothing confines it. The others need rights, or a policy's consent."""

BY_LANDLOCK = (  # attack, error, the version of Landlock that refuses it
    ("read a file", "EACCES", 1),
    ("write a file", "EACCES", 1),
    ("list a folder", "EACCES", 1),
    ("remove a file", "EACCES", 1),
    ("make a folder", "EACCES", 1),
    ("posix_spawn", "EACCES", 1),
    ("ptrace", "EPERM", 1),
    ("process_vm_readv", "EPERM", 1),
    ("the parent's memory in /proc", "EACCES", 1),
    ("connect by TCP", "EACCES", 4),
    ("kill", "EPERM", 6),
    ("connect to an abstract socket", "EPERM", 6),
)

X86_ONLY = {"vfork", "modify_ldt"}
_NOBODY = Targets(0, "", "", 0, 0, "", "", 0, 0)
ON_X86 = os.uname().machine == "x86_64"
NAMES = [name for name in attacks(_NOBODY, 0) if name != "int 0x80" and (ON_X86 or name not in X86_ONLY)]


@dataclass(frozen=True, slots=True)
class Result:
    """The layers that the attacker was told of, and an error's name, a signal's name or `done`."""

    layers: tuple[str, ...] | None
    outcome: str
    log: bytes


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Targets]:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    unix, abstract = str(tmp_path / "socket"), f"sandbox test {os.getpid()}"
    tcp, unix_family = (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_STREAM)
    with ExitStack() as stack:
        made = []
        for (family, kind), address in (
            (tcp, ("127.0.0.1", 0)),
            ((socket.AF_INET, socket.SOCK_DGRAM), ("127.0.0.1", 0)),
            (unix_family, unix),
            (unix_family, "\0" + abstract),
        ):
            made.append(stack.enter_context(socket.socket(family, kind)))
            made[-1].bind(address)
            if kind == socket.SOCK_STREAM:
                made[-1].listen()
        memory = os.memfd_create("outbox")
        stack.callback(os.close, memory)
        os.ftruncate(memory, 4096)
        yield Targets(
            pid=os.getpid(),
            secret_file=str(secret),
            new_file=str(tmp_path / "new"),
            tcp_port=made[0].getsockname()[1],
            udp_port=made[1].getsockname()[1],
            unix_socket=unix,
            abstract_socket=abstract,
            secret_address=ctypes.addressof(SECRET),
            memory_file=memory,
        )


def run(name: str, targets: Targets, mode: str = "confined", *, outer: tuple[int, str] | None = None) -> Result:
    """One attack in a process of its own; `outer` is an error number and the calls that an outer filter answers."""
    ours, theirs = socket.socketpair()
    inherited = (theirs.fileno(), targets.memory_file)
    around = [] if outer is None else [sys.executable, "-m", "tests.support.outer_filter", str(outer[0]), outer[1]]
    attack = [sys.executable, "-m", "tests.support.attacks", name, str(theirs.fileno()), json.dumps(asdict(targets))]
    with ours, subprocess.Popen(
        [*around, *attack, mode],
        pass_fds=inherited,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        theirs.close()
        ours.settimeout(60)
        said = b""
        while piece := ours.recv(4096):
            said += piece
        log, _ = process.communicate()
    lines = [json.loads(line) for line in said.split(b"\n") if line]
    assert lines, f"the attacker failed before it was confined: {log.decode()}"
    layers = tuple(lines[0])
    if process.returncode < 0:
        return Result(layers, signal.Signals(-process.returncode).name, log)
    assert len(lines) == 2, f"the attacker failed: {log.decode()}"
    return Result(layers, lines[1], log)


def test_this_kernel_has_both_layers(targets: Targets) -> None:
    """Else the tests below say little. Seccomp is in every kernel that Linux distributions build."""
    status = Path("/proc/self/status").read_text()
    assert "\nSeccomp:" in status
    assert run("work as usual", targets).layers == (BOTH if landlock_version() else ("seccomp",))


@pytest.mark.parametrize("name", NAMES)
def test_attack_from_inside(targets: Targets, name: str) -> None:
    result = run(name, targets)
    assert result.outcome == OUTCOMES.get(name, "SIGSYS")
    assert b"forged" not in result.log
    assert Path(targets.secret_file).read_bytes() == b"secret"
    assert not Path(targets.new_file).exists()
    assert os.fstat(targets.memory_file).st_size == 4096


@pytest.mark.skipif(not ON_X86, reason="only x86-64 has such calls")
def test_a_call_of_32_bit_processes_ends_the_process(targets: Targets) -> None:
    """Its numbers mean other calls. A kernel that is built without them ends the process by itself."""
    without = run("int 0x80", targets, "free").outcome
    assert without in ("done", "SIGSEGV")
    assert run("int 0x80", targets).outcome == ("SIGSYS" if without == "done" else without)


@pytest.mark.parametrize("name", WORK_OTHERWISE)
def test_the_attack_works_where_nothing_confines_it(targets: Targets, name: str) -> None:
    """Without this, an attack with a mistake in it would count as refused."""
    assert run(name, targets, "free").outcome == "done"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", ["nobody", "no capabilities"])
@pytest.mark.parametrize("name", ["work as usual", "stat a path", "fork", "map writable code"])
def test_neither_layer_needs_a_privilege(targets: Targets, name: str, mode: str) -> None:
    result = run(name, targets, mode)
    assert result.layers == (BOTH if landlock_version() else ("seccomp",))
    assert result.outcome == OUTCOMES.get(name, "SIGSYS")


@pytest.mark.parametrize(("name", "error", "version"), BY_LANDLOCK)
def test_landlock_alone(targets: Targets, name: str, error: str, version: int) -> None:
    result = run(name, targets, outer=(1, "seccomp"))
    assert result.layers == (("landlock",) if landlock_version() else ())
    if landlock_version() >= version:
        assert result.outcome == error


@pytest.mark.parametrize("name", ["read a file", "connect by TCP", "kill", "fork", "work as usual"])
@pytest.mark.parametrize("error", [1, 38])  # EPERM as by a policy, ENOSYS as by an old kernel
def test_seccomp_alone(targets: Targets, name: str, error: int) -> None:
    result = run(name, targets, outer=(error, "landlock_create_ruleset"))
    assert result.layers == ("seccomp",)
    assert result.outcome == OUTCOMES.get(name, "SIGSYS")


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (1, "seccomp,landlock_create_ruleset"),
        (1, "seccomp,landlock_restrict_self"),
        (38, "seccomp,landlock_create_ruleset,landlock_restrict_self"),
        (1, "prctl"),
    ],
)
def test_where_both_are_refused_the_process_works_on(targets: Targets, error: int, refused: str) -> None:
    for name in ("work as usual", "read a file"):
        assert run(name, targets, outer=(error, refused)) == Result((), "done", b"")


@pytest.mark.parametrize(
    ("claimed", "held"),
    [
        ("seccomp", ("landlock",)),
        ("landlock_restrict_self", ("seccomp",)),
        ("landlock_create_ruleset,landlock_restrict_self", ("seccomp",)),
        ("seccomp,landlock_create_ruleset,landlock_restrict_self", ()),
    ],
)
def test_a_layer_that_only_seems_to_be_there_is_not_reported(
    targets: Targets, claimed: str, held: tuple[str, ...]
) -> None:
    """Calls that return 0 and do nothing, as in an incomplete emulation of the kernel."""
    expected = tuple(layer for layer in held if layer == "seccomp" or landlock_version())
    assert run("work as usual", targets, outer=(0, claimed)).layers == expected


def test_landlock_is_not_reported_where_threads_run_already(targets: Targets) -> None:
    """They are not restricted by it; the filter holds in every thread."""
    assert run("stat in an earlier thread", targets).layers == ("seccomp",)


def test_a_thread_that_has_ended_is_waited_for(targets: Targets) -> None:
    """Python's join returns before the kernel is done with a thread."""
    assert run("work after a thread that ends", targets).layers == (BOTH if landlock_version() else ("seccomp",))


def test_in_log_mode_nothing_is_refused(targets: Targets) -> None:
    for name in ("read a file", "fork", "map one shared page", "write to the log"):
        result = run(name, targets, "log")
        assert (result.layers, result.outcome) == ((), "done")


def test_another_operating_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert confine(0, 1) == ()
