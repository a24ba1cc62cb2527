"""Decoding processes that are replaced although they work: after an error inside FFmpeg, or after every job."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from handlers.decode import launch, replacement
from handlers.decode.processes import ProcessDecodeService
from handlers.decode.service import DecodeJob
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from tests.support.decoding import decode, decode_all, wait_until
from tests.support.videos import VideoPlan, make_video

SPEC = get_spec("x3d_xs")

Start = Callable[..., ProcessDecodeService]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(processes=1, one_job_each=False, **limits)`: a service, closed at the end."""
    services: list[ProcessDecodeService] = []

    def started(processes: int = 1, *, one_job_each: bool = False, **limits: Any) -> ProcessDecodeService:
        service = ProcessDecodeService(SPEC, Limits(**limits), processes=processes, one_job_each=one_job_each)
        services.append(service)
        return service

    yield started
    for service in services:
        service.close()


def without_index() -> bytes:
    """Cut off in the middle of the frames: its index is missing."""
    return make_video(VideoPlan(num_frames=20, width=96, height=80))[:2000]


def damaged_within() -> bytes:
    """Its frames give way to noise in the middle."""
    content = make_video(VideoPlan(num_frames=60, width=96, height=80))
    middle, end = len(content) // 3, content.index(b"moov") - 4
    return content[:middle] + np.random.RandomState(7).bytes(end - middle) + content[end:]


def let_it_start(service: ProcessDecodeService) -> None:
    """Until no process of the service is starting, as a worker that waits for requests does."""
    service.wait(0.0, also_for_wakeup=True)
    wait_until("every process has started", lambda: settled(service))


def settled(service: ProcessDecodeService) -> bool:
    service.wait(0.05, also_for_wakeup=True)
    return service._replacement.successor is None and not any(each.is_starting for each in service._processes)


@pytest.mark.parametrize("broken", [without_index, damaged_within])
def test_an_error_inside_ffmpeg_replaces_the_process_in_the_background(
    start: Start, h264_video: bytes, broken: Callable[[], bytes]
) -> None:
    service = start()
    expected = decode(service, h264_video)
    (before,), layers = service.process_ids(), service.sandbox
    outcome = decode(service, broken())
    assert outcome.type == "UndecodableVideo" or (outcome.report is not None and outcome.report.warnings)
    assert service._processes[0].met_error
    let_it_start(service)
    (after,) = service.process_ids()
    assert after != before
    with pytest.raises(ProcessLookupError):
        subprocess.os.kill(before, 0)  # type: ignore[attr-defined]
    assert service.restarts == {"lost": 0, "error": 1}
    assert service.sandbox == layers
    assert (decode(service, h264_video).views[0] == expected.views[0]).all()
    assert service.process_ids() == [after]


def test_what_our_own_checks_refuse_replaces_nothing(start: Start, h264_video: bytes) -> None:
    service = start(max_video_sec=1.9, max_windows=4)
    before = service.process_ids()
    short = make_video(VideoPlan(num_frames=20, width=96, height=80))
    other = make_video(
        VideoPlan(num_frames=6, width=96, height=80, codec="huffyuv", container="avi", pix_fmt="yuv422p")
    )
    types = [
        decode(service, b"#EXTM3U\n").type,
        decode(service, other).type,
        decode(service, h264_video).type,
        decode(service, short, Sampling(start_sec=100.0)).type,
        decode(service, short, Sampling(num_clips=9)).type,
        decode(service, short).type,
    ]
    assert types == ["UnsupportedVideo", "UnsupportedVideo", "VideoTooLong", "EmptyClip", "InvalidOption", "ok"]
    assert not service._processes[0].met_error
    let_it_start(service)
    assert service.process_ids() == before


def test_jobs_do_not_wait_for_the_successor(start: Start, h264_video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    service = start()
    before = service.process_ids()
    monkeypatch.setattr(launch, "_CODE", "import time; time.sleep(600)  # {root}")
    decode(service, without_index())
    for _ in range(3):
        assert decode(service, h264_video).type == "ok"
        assert service._replacement.successor is not None
    assert service.process_ids() == before


def test_a_clean_process_is_preferred(start: Start, h264_video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_CODE", launch._CODE)
    service = start(processes=2)
    monkeypatch.setattr(launch, "_CODE", "import time; time.sleep(600)  # {root}")
    decode(service, without_index())
    assert [process.met_error for process in service._processes] == [True, False]
    job = service.submit(h264_video, Sampling())
    assert [process.job for process in service._processes] == [None, job]
    service.cancel(job)


def test_a_flood_of_broken_files_starts_few_processes(
    start: Start, h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at once, and the next after the interval, however many files there are."""
    service = start(processes=2)
    starts: list[int] = []
    honest = launch.launch

    def counted(*given: Any) -> subprocess.Popen[bytes]:
        starts.append(len(starts))
        return honest(*given)

    monkeypatch.setattr("handlers.decode.child.launch", counted)
    monkeypatch.setattr(replacement, "INTERVAL_SEC", 1000.0)
    for _ in range(3):
        decode_all(service, [without_index()] * 20)
        let_it_start(service)
    assert len(starts) == 1
    service._replacement._not_before -= 1000.0
    decode_all(service, [without_index()] * 20)
    let_it_start(service)
    assert len(starts) == 2
    assert service.losses == 0
    assert decode(service, h264_video).type == "ok"


def test_a_successor_that_cannot_start_is_given_up(
    start: Start, h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start()
    before = service.process_ids()
    monkeypatch.setattr(launch, "_CODE", "import sys; sys.exit(1)  # {root}")
    decode(service, without_index())
    let_it_start(service)
    assert decode(service, h264_video).type == "ok"
    assert service.process_ids() == before


# One job each ---------------------------------------------------------------------------------------------------------


def test_every_job_gets_a_process_of_its_own(start: Start, h264_video: bytes) -> None:
    service, shared = start(one_job_each=True), start()
    assert service.sandbox == shared.sandbox
    assert len(service.process_ids()) == 2
    expected = decode(shared, h264_video)
    served = []
    for _ in range(4):
        job = service.submit(h264_video, Sampling())
        served += [process.pid for process in service._processes if process.job is job]
        views = run(service, job)
        assert (views == expected.views[0]).all()
        assert not set(served) & set(service.process_ids())
        let_it_start(service)
    assert len(set(served)) == 4
    assert service.losses == 0


def run(service: ProcessDecodeService, job: DecodeJob) -> np.ndarray[Any, Any]:
    """The views of its one window, read after its process has ended."""
    while not job.ended:
        service.wait(1.0)
    service.wait(0.0, also_for_wakeup=True)
    (delivery,) = job.deliveries
    views = delivery.window.views.copy()
    delivery.release()
    return views


def test_no_more_jobs_run_than_processes_were_asked_for(start: Start, h264_video: bytes) -> None:
    service = start(processes=2, one_job_each=True)
    jobs = [service.submit(h264_video, Sampling()) for _ in range(3)]
    assert [process.job for process in service._processes] == [*jobs[:2], None]
    for job in jobs:
        service.cancel(job)


def test_more_jobs_than_processes_are_all_answered(start: Start, h264_video: bytes) -> None:
    service = start(processes=2, one_job_each=True)
    outcomes = decode_all(service, [h264_video, without_index(), b"nothing"] * 3)
    assert [outcome.type for outcome in outcomes] == ["ok", "UndecodableVideo", "UnsupportedVideo"] * 3
    assert service.losses == 0
