"""A decoding process that dies, hangs, starves or is starved costs one request; and what such a process can reach."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from handlers.decode import launch
from handlers.decode.processes import ProcessDecodeService
from handlers.decode.service import DecodeJob
from handlers.decode.shared_slots import PayloadFile, SlotsFile
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from tests.support import evil_process
from tests.support.decoding import Outcome, decode, decode_all, finish, wait_until
from tests.support.videos import VideoPlan, make_video

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc, which only Linux has")

SPEC = get_spec("x3d_xs")
MANY = Sampling(num_clips=6)
"""More windows than there is room for: the process then waits, in the middle of the job, until views are taken."""

_IN_MEMORY = ("/memfd:", "/dev/shm/")


@pytest.fixture
def start() -> Iterator[Callable[..., ProcessDecodeService]]:
    """`start(processes=1, **limits)`: a service, closed at the end."""
    services: list[ProcessDecodeService] = []

    def started(processes: int = 1, **limits: float) -> ProcessDecodeService:
        service = ProcessDecodeService(SPEC, Limits(**limits), processes=processes)  # type: ignore[arg-type]
        services.append(service)
        return service

    yield started
    for service in services:
        service.close()


def begin(service: ProcessDecodeService, video: bytes) -> DecodeJob:
    """A job that has delivered a view and cannot end before its views are taken."""
    job = service.submit(video, MANY)
    while not job.deliveries:
        service.wait(1.0)
    assert not job.ended
    return job


def holder(service: ProcessDecodeService, job: DecodeJob) -> int:
    """The process that has this job."""
    return next(process.pid for process in service._processes if process.job is job)


def test_a_process_that_dies_costs_only_its_job(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start(processes=2)
    before = service.process_ids()
    doomed = begin(service, h264_video)
    neighbour = service.submit(h264_video, MANY)
    os.kill(before[0], signal.SIGKILL)
    first, second = finish(service, [doomed, neighbour], time.monotonic())
    assert first.type == "UndecodableVideo"
    assert second.type == "ok"
    assert len(second.views) == 6
    assert service.process_ids()[1] == before[1]
    assert service.process_ids()[0] != before[0]
    assert decode(service, h264_video).type == "ok"


def test_a_process_that_hangs_costs_only_its_job(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start(processes=2, decode_timeout_sec=1.0)
    hung = begin(service, h264_video)
    pid = service.process_ids()[0]
    os.kill(pid, signal.SIGSTOP)
    neighbour = service.submit(h264_video, MANY)
    started = time.monotonic()
    first, second = finish(service, [hung, neighbour], started)
    assert first.type == "DecodeTimeout"
    assert first.error is not None
    assert "1 s" in first.error.message
    assert second.type == "ok"
    assert time.monotonic() - started > 1.5
    assert not psutil.pid_exists(pid)
    assert decode(service, h264_video).type == "ok"


def test_a_job_behind_one_that_hangs_is_done(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start(decode_timeout_sec=1.0)
    hung = begin(service, h264_video)
    queued = service.submit(h264_video, Sampling())
    os.kill(service.process_ids()[0], signal.SIGSTOP)
    assert [outcome.type for outcome in finish(service, [hung, queued], time.monotonic())] == ["DecodeTimeout", "ok"]


def test_a_slow_model_is_no_decode_timeout(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start(decode_timeout_sec=0.5)
    pids = service.process_ids()
    job = service.submit(h264_video, MANY)
    seen = 0
    while not job.ended:
        service.wait()
        time.sleep(1.0 if seen < 4 else 0.0)  # the model, at work on this view or on another video's
        while job.deliveries:
            job.deliveries.popleft().release()
            seen += 1
    assert job.error is None, job.error
    assert seen == 6
    assert service.process_ids() == pids


def test_too_little_memory_is_an_answer(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start(decode_memory_mb=24)
    large = make_video(VideoPlan(num_frames=4, width=1920, height=1080, options={"preset": "ultrafast"}))
    outcome = decode(service, large)
    assert outcome.type == "UndecodableVideo"
    again = decode_all(service, [h264_video, large, h264_video])
    assert [one.type for one in again] == ["ok", "UndecodableVideo", "ok"]


def test_large_videos_one_after_another_take_no_more_memory_than_one(
    start: Callable[..., ProcessDecodeService],
) -> None:
    """Every frame is picked, by several windows: what is kept of them would pass the ceiling within a few videos."""
    service = start(decode_memory_mb=120)
    pids = service.process_ids()
    large = make_video(VideoPlan(num_frames=12, width=1280, height=960, options={"preset": "ultrafast"}))
    for _ in range(25):
        assert decode(service, large, Sampling(num_clips=4, num_crops=3)).type == "ok"
    assert service.process_ids() == pids


def test_a_process_killed_while_idle_is_replaced(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start()
    expected = decode(service, h264_video)
    for _ in range(3):
        pid = service.process_ids()[0]
        os.kill(pid, signal.SIGKILL)
        wait_until("the process to end", lambda pid=pid: _has_ended(pid))
        assert_equal(decode(service, h264_video), expected)


def _has_ended(child: int) -> bool:
    """With all its threads: a zombie may be the first thread alone, and its parent is not told yet."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_killing_the_replacement_too_is_survived(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start()
    job = begin(service, h264_video)
    os.kill(service.process_ids()[0], signal.SIGKILL)
    assert finish(service, [job], time.monotonic())[0].type == "UndecodableVideo"
    os.kill(service.process_ids()[0], signal.SIGKILL)  # most likely still importing
    outcome = decode(service, h264_video)
    assert outcome.type in ("ok", "InternalError")
    assert decode(service, h264_video).type == "ok"


def test_a_cancelled_job_leaves_the_next_alone(start: Callable[..., ProcessDecodeService], h264_video: bytes) -> None:
    service = start()
    expected = decode(service, h264_video)
    job = begin(service, h264_video)
    waiting = service.submit(h264_video, Sampling())
    service.cancel(job)
    assert_equal(finish(service, [waiting], time.monotonic())[0], expected)


def test_nothing_is_left_behind(
    start: Callable[..., ProcessDecodeService], h264_video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 jobs and 20 kills: no descriptor, process, mapping or file more than before, and the same answers.

    Only what this process and its children hold is looked at: other tests run beside it.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    service = start(processes=2)
    expected = decode_all(service, [h264_video] * 4)[0]
    me = psutil.Process()

    def held() -> dict[str, Any]:
        gc.collect()  # what an earlier test left in a cycle would otherwise go at some time in between
        return {
            "descriptors": me.num_fds(),
            "children": len(me.children(recursive=True)),
            "threads": me.num_threads(),
            "shared memory": Counter(m.path for m in me.memory_maps(grouped=False) if m.path.startswith(_IN_MEMORY)),
            "temporary files": len(list(tmp_path.iterdir())),
        }

    before = held()
    for _ in range(50):
        for outcome in decode_all(service, [h264_video] * 5 + [h264_video[:2000]]):
            assert outcome.type in ("ok", "UndecodableVideo")
    for turn in range(20):
        job = begin(service, h264_video)
        os.kill(holder(service, job), signal.SIGKILL if turn % 2 else signal.SIGSEGV)
        finish(service, [job], time.monotonic())
    assert_equal(decode(service, h264_video), expected)

    def differences() -> dict[str, object]:
        """What is held beyond that: a process that met an error is replaced while the service goes on, and a thread of
        an earlier test may have ended since."""
        service.wait(0)
        return {what: (amount, before[what]) for what, amount in held().items() if not amount <= before[what]}

    deadline = time.monotonic() + 30.0
    while (found := differences()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == {}
    assert not [child for child in me.children(recursive=True) if child.status() == psutil.STATUS_ZOMBIE]


def test_a_start_that_fails_leaves_nothing_behind(
    start: Callable[..., ProcessDecodeService], h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory for a new process: its job gets an error each time, and no descriptor stays open."""
    service = start()
    expected = decode(service, h264_video)
    os.kill(service.process_ids()[0], signal.SIGKILL)
    wait_until("the process to end", lambda: _has_ended(service.process_ids()[0]))

    def refuse(*_: object) -> None:
        raise OSError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("handlers.decode.child.launch", refuse)
        assert decode(service, h264_video).type == "InternalError"
        before = psutil.Process().num_fds()
        for _ in range(5):
            assert decode(service, h264_video).type == "InternalError"
        assert psutil.Process().num_fds() == before
    assert_equal(decode(service, h264_video), expected)


PARENT = """
import sys
from handlers.video.sampling import Sampling
from handlers.decode.processes import ProcessDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
service = ProcessDecodeService(get_spec("x3d_xs"), Limits(), processes=2)
job = service.submit(open(sys.argv[1], "rb").read(), Sampling(num_clips=6))
while not job.deliveries:
    service.wait(1)
print(*service.process_ids(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["working", "hung"])
def test_decoding_processes_end_with_their_parent(h264_video: bytes, tmp_path: Path, stopped: bool) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(h264_video)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(video)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(text) for text in parent.stdout.readline().split()]
        assert len(pids) == 2
        if stopped:
            os.kill(pids[0], signal.SIGSTOP)
        parent.kill()
    wait_until("every decoding process to end", lambda: not any(map(psutil.pid_exists, pids)))


def test_a_service_outlives_the_thread_that_made_it(h264_video: bytes) -> None:
    """Linux ends the children of a thread that asked for it: the service has to start them anew."""
    made: list[ProcessDecodeService] = []
    thread = threading.Thread(target=lambda: made.append(ProcessDecodeService(SPEC, Limits(), processes=1)))
    thread.start()
    thread.join()
    try:
        assert decode(made[0], h264_video).type in ("ok", "UndecodableVideo")
        assert decode(made[0], h264_video).type == "ok"
    finally:
        made[0].close()


def test_a_decoding_process_holds_nothing_worth_taking(
    start: Callable[..., ProcessDecodeService], h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "a secret of the server")
    service = start()
    pid = service.process_ids()[0]
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"secret" not in environment
    names = {entry.split(b"=")[0].decode() for entry in environment.split(b"\0") if entry}
    settings = {name for name in names if name.startswith("MALLOC_") or name.endswith("_NUM_THREADS")}
    assert names - settings <= {"PATH", "LD_LIBRARY_PATH", "LANG", "PYTHONDONTWRITEBYTECODE"}
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    mapped = Path(f"/proc/{pid}/maps").read_text()
    assert "libav" in mapped
    assert "libtorch" not in mapped
    assert "openvino" not in mapped


@pytest.mark.parametrize("gaps", [0, 40], ids=["few descriptors", "gaps among descriptors"])
def test_no_descriptor_is_free_while_bytes_are_decoded(
    start: Callable[..., ProcessDecodeService], h264_video: bytes, gaps: int
) -> None:
    """Nothing can be opened, no socket made: the process may have as many descriptors as it holds."""
    fillers = [os.open("/dev/null", os.O_RDONLY) for _ in range(gaps)]
    try:
        service = start()
    finally:
        for filler in fillers:
            os.close(filler)
    job = begin(service, h264_video)
    pid = service.process_ids()[0]
    limit = psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)
    held = {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert limit == (len(held), len(held))
    assert {int(entry) for entry in held} == set(range(len(held)))
    others = {target for entry, target in held.items() if int(entry) > 2} - {"/dev/null"}
    assert all(target.startswith(("socket:", "/memfd:")) for target in others), others
    assert len([target for target in held.values() if target.startswith("socket:")]) == 1
    finish(service, [job], time.monotonic())


def test_no_core_is_dumped_and_memory_has_a_ceiling(start: Callable[..., ProcessDecodeService]) -> None:
    service = start(decode_memory_mb=100)
    process = psutil.Process(service.process_ids()[0])
    # Of a limit of 0 the kernel takes no notice where cores go to a program; of 1 it does.
    assert process.rlimit(psutil.RLIMIT_CORE) == (1, 1)
    ceiling = process.rlimit(psutil.RLIMIT_DATA)[1]
    status = Path(f"/proc/{process.pid}/status").read_text()
    data = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    assert data < ceiling <= data + 110 * 2**20


HANGING = [act for act, types in evil_process.ACTS.items() if "DecodeTimeout" in types]


@pytest.fixture(scope="module")
def make_evil() -> Iterator[Callable[..., ProcessDecodeService]]:
    """`make_evil(processes, decode_timeout_sec)`: a service, closed at the end, whose processes turn against the server
    for payloads made by `evil_payload`.

    Without the sandbox, which would keep much of that from the server: this side must not depend on it.
    """
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(launch, "_CODE", launch._CODE.replace("handlers.decode.worker", evil_process.__name__))

        def made(processes: int, decode_timeout_sec: float) -> ProcessDecodeService:
            limits = Limits(decode_timeout_sec=decode_timeout_sec)
            service = ProcessDecodeService(SPEC, limits, processes=processes, sandbox="none")
            stack.callback(service.close)
            return service

        yield made


@pytest.fixture(scope="module")
def evil_service(make_evil: Callable[..., ProcessDecodeService]) -> ProcessDecodeService:
    return make_evil(2, 60.0)  # honest jobs take long on a machine that stalls for a moment


@pytest.fixture(scope="module")
def expected(evil_service: ProcessDecodeService, h264_video: bytes) -> Outcome:
    """What `MANY` windows of the honest video are."""
    return decode(evil_service, h264_video, MANY)


@pytest.mark.parametrize("act", [act for act in evil_process.ACTS if act not in HANGING])
def test_a_process_that_turns_against_the_server_costs_only_its_job(
    evil_service: ProcessDecodeService, h264_video: bytes, expected: Outcome, act: str
) -> None:
    evil = evil_service.submit(evil_process.evil_payload(act), MANY)
    other = evil_service.submit(h264_video, MANY)
    first, second = finish(evil_service, [evil, other], time.monotonic())
    assert first.type in evil_process.ACTS[act], first.error
    for outcome in (second, *decode_all(evil_service, [h264_video] * 2, MANY)):
        assert_equal(outcome, expected)


def test_processes_that_hang_cost_only_their_jobs(
    make_evil: Callable[..., ProcessDecodeService], h264_video: bytes, expected: Outcome
) -> None:
    """All at once, for each takes as long as is allowed."""
    processes = len(HANGING) + 1
    service = make_evil(processes, 8.0)
    payloads = [*map(evil_process.evil_payload, HANGING), *[h264_video] * 3]
    outcomes = decode_all(service, payloads, MANY)
    hung, honest = outcomes[: len(HANGING)], outcomes[len(HANGING) :]
    for act, outcome in zip(HANGING, hung, strict=True):
        assert outcome.type in evil_process.ACTS[act], (act, outcome.error)
    for outcome in (*honest, *decode_all(service, [h264_video] * processes, MANY)):
        assert_equal(outcome, expected)


def test_what_a_process_prints_goes_nowhere(
    evil_service: ProcessDecodeService, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server reads metrics from its workers' output."""
    assert decode(evil_service, evil_process.evil_payload("print")).type == "ok"
    assert capfd.readouterr() == ("", "")


def test_the_slots_cannot_be_resized() -> None:
    file = SlotsFile(SPEC)
    for size in (0, 1, 2**32):
        with pytest.raises(PermissionError):
            os.ftruncate(file.descriptor, size)
    file.close()


def test_the_payload_can_only_be_read_and_is_gone_after_the_job() -> None:
    file = PayloadFile()
    file.put(b"a video")
    assert os.pread(file.readable, 100, 0) == b"a video"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(file.readable, b"x", 0)
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(file.readable, 0)
    file.wipe()
    assert os.pread(file.readable, 100, 0) == b""
    file.close()


def assert_equal(one: Outcome, other: Outcome) -> None:
    """The same views, bit for bit."""
    assert one.type == other.type == "ok"
    assert len(one.views) == len(other.views)
    for mine, theirs in zip(one.views, other.views, strict=True):
        np.testing.assert_array_equal(mine, theirs)
