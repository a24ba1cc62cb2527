"""Jobs and deliveries, whichever service decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from handlers.decode.processes import ProcessDecodeService
from handlers.decode.service import DecodeJob, DecodeService, Delivery
from handlers.decode.threads import ThreadDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from handlers.video.view_reader import VideoReader

XS = get_spec("x3d_xs")


def _open(payload: bytes | memoryview) -> VideoReader:
    return VideoReader(payload, XS, Limits(), autorotate=True, allocate=lambda shape: np.empty(shape, "f4"))


@pytest.fixture(params=["process", "thread"])
def service(request: pytest.FixtureRequest) -> Iterator[DecodeService]:
    """One worker, so that jobs meet in it."""
    if request.param == "process":
        service: DecodeService = ProcessDecodeService(XS, Limits(), processes=1)
    else:
        service = ThreadDecodeService(partial(_open), workers=1)
    yield service
    service.close()


def _take(service: DecodeService, job: DecodeJob) -> Delivery:
    while not job.deliveries and not job.ended:
        service.wait()
    return job.deliveries.popleft()


def _finish(service: DecodeService, job: DecodeJob) -> None:
    while not job.ended:
        service.wait()
        while job.deliveries:
            job.deliveries.popleft().release()


def test_views_that_are_still_read_outlive_the_jobs_after(
    service: DecodeService, indexed_video: Callable[[str], bytes]
) -> None:
    first = _take(service, service.submit(indexed_video("h264"), Sampling()))
    before = first.window.views.copy()
    for plan, sampling in (("vp9", Sampling()), ("mjpeg", Sampling(start_sec=0.5)), ("hevc", Sampling(num_clips=5))):
        _finish(service, service.submit(indexed_video(plan), sampling))
    np.testing.assert_array_equal(first.window.views, before)
    first.release()


def test_a_job_of_another_shape_waits_for_views_that_are_still_read(
    service: DecodeService, indexed_video: Callable[[str], bytes]
) -> None:
    first = _take(service, service.submit(indexed_video("h264"), Sampling()))
    before = first.window.views.copy()
    other = service.submit(indexed_video("vp9"), Sampling(num_crops=3))
    service.wait(0.2)
    np.testing.assert_array_equal(first.window.views, before)
    first.release()
    second = _take(service, other)
    assert second.window.views.shape[0] == 3
    second.release()
    _finish(service, other)


def test_jobs_that_wait_behind_others_are_all_answered(
    service: DecodeService, indexed_video: Callable[[str], bytes]
) -> None:
    jobs = [service.submit(indexed_video("h264"), Sampling(num_clips=3)) for _ in range(3)]
    jobs.append(service.submit(b"no video", Sampling()))
    for job in jobs:
        _finish(service, job)
    assert [job.error is None for job in jobs] == [True, True, True, False]
    assert jobs[0].report is not None
    assert jobs[0].report.codec == "h264"


def test_a_cancelled_job_leaves_the_service_working(
    service: DecodeService, indexed_video: Callable[[str], bytes]
) -> None:
    job = service.submit(indexed_video("h264"), Sampling(stride_sec=0.01))
    waiting = service.submit(indexed_video("h264"), Sampling())
    service.cancel(job)
    _finish(service, waiting)
    assert waiting.report is not None


def test_waiting_for_nothing_returns_at_once(service: DecodeService) -> None:
    service.wait()
