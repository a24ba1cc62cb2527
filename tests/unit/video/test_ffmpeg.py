"""The border to FFmpeg: what it reports is the video's fault, what this package gets wrong is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
from av.sidedata.sidedata import Type as SideDataType

from handlers.decode.threads import ThreadDecodeService
from handlers.errors import UndecodableVideo
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.ffmpeg import av_errors, display_matrix
from handlers.video.recipe import EncodedVideoReader
from handlers.video.sampling import Sampling
from handlers.video.view_reader import VideoReader
from tests.support.frames import sampled_frames

SPEC = get_spec("x3d_xs")


def test_an_error_of_ffmpeg_is_an_undecodable_video() -> None:
    with pytest.raises(UndecodableVideo, match="invalid data"), av_errors():
        raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")
    with pytest.raises(UndecodableVideo), av_errors(), av.open(io.BytesIO(b"no video"), format="mov"):
        pass


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError("a defect"), TypeError("a defect")])
def test_a_defect_of_this_package_is_not_the_clients_fault(error: Exception) -> None:
    with pytest.raises(type(error), match="a defect"), av_errors():
        raise error


def test_such_a_defect_is_answered_as_the_servers(h264_video: bytes) -> None:
    class Broken:
        def count_windows(self, sampling: Sampling) -> int:
            return 1

        def windows(self, sampling: Sampling) -> Any:
            with av_errors():
                raise ValueError("a defect")

        def report(self) -> Any: ...

        def close(self) -> None: ...

    service = ThreadDecodeService(lambda payload: Broken(), workers=1)
    try:
        job = service.submit(h264_video, Sampling())
        while not job.ended:
            service.wait()
    finally:
        service.close()
    assert job.error is not None
    assert (job.error.type, int(job.error.status)) == ("InternalError", 503)


def _first_frame(payload: bytes) -> Any:
    with av.open(io.BytesIO(payload), "r") as container:
        return next(container.decode(video=0))


def test_side_data_of_an_unknown_type_is_passed_over(h264_video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """x264 leaves its settings in the first frame, as user data; here PyAV forgets that there is such a type."""
    frame = _first_frame(h264_video)
    assert [data.type for data in frame.side_data] == [SideDataType.SEI_UNREGISTERED]
    monkeypatch.delitem(SideDataType._value2member_map_, SideDataType.SEI_UNREGISTERED.value)
    again = _first_frame(h264_video)
    assert display_matrix(again) is None
    assert again.side_data[0].type.name == f"TYPE_{SideDataType.SEI_UNREGISTERED.value}"
    frames, _ = sampled_frames(h264_video, SPEC)
    assert len(frames[0]) == SPEC.num_frames


def test_a_spatial_video_gives_the_recipes_clip(corpus: Path) -> None:
    payload = (corpus / "more" / "spatial_mv_hevc.mp4").read_bytes()
    (recipe,) = EncodedVideoReader(payload, spec=SPEC, limits=Limits()).windows(Sampling())
    service = ThreadDecodeService(_reader, workers=1)
    try:
        job = service.submit(payload, Sampling())
        while not job.ended:
            service.wait()
        assert job.error is None, job.error
        views = job.deliveries.popleft().window.views
        assert np.abs(views - recipe.views).max() < 1e-4
    finally:
        service.close()


def _reader(payload: bytes | memoryview) -> VideoReader:
    return VideoReader(payload, SPEC, Limits(), autorotate=True, allocate=lambda shape: np.full(shape, np.nan, "f4"))
