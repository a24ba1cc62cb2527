"""The sandbox around real decoding processes: that it holds, costs no answer, and may be missing or be insisted on."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.decode import launch, processes
from handlers.decode.processes import ProcessDecodeService
from handlers.decode.sandbox import LAYERS
from handlers.errors import SetupError
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.codecs import MODERN
from handlers.video.sampling import VideoReport
from tests.support import evil_process
from tests.support.decoding import Outcome, decode
from tests.support.mutation import made_here, mutate, rare_here, sampling
from tests.support.paths import REPOSITORY
from tests.support.tracing import TRACED, calls_of, landlock_version

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")

SPEC = get_spec("x3d_xs")
OFFERED = LAYERS if landlock_version() else ("seccomp",)


@pytest.fixture
def start() -> Iterator[Callable[..., ProcessDecodeService]]:
    """`start(sandbox="auto", processes=1, codecs="wide")`: a service, closed at the end."""
    services: list[ProcessDecodeService] = []

    def started(sandbox: str = "auto", processes: int = 1, codecs: str = "wide") -> ProcessDecodeService:
        options: dict[str, Any] = {"sandbox": sandbox, "codecs": codecs}
        service = ProcessDecodeService(SPEC, Limits(), processes=processes, **options)
        services.append(service)
        return service

    yield started
    for service in services:
        service.close()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def comparable(outcome: Outcome) -> tuple[list[bytes], VideoReport | None, str]:
    """Views, report and error, without what was measured, and what is allowed, which the sandbox decides."""
    report = outcome.report
    if report is not None:
        report = replace(report, decode_ms=0.0, transform_ms=0.0)
    error = str(outcome.error).partition("; allowed: ")[0]
    return [views.tobytes() for views in outcome.views], report, f"{outcome.type}: {error}"


def test_decoding_processes_are_confined(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start("required" if OFFERED == LAYERS else "auto", processes=2)
    assert service.sandbox == OFFERED
    pids = service.process_ids()
    for pid in pids:
        assert (status(pid)["Seccomp"], status(pid)["NoNewPrivs"]) == ("2", "1")
    assert decode(service, h264_video).type == "ok"
    assert service.process_ids() == pids


def test_without_the_sandbox_nothing_is_installed(start: Callable[..., ProcessDecodeService]) -> None:
    service = start("none")
    assert service.sandbox == ()
    mine, theirs = status(os.getpid()), status(service.process_ids()[0])
    for field in ("Seccomp", "Seccomp_filters", "NoNewPrivs"):
        assert mine[field] == theirs[field]


@pytest.mark.parametrize("threads", [1, 3])
def test_answers_are_the_same_with_and_without(
    start: Callable[..., ProcessDecodeService], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Files of every container and codec, whole and, with one thread, damaged: what more threads conceal varies."""
    monkeypatch.setattr(processes, "_threads", lambda idle: threads)
    confined, free = start("auto"), start("none")
    files = made_here()
    mutants = [mutate(files, number) for number in range(60)] if threads == 1 else []
    for number, payload in enumerate([*files, *mutants]):
        with_sandbox, without = (decode(service, payload, sampling(number)) for service in (confined, free))
        assert comparable(with_sandbox) == comparable(without), f"file {number}"
    assert confined.losses == 0


def test_rare_formats_are_decoded_in_the_sandbox(start: Callable[..., ProcessDecodeService]) -> None:
    """Whole, cut off anywhere and damaged: an answer or a 4xx, and no process that ends."""
    service, free = start("auto", processes=2), start("none")
    files = rare_here()
    for payload in files:
        assert decode(service, payload).type == "ok"
        assert decode(free, payload).type == "UnsupportedVideo"
    cut = [payload[: len(payload) * tenths // 10] for payload in files for tenths in (1, 5, 9)]
    damaged = [mutate(files, number) for number in range(150)]
    outcomes = [decode(service, payload, sampling(number)) for number, payload in enumerate([*cut, *damaged])]
    assert {outcome.status for outcome in outcomes} == {"ok", "4xx"}
    assert service.losses == 0


def test_the_modern_profile_is_for_the_process_too(
    start: Callable[..., ProcessDecodeService], h264_video: bytes
) -> None:
    service = start(codecs="modern")
    assert decode(service, h264_video).type == "ok"
    refused = [decode(service, payload) for payload in rare_here()]
    assert {outcome.type for outcome in refused} == {"UnsupportedVideo"}
    assert {str(outcome.error).partition("; ")[2] for outcome in refused} == {
        f"allowed: {MODERN.shown_containers}",
        f"allowed: {', '.join(MODERN.decoders)}",
    }


def test_a_call_that_is_not_allowed_costs_only_its_job(
    start: Callable[..., ProcessDecodeService],
    h264_video: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(launch, "_CODE", launch._CODE.replace("handlers.decode.worker", evil_process.__name__))
    service = start()
    expected = decode(service, h264_video)
    attack = evil_process.evil_payload("a call that decoding does not make")
    for _ in range(3):
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert decode(service, attack).type == "UndecodableVideo"
        assert [record.getMessage() for record in caplog.records] == [
            "a decoding process was ended because it made a system call that is not allowed"
        ]
        assert comparable(decode(service, h264_video)) == comparable(expected)
        assert service.sandbox == OFFERED


@pytest.fixture
def refusing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`refusing("seccomp")`: decoding processes start under a filter that refuses these calls with EPERM."""

    def refuse(names: str) -> None:
        script = tmp_path / "python"
        around = f"{sys.executable} {REPOSITORY / 'tests/support/outer_filter.py'} 1 {names} {sys.executable}"
        script.write_text(f'#!/bin/sh\nexec {around} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return refuse


@pytest.mark.parametrize(
    ("refused", "held"),
    [("seccomp", ("landlock",)), ("landlock_create_ruleset", ("seccomp",)), ("seccomp,landlock_create_ruleset", ())],
)
def test_where_a_layer_is_refused(
    start: Callable[..., ProcessDecodeService],
    refusing: Callable[[str], None],
    h264_video: bytes,
    caplog: pytest.LogCaptureFixture,
    refused: str,
    held: tuple[str, ...],
) -> None:
    expected = comparable(decode(start("none"), h264_video))
    refusing(refused)
    held = tuple(layer for layer in held if layer in OFFERED)
    missing = [layer for layer in LAYERS if layer not in held]
    with caplog.at_level(logging.WARNING):
        service = start("auto", processes=2)
    assert len(caplog.records) == 1
    assert f"confined by {' and '.join(missing)};" in caplog.text
    needing = "are refused: dnxhd, ivf, mxf, ogg, prores, theora"
    assert (needing in caplog.text) == ("seccomp" in missing)
    assert service.sandbox == held
    assert comparable(decode(service, h264_video)) == expected
    with pytest.raises(SetupError, match=f"handler.sandbox is required.*missing: {', '.join(missing)}$"):
        start("required")


# Calls of one decoding process that its sandbox refused: what libraries try and do without. Another name here means
# that a new version of Python, PyAV or the C library tries something else; see handlers/decode/seccomp_filter.py.
KNOWN_TRIES = {"fstat", "newfstatat", "clone3", "openat"}


@pytest.mark.slow
def test_nothing_unexpected_is_refused(corpus: Path, h264_video: bytes, tmp_path: Path) -> None:
    """Over the corpus, as the kernel saw it; with the service's choice of threads and with three."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    (tmp_path / "first.mp4").write_bytes(h264_video)
    rare = [tmp_path / f"rare-{number}" for number in range(len(rare_here()))]
    for path, payload in zip(rare, rare_here(), strict=True):
        path.write_bytes(payload)
    names = [path for folder in ("made", "real", "hostile", "more") for path in sorted((corpus / folder).glob("*"))]
    files = [str(path) for path in [tmp_path / "first.mp4", *rare, *names] if 0 < path.stat().st_size < 400_000]
    assert len(files) > 200
    for code in (TRACED, "import handlers.decode.processes as i; i._threads = lambda idle: 3\n" + TRACED):
        log = tmp_path / "calls.log"
        command = ["strace", "-f", "-qq", "-s", "40", "-o", str(log), sys.executable, "-c", code, *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
        if "Operation not permitted" in done.stderr and not done.stdout:
            pytest.skip("strace may not trace processes here")
        assert done.returncode == 0, done.stderr
        first, last = done.stdout.split()
        assert first == last, "the decoding process had to be replaced"
        calls = calls_of(first, log.read_text(errors="replace").splitlines())
        ready = next(at for at, call in enumerate(calls) if call.startswith("write(") and "Ready" in call)
        refused = {
            call.split("(")[0].removeprefix("<... ").split()[0]
            for call in calls[ready:]
            if " = -1 EPERM" in call or " = -1 EBADF" in call or " = -1 ENOSYS" in call
        }
        assert refused <= KNOWN_TRIES
        assert {"fstat", "newfstatat"} & refused, "the filter was not there"
