"""A clip never holds what was in its memory before: every array that the decoder is given here is full of NaN.

Served requests share memory. A clip that is given away before all of its frames are written would hold frames of
another request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from handlers.decode.processes import ProcessDecodeService
from handlers.decode.service import DecodeService
from handlers.errors import RequestError
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from handlers.video.view_reader import VideoReader
from tests.support.decoding import decode
from tests.support.mutation import mutate
from tests.support.videos import VideoPlan, make_video, make_with_stamps

SPEC = get_spec("x3d_xs")
COUNT = int(os.environ.get("FUZZ_COUNT", "300"))
SMALL = VideoPlan(num_frames=20, width=96, height=80)
SAMPLINGS = (
    Sampling(),
    Sampling(start_sec=0.3),
    Sampling(num_crops=3),
    Sampling(num_clips=3),
    Sampling(stride_sec=0.2, num_crops=3),
)


def _poisoned(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.full(shape, np.nan, dtype=np.float32)


def windows(payload: bytes, sampling: Sampling) -> Iterator[NDArray[np.float32]]:
    """The views of each window, until the end or until the request is refused."""
    try:
        reader = VideoReader(payload, SPEC, Limits(max_windows=64), autorotate=True, allocate=_poisoned)
    except RequestError:
        return
    try:
        for window in reader.windows(sampling):
            yield window.views
    except RequestError:
        pass
    finally:
        reader.close()


def _swapped(count: int) -> list[int]:
    """0, 48, 1, 2, ...: the second frame claims to be the last of the first window, which then seems complete."""
    order = [0, 48, *range(1, 48), *range(49, count)]
    return [33 * place for place in order]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_one_swapped_stamp(sampling: Sampling) -> None:
    payload = make_with_stamps(_swapped(60))
    found = list(windows(payload, sampling))
    assert found
    assert all(np.isfinite(views).all() for views in found)


@settings(max_examples=60)
@given(
    stamps=st.lists(st.integers(0, 50), min_size=2, max_size=50).map(lambda places: [33 * place for place in places]),
    sampling=st.sampled_from(SAMPLINGS),
)
def test_any_order_of_stamps_with_repeats(stamps: list[int], sampling: Sampling) -> None:
    for views in windows(make_with_stamps(stamps, width=32, height=32), sampling):
        assert np.isfinite(views).all()


def test_damaged_files() -> None:
    files = [
        make_with_stamps(_swapped(60)),
        make_video(SMALL),
        make_video(replace(SMALL, container="matroska")),
        make_video(replace(SMALL, container="mpegts")),
        make_video(replace(SMALL, codec="mpeg4", container="avi", b_frames=0)),
        make_video(replace(SMALL, codec="mjpeg", container="avi", pix_fmt="yuvj420p", b_frames=0)),
        make_video(replace(SMALL, codec="ffv1", container="nut", b_frames=0)),
    ]
    answered = 0
    for number in range(COUNT):
        for views in windows(mutate(files, number), SAMPLINGS[number % len(SAMPLINGS)]):
            assert np.isfinite(views).all(), f"mutant {number}"
            answered += 1
    assert answered > COUNT // 5, "hardly a mutant can be decoded"


@pytest.fixture(scope="module")
def service() -> Iterator[DecodeService]:
    """One decoding process, so that every request gets the memory of the one before."""
    service = ProcessDecodeService(SPEC, Limits(), processes=1)
    yield service
    service.close()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_video_before_changes_nothing(service: DecodeService, h264_video: bytes, sampling: Sampling) -> None:
    payload = make_with_stamps(_swapped(60))
    other = make_video(replace(SMALL, num_frames=60))
    answers = []
    for before in (h264_video, other, h264_video):
        decode(service, before, sampling)
        answers.append(decode(service, payload, sampling))
    assert answers[0].type == "ok"
    for answer in answers[1:]:
        assert len(answer.views) == len(answers[0].views)
        for views, expected in zip(answer.views, answers[0].views, strict=True):
            np.testing.assert_array_equal(views, expected)
