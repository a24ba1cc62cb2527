"""The temporal rules beside the recipe's, on videos whose frames carry their number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torchvision.datasets.video_utils import VideoClips

from handlers.decode.processes import ProcessDecodeService
from handlers.limits import Limits
from handlers.specs import ModelSpec, get_spec
from handlers.video.sampling import Sampling
from handlers.video.temporal import stated_rate, stride_indices, whole_indices
from handlers.video.view_reader import VideoReader
from tests.support.decoding import decode, shown_indices

WHOLE = replace(get_spec("x3d_xs"), name="whole", temporal="whole_video", num_frames=8)
STRIDE = replace(get_spec("x3d_xs"), name="stride", temporal="fps_stride", num_frames=8, sampling_rate=4)


def _shown(payload: bytes, spec: ModelSpec, sampling: Sampling) -> list[list[int]]:
    reader = VideoReader(payload, spec, Limits(), autorotate=True, allocate=lambda shape: np.empty(shape, "f4"))
    shown = [shown_indices(window.views, spec) for window in reader.windows(sampling)]
    reader.close()
    return shown


def test_a_whole_video_is_sampled_to_its_last_part(h264_video: bytes) -> None:
    """60 frames: every 7.5th, rounded down."""
    assert _shown(h264_video, WHOLE, Sampling()) == [[0, 7, 15, 22, 30, 37, 45, 52]]


def test_a_part_of_a_video_is_sampled_as_a_whole(h264_video: bytes) -> None:
    assert _shown(h264_video, WHOLE, Sampling(start_sec=1.0)) == [[30, 33, 37, 41, 45, 48, 52, 56]]
    assert _shown(h264_video, WHOLE, Sampling(end_sec=0.5)) == [[0, 1, 3, 5, 7, 9, 11, 13]]


def test_clips_of_a_whole_video_are_its_parts(h264_video: bytes) -> None:
    first, second = _shown(h264_video, WHOLE, Sampling(num_clips=2))
    assert first == [0, 3, 7, 11, 15, 18, 22, 26]
    assert second == [30, 33, 37, 41, 45, 48, 52, 56]


def test_a_timeline_of_whole_videos_has_windows_of_the_specs_length(h264_video: bytes) -> None:
    short = replace(WHOLE, sampling_rate=3)  # 0.8 s
    windows = _shown(h264_video, short, Sampling(stride_sec=0.4))
    assert [window[0] for window in windows] == [0, 12, 24, 36]


@pytest.mark.parametrize("name", ["h264", "h264_mkv", "h264_flv", "vp9"])
def test_the_last_frame_counts_whatever_the_header_says(indexed_video: Callable[[str], bytes], name: str) -> None:
    """A rule with as many frames as the video has takes every one; Matroska and FLV state no length of the stream."""
    spec = replace(WHOLE, num_frames=60)
    assert _shown(indexed_video(name), spec, Sampling()) == [list(range(60))]


def test_every_other_frame_at_half_the_rate(h264_video: bytes) -> None:
    assert _shown(h264_video, STRIDE, Sampling()) == [[0, 4, 8, 12, 16, 20, 24, 28]]
    assert _shown(h264_video, STRIDE, Sampling(start_sec=0.5)) == [[15, 19, 23, 27, 31, 35, 39, 43]]


def test_the_last_frame_repeats_where_the_video_ends(h264_video: bytes) -> None:
    assert _shown(h264_video, STRIDE, Sampling(start_sec=1.6)) == [[48, 52, 56, 59, 59, 59, 59, 59]]


@pytest.mark.parametrize("fps", [10.0, 12.5, 15.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 120.0])
@pytest.mark.parametrize("rate", [7.5, 15.0])
def test_strides_are_torchvisions(fps: float, rate: float) -> None:
    theirs = VideoClips._resample_video_idx(32, fps, rate)
    expected = theirs.tolist() if isinstance(theirs, torch.Tensor) else list(range(0, 32 * 1000, theirs.step))[:32]
    assert stride_indices(10_000, 32, fps / rate).tolist() == expected


def test_whole_indices_are_evenly_spread() -> None:
    assert whole_indices(10, 4).tolist() == [0, 2, 5, 7]
    assert whole_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


def test_a_rate_that_contradicts_the_timestamps_is_not_believed() -> None:
    shown = list(range(0, 1000, 33))
    assert stated_rate(Fraction(1000), shown, Fraction(1, 1000)) == Fraction(1000, 33)
    assert stated_rate(Fraction(25), shown, Fraction(1, 1000)) == 25
    assert stated_rate(Fraction(25), [0], Fraction(1, 1000)) == 25


def test_a_decoding_process_may_deliver_a_window_longer_than_a_clip(h264_video: bytes) -> None:
    spec = replace(get_spec("x3d_xs"), temporal="whole_video", sampling_rate=1)  # clips of 0.13 s
    service = ProcessDecodeService(spec, Limits(), processes=1)
    outcome = decode(service, h264_video)
    service.close()
    assert outcome.error is None
    assert shown_indices(outcome.views[0], spec) == [0, 15, 30, 45]
