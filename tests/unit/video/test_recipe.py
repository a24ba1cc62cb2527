"""The literal recipe, `decoder: encoded_video`, on videos made here; tests/corpus/test_recipe.py has its numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from handlers.errors import EmptyClip, UndecodableVideo, UnsupportedVideo
from handlers.limits import Limits
from handlers.specs import get_spec
from handlers.video.recipe import EncodedVideoReader, recipe_tensor
from handlers.video.sampling import Sampling
from tests.support.videos import VideoPlan, frame_indices, make_video


def test_picks_the_documented_frames(h264_video: bytes) -> None:
    """60 frames at 30 a second: all of them are in a clip of 2.6 s, of which 13 are picked uniformly."""
    spec = get_spec("x3d_s")
    reader = EncodedVideoReader(h264_video, spec=spec, limits=Limits())
    (window,) = reader.windows(Sampling())
    assert window.views.shape == (1, 3, 13, 182, 182)
    assert window.views.dtype == np.float32
    pictures = (window.views[0].transpose(1, 2, 3, 0) * spec.std + spec.mean).clip(0, 1)
    assert frame_indices(pictures) == [0, 4, 9, 14, 19, 24, 29, 34, 39, 44, 49, 54, 59]
    report = reader.report()
    assert (report.width, report.height, report.fps, report.codec) == (320, 240, 30.0, "h264")
    assert report.frames_decoded == 60
    assert report.duration_sec == pytest.approx(2.0)
    reader.close()


def test_windows_and_crops(indexed_video: Callable[[str], bytes]) -> None:
    """Three clips of x3d_xs over two seconds, three crops each; the middle crop of a wide video is its centre."""
    spec = get_spec("x3d_xs")
    payload = indexed_video("h264")
    reader = EncodedVideoReader(payload, spec=spec, limits=Limits())
    windows = list(reader.windows(Sampling(num_clips=3, num_crops=3)))
    assert [round(float(window.window.start_sec), 4) for window in windows] == [0.0, 0.1333, 0.2667]
    assert all(window.views.shape == (3, 3, 4, 182, 182) for window in windows)
    (one,) = EncodedVideoReader(payload, spec=spec, limits=Limits()).windows(Sampling(num_crops=3))
    np.testing.assert_array_equal(one.views[1], recipe_tensor(payload, spec).numpy())
    assert not np.allclose(one.views[0], one.views[2])


def test_start_sec_moves_the_clip(h264_video: bytes) -> None:
    spec = get_spec("x3d_xs")
    tensor = recipe_tensor(h264_video, spec, start_sec=0.2)
    pictures = (tensor.permute(1, 2, 3, 0).numpy() * spec.std + spec.mean).clip(0, 1)
    assert frame_indices(pictures) == [6, 21, 37, 53]


def test_past_the_end_is_an_empty_clip(h264_video: bytes) -> None:
    reader = EncodedVideoReader(h264_video, spec=get_spec("x3d_xs"), limits=Limits())
    with pytest.raises(EmptyClip, match="no frame from 5 to"):
        list(reader.windows(Sampling(start_sec=5.0)))


def test_not_a_video_never_reaches_the_media_library() -> None:
    with pytest.raises(UnsupportedVideo):
        EncodedVideoReader(b"ffconcat version 1.0\nfile 'x.mp4'\n", spec=get_spec("x3d_xs"), limits=Limits())


def test_truncated_file_is_undecodable(h264_video: bytes) -> None:
    with pytest.raises(UndecodableVideo):
        EncodedVideoReader(h264_video[: len(h264_video) // 3], spec=get_spec("x3d_xs"), limits=Limits())


def test_the_old_torchvision_name_does_not_stay(h264_video: bytes) -> None:
    recipe_tensor(h264_video, get_spec("x3d_xs"))
    assert "torchvision.transforms.functional_tensor" not in sys.modules


def test_a_short_video_repeats_frames() -> None:
    tensor = recipe_tensor(make_video(VideoPlan(num_frames=2)), get_spec("x3d_xs"))
    assert torch.equal(tensor[:, 0], tensor[:, 1])
    assert not torch.equal(tensor[:, 1], tensor[:, 3])
