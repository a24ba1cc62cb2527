"""The default decoder: the recipe's frames, bit for bit, from less decoding."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from handlers.errors import (
    EmptyClip,
    FrameTooLarge,
    InvalidOption,
    RequestError,
    UndecodableVideo,
    UnsupportedVideo,
    VideoTooLong,
)
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video import packet_plan, planned_decode, sampled_video
from handlers.video.clip_events import PickedFrame
from handlers.video.recipe import EncodedVideoReader, open_encoded_video
from handlers.video.sampling import Sampling
from handlers.video.view_reader import VideoReader
from handlers.video.windows import plan_windows
from tests.support.frames import recipe_window, sampled_frames
from tests.support.videos import PLANS, VideoPlan, frame_index, make_video, make_with_stamps

XS, S = get_spec("x3d_xs"), get_spec("x3d_s")
# Files whose recipe answer is another on purpose: AVI with B-frames, a stream that does not start at 0.
COMPARABLE = sorted(set(PLANS) - {"h264_ts", "mpeg2"})


def _views(reader: Any, sampling: Sampling) -> list[np.ndarray[Any, Any]]:
    try:
        return [window.views.copy() for window in reader.windows(sampling)]
    finally:
        reader.close()


def _reader(payload: bytes, **limits: int) -> VideoReader:
    return VideoReader(payload, XS, Limits(**limits), autorotate=True, allocate=lambda shape: np.empty(shape, "f4"))


@pytest.mark.parametrize("plan", COMPARABLE)
def test_frames_equal_the_recipes(indexed_video: Callable[[str], bytes], plan: str) -> None:
    payload = indexed_video(plan)
    video = open_encoded_video(payload)
    for start_sec in (0.0, 0.4, 1.0, 1.9):
        ours, _ = sampled_frames(payload, XS, Sampling(start_sec=start_sec))
        assert ours[0] == recipe_window(video, start_sec, start_sec + XS.clip_duration_sec, XS), start_sec
    windows = plan_windows(Sampling(num_clips=3), XS, Fraction(video.duration))
    expected = {index: recipe_window(video, w.start_sec, w.end_sec, XS) for index, w in enumerate(windows)}
    assert sampled_frames(payload, XS, Sampling(num_clips=3))[0] == expected
    video.close()


@pytest.mark.parametrize("plan", ["h264_ts", "mpeg2"])
def test_a_stream_that_starts_late_is_read_from_its_start(indexed_video: Callable[[str], bytes], plan: str) -> None:
    picked = _picked_indices(indexed_video(plan), Sampling(start_sec=0.5))
    assert picked == [15, 29, 44, 59]


def _picked_indices(payload: bytes, sampling: Sampling) -> list[int]:
    video = sampled_video.SampledVideo(payload, XS, Limits())
    frames = {}
    for event in video.events(sampling):
        if isinstance(event, PickedFrame):
            for _, step in event.places:
                frames[step] = frame_index(event.load().array())
    video.close()
    return [frames[step] for step in sorted(frames)]


def test_unreferenced_frames_that_nobody_wants_are_not_decoded(h264_video: bytes) -> None:
    _, video = sampled_frames(h264_video, XS)
    assert video.file.frames_decoded < 30, "of 48 frames in the window, two thirds are B-frames"


def test_only_the_packets_around_far_windows_are_decoded() -> None:
    payload = make_video(VideoPlan(num_frames=900, width=96, height=64, gop=30, b_frames=0))
    _, video = sampled_frames(payload, XS, Sampling(num_clips=2, start_sec=1.0))
    assert video.file.frames_decoded < 200


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(num_clips=4, num_crops=3), Sampling(start_sec=1.0)])
def test_tensors_equal_the_recipes(h264_video: bytes, sampling: Sampling) -> None:
    ours = _views(_reader(h264_video), sampling)
    recipe = _views(EncodedVideoReader(h264_video, spec=XS, limits=Limits()), sampling)
    assert len(ours) == len(recipe)
    assert max(np.abs(one - two).max() for one, two in zip(ours, recipe, strict=True)) < 1e-4


def test_overlapping_windows_share_frames_and_equal_those_decoded_alone(h264_video: bytes) -> None:
    reader = _reader(h264_video)
    timeline = {w.index: (w.window, w.views) for w in reader.windows(Sampling(stride_sec=0.125))}
    reader.close()
    assert sorted(timeline) == [0, 1, 2, 3]
    for window, views in timeline.values():
        (alone,) = _views(_reader(h264_video), Sampling(start_sec=float(window.start_sec)))
        np.testing.assert_array_equal(views, alone)


@pytest.mark.parametrize("sampling", [Sampling(num_clips=2, num_crops=3), Sampling(stride_sec=0.125)])
def test_views_are_the_same_with_and_without_a_second_thread(h264_video: bytes, sampling: Sampling) -> None:
    together, alone = (
        VideoReader(h264_video, XS, Limits(), autorotate=True, allocate=lambda shape: np.empty(shape, "f4"), overlap=on)
        for on in (True, False)
    )
    for views, others in zip(_views(together, sampling), _views(alone, sampling), strict=True):
        np.testing.assert_array_equal(views, others)
    for reader in (together, alone):
        report = reader.report()
        assert 0 < report.transform_ms < 60_000
        assert 0 < report.decode_ms < 60_000


def test_a_wrong_plan_is_noticed_and_the_frames_still_equal_the_recipes(
    h264_video: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipping reference frames by mistake must not change an answer: the check falls back to decoding it all."""
    monkeypatch.setattr(planned_decode, "non_reference_test", lambda _: lambda packet: packet.pts % 1024 != 0)
    monkeypatch.setattr(packet_plan.PlanCheck, "came_out", _refuse_second_frame())
    recipe = open_encoded_video(h264_video)
    frames, video = sampled_frames(h264_video, XS)
    assert frames[0] == recipe_window(recipe, 0.0, XS.clip_duration_sec, XS)
    assert video.report(decode_ms=0, transform_ms=0).plan_fallback == "unexpected_frame"


def _refuse_second_frame() -> Callable[..., int]:
    original = packet_plan.PlanCheck.came_out
    seen: list[int] = []

    def came_out(self: Any, pts: int) -> int:
        seen.append(pts)
        if len(seen) == 2:
            raise packet_plan.PlanMismatch("unexpected_frame")
        return original(self, pts)

    return came_out


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: make_video(), None),
        (lambda: make_video(VideoPlan(container="h264")), "raw_stream"),
        (lambda: make_video(VideoPlan(codec="mpeg4", container="avi", b_frames=2)), "avi_with_b_frames"),
        (lambda: make_with_stamps([0, 33, 33, 66, 100, 133]), "repeated_timestamps"),
        (lambda: make_with_stamps([0, 1200, 33, 66, 100, 133]), "unexpected_frame"),
    ],
)
def test_the_report_tells_why_a_plan_was_not_used(make: Callable[[], bytes], reason: str | None) -> None:
    _, video = sampled_frames(make(), XS)
    assert video.report(decode_ms=0, transform_ms=0).plan_fallback == reason


def test_avi_with_b_frames_keeps_the_decoders_order() -> None:
    payload = make_video(VideoPlan(codec="mpeg4", container="avi", b_frames=2, num_frames=60))
    picked = _picked_indices(payload, Sampling())
    assert picked == sorted(picked)
    assert picked[0] <= 1
    assert 44 <= picked[-1] <= 48


@pytest.mark.parametrize(
    ("payload_plan", "sampling", "limits", "error", "words"),
    [
        ("h264", Sampling(start_sec=9.0), {}, EmptyClip, r"no frame between 9\.000 s and"),
        ("h264", Sampling(num_clips=5), {"max_windows": 4}, InvalidOption, "5 windows; at most 4"),
        ("h264", Sampling(), {"max_frame_pixels": 1000}, FrameTooLarge, r"320x240 .* at most 1000 pixels"),
        ("h264", Sampling(), {"max_video_sec": 1}, VideoTooLong, r"lasts 2\.0 s; at most 1 s"),
        ("h264", Sampling(stride_sec=0.001), {"max_windows": 100}, InvalidOption, "401 windows"),
        ("vp8", Sampling(num_clips=2), {"max_video_sec": 1}, VideoTooLong, "at most 1 s"),
    ],
)
def test_limits(
    indexed_video: Callable[[str], bytes],
    payload_plan: str,
    sampling: Sampling,
    limits: dict[str, int],
    error: type[RequestError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        _views(_reader(indexed_video(payload_plan), **limits), sampling)


def test_a_file_without_video_is_unsupported() -> None:
    with pytest.raises(UnsupportedVideo, match=r"no video stream|not a video"):
        _views(_reader(_audio_only()), Sampling())


def _audio_only() -> bytes:
    import io

    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def test_a_raw_stream_is_as_long_as_its_frames_take() -> None:
    payload = make_video(VideoPlan(container="h264", num_frames=90, fps=Fraction(25)))
    frames, video = sampled_frames(payload, XS, Sampling(num_clips=3))
    assert sorted(frames) == [0, 1, 2]
    assert len({tuple(clip) for clip in frames.values()}) == 3
    assert video.report(decode_ms=0, transform_ms=0).duration_sec == pytest.approx(90 / 25)


def test_too_many_streams_are_named(h264_video: bytes) -> None:
    with pytest.raises(UndecodableVideo, match="more than 1 streams"):
        _views(_reader(make_video(VideoPlan(audio=True)), max_streams=1), Sampling())
