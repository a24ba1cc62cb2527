"""Files made to harm the server: refused or answered, fast and small, and nothing but their own bytes is read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.decode.processes import ProcessDecodeService
from handlers.errors import UnsupportedVideo
from handlers.limits import Limits
from handlers.specs import get_spec
from tests.support.decoding import decode
from tests.support.guarded import Guarded, check, guarded_service, listening
from tests.support.hostile import CANARY_PATH, calling_files, corpus_classes, costly_files
from tests.support.paths import CORPUS
from tests.support.tracing import TRACED, calls_of
from tests.support.videos import VideoPlan, make_video

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc, which only Linux has")

SPEC = get_spec("x3d_xs")


@pytest.fixture(scope="module")
def guarded(h264_video: bytes) -> Iterator[Guarded]:
    with guarded_service(SPEC, h264_video) as service:
        yield service


@pytest.fixture(scope="module")
def callers() -> Iterator[list[str]]:
    with listening() as seen:
        yield seen


@pytest.mark.parametrize("name", sorted(calling_files()))
def test_file_that_calls_out(guarded: Guarded, callers: list[str], name: str) -> None:
    outcome = check(guarded, calling_files()[name])
    assert outcome.status == "4xx"
    if not name.endswith((".mov", ".mp4", ".avi")):
        assert isinstance(outcome.error, UnsupportedVideo)
    assert callers == []


@pytest.mark.parametrize("name", sorted(costly_files()))
def test_file_that_declares_more_than_it_holds(guarded: Guarded, name: str) -> None:
    check(guarded, costly_files()[name])


@pytest.mark.parametrize("change", [False, True], ids=["from the start", "in mid-stream"])
def test_a_frame_over_the_limit_is_not_decoded(change: bool) -> None:
    small = make_video(VideoPlan(num_frames=6, width=160, height=120, container="h264"))
    large = make_video(VideoPlan(num_frames=6, width=320, height=240, container="h264"))
    service = ProcessDecodeService(SPEC, Limits(max_frame_pixels=320 * 240 - 1), processes=1)
    try:
        assert decode(service, small).type == "ok"
        outcome = decode(service, small + large if change else large)
        if outcome.report is not None:
            assert change
            assert (outcome.report.width, outcome.report.height) == (160, 120)
            assert any("damaged" in warning for warning in outcome.report.warnings)
        else:
            assert outcome.type == "FrameTooLarge"
            assert outcome.error is not None
            assert "320x240" in outcome.error.message
            assert "76799" in outcome.error.message
    finally:
        service.close()


CALLS = (
    "open,openat,openat2,creat,socket,connect,bind,sendto,execve,fork,vfork,clone,clone3,memfd_create,prlimit64,write"
)


ALLOWED_CALLS = (
    r"write\(|<... write|\+\+\+|clone3?\(.*CLONE_THREAD|<... clone"
    r"|openat\(AT_FDCWD, \"/proc/sys/vm/overcommit_memory\".* (EMFILE|EPERM)"
)
"""Its answers, its end, its threads, and a look that the C library takes when it gives memory back, in vain."""


def test_the_decoding_process_opens_nothing(h264_video: bytes, tmp_path: Path) -> None:
    """Every system call that could open a file, reach a network or start a process, as the kernel saw it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    files = {"good.mp4": h264_video, **calling_files(), **costly_files()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    hostile = [str(CORPUS / "hostile" / name) for name in sorted(corpus_classes())]
    log = tmp_path / "calls.log"
    command = ["strace", "-f", "-qq", "-s", "300", "-e", f"trace={CALLS}", "-o", str(log), sys.executable, "-c", TRACED]
    done = subprocess.run(
        [*command, *(str(tmp_path / name) for name in files), *hostile], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr and not done.stdout:
        pytest.skip("strace may not trace processes here")
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.split()
    assert first == last, "the decoding process had to be replaced"
    calls = calls_of(first, log.read_text().splitlines())
    sealed = next(index for index, call in enumerate(calls) if call.startswith("write(") and "Ready" in call)
    assert sealed > 10, "the process's own start was not traced"
    allowed = re.compile(ALLOWED_CALLS)
    assert [call for call in calls[sealed + 1 :] if not allowed.match(call)] == []
    assert CANARY_PATH not in log.read_text()
