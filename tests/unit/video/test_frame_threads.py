"""A lone large video is decoded by several threads: to the same frames, and by one again where FFmpeg complains."""

from __future__ import annotations

import av.logging
import numpy as np
import pytest

from handlers.decode.child import DecodingProcess
from handlers.decode.processes import ProcessDecodeService
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.sampling import Sampling
from handlers.video.video_file import VideoFile
from tests.support.frames import sampled_frames
from tests.support.videos import VideoPlan, make_video

XS = get_spec("x3d_xs")
LARGE = {
    "h264": VideoPlan(width=640, height=480),
    "hevc": VideoPlan(width=640, height=480, codec="libx265", options={"x265-params": "log-level=none:pools=1"}),
    "vp9": VideoPlan(
        width=640,
        height=480,
        codec="libvpx-vp9",
        container="webm",
        b_frames=0,
        options={"deadline": "realtime", "cpu-used": "8"},
    ),
}


@pytest.fixture(scope="module", params=sorted(LARGE))
def large_video(request: pytest.FixtureRequest) -> bytes:
    return make_video(LARGE[request.param])


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(start_sec=1.0), Sampling(num_clips=3)])
def test_threads_change_neither_frames_nor_work(large_video: bytes, sampling: Sampling) -> None:
    alone, one = sampled_frames(large_video, XS, sampling)
    for threads in (2, 4):
        together, several = sampled_frames(large_video, XS, sampling, threads=threads)
        assert together == alone
        assert several.file.frames_decoded == one.file.frames_decoded


def test_small_videos_and_other_codecs_stay_on_one_thread(h264_video: bytes) -> None:
    file = VideoFile(h264_video, Limits(), threads=2)
    assert not file.use_one_thread()
    file.close()


def _damaged(video: bytes) -> bytes:
    """Some bytes of the coded frames overwritten; the index stays whole."""
    data = bytearray(video)
    start = data.index(b"mdat")
    rng = np.random.default_rng(3)
    for at in rng.integers(start + 6000, start + 40_000, 12):
        data[at] ^= 0xFF
    return bytes(data)


def test_damage_is_decoded_by_one_thread_in_the_end() -> None:
    noisy = VideoPlan(width=640, height=480, options={"crf": "12"})
    payload = _damaged(make_video(noisy))
    alone, _ = sampled_frames(payload, XS)
    together, video = sampled_frames(payload, XS, threads=2)
    assert together == alone
    assert not video.file.use_one_thread(), "it must have fallen back to one thread already"
    assert av.logging.get_level() is None


def test_the_log_is_left_alone_once_a_video_is_given_up() -> None:
    payload = make_video(LARGE["h264"])
    file = VideoFile(payload, Limits(), threads=2)
    for packet, _ in zip(file.packets(None), range(10), strict=False):
        file.decode(packet)
    assert av.logging.get_level() is not None
    file.close()
    assert av.logging.get_level() is None


def test_only_a_lone_video_gets_the_idle_cores(monkeypatch: pytest.MonkeyPatch, h264_video: bytes) -> None:
    given = []
    begin = DecodingProcess.begin

    def spy(process: DecodingProcess, job: object, *, threads: int) -> None:
        given.append(threads)
        begin(process, job, threads=threads)  # type: ignore[arg-type]

    monkeypatch.setattr(DecodingProcess, "begin", spy)
    service = ProcessDecodeService(XS, Limits(), processes=2)
    try:
        jobs = [service.submit(h264_video, Sampling()) for _ in range(2)]
        while not all(job.ended for job in jobs):
            service.wait()
            for job in jobs:
                while job.deliveries:
                    job.deliveries.popleft().release()
        assert given == [3, 1]  # two cores and one thread more; then no core is free
    finally:
        service.close()
