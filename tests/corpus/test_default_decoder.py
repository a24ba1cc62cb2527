"""The default decoder against the recipe on every file of the corpus: frames bit for bit, tensors to 1e-4.

The recipe's side is what it gave when it was recorded (the corpus's reference.json, tests/golden/recipe_clips.py); that
it still gives this is seen on one file per codec, and with `--all` on every file.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handlers.errors import EmptyClip, RequestError, UndecodableVideo
from handlers.specs import get_spec
from handlers.video.clip_events import PickedFrame
from handlers.video.recipe import open_encoded_video, read_clip, transform_clip
from handlers.video.sampling import Sampling, Window
from handlers.video.view_reader import VideoReader
from handlers.video.windows import plan_windows
from tests.golden import recipe_clips
from tests.golden.recipe_clips import RecordedSampling, recorded
from tests.support.corpus import (
    HUGE,
    NOTHING,
    ONE_PER_CODEC,
    STILL_IMAGES,
    assert_statistics,
    codecs,
    has_stable_pixels,
    live,
    reference,
    videos,
)
from tests.support.frames import PATIENT, crc, picked_frames, recipe_frames, sampled_frames

pytestmark = pytest.mark.corpus

XS = get_spec("x3d_xs")
SPECS = ("x3d_xs", "x3d_s", "x3d_m", "slow_r50", "slowfast_r50")

# Where the default differs from the recipe on purpose, by the numbers of the corpus's README; and the one policy.
DIFFERENT = {
    "real/mm_test.avi": "1: AVI with B-frames keeps the decoder's output order",
    "real/xo_sample_h263.ts": "2: a stream that does not start at 0 is read from its start",
    "made/c_mpeg1.mpg": "2: a stream that does not start at 0 is read from its start",
    "real/dc_corrupted.mp4": "3: what was decoded before the damage is answered",
    "made/z_corrupt_hevc.mp4": "3: what was decoded before the damage is answered",
}
FIRST_CLIP_DIFFERENT = {"real/mm_test.avi"}


@pytest.mark.parametrize("name", videos(readable=True) or [NOTHING])
def test_first_clip_equals_the_reference(corpus: Path, name: str) -> None:
    """Against frames that another program's run recorded, for every model."""
    if name in FIRST_CLIP_DIFFERENT:
        pytest.xfail(DIFFERENT[name])
    payload = (corpus / name).read_bytes()
    for model in SPECS:
        expected = reference()[name][model]
        if "error" in expected:
            continue
        frames, _ = sampled_frames(payload, get_spec(model))
        if has_stable_pixels(name):
            assert [f"{checksum:08x}" for checksum in frames[0]] == expected["picked_crc32"], model
        assert len(frames[0]) == len(expected["picked_crc32"])


def smaller() -> list[str]:
    """Those whose later clips are compared."""
    return [name for name in videos(readable=True) if name not in HUGE] or [NOTHING]


def test_the_recording_is_of_these_files(corpus: Path) -> None:
    assert sorted(recorded()) == sorted(smaller())
    for name, video in recorded().items():
        assert hashlib.sha256((corpus / name).read_bytes()).hexdigest() == video.sha256, name


@pytest.mark.parametrize("name", smaller())
def test_other_clips_equal_the_recording(corpus: Path, name: str) -> None:
    """At 1.5 s, near the end, and ten clips of three crops: what the recipe gave."""
    payload = (corpus / name).read_bytes()
    video = recorded()[name]
    assert [request.sampling for request in video.samplings] == list(recipe_clips.samplings(video.duration))
    for request in video.samplings:
        if name in DIFFERENT:
            with suppress(EmptyClip):
                sampled_frames(payload, XS, request.sampling)
            continue
        windows = plan_windows(request.sampling, XS, video.duration)
        assert [float(window.start_sec) for window in windows] == list(request.starts)
        _compare_with_recording(payload, request, exact=has_stable_pixels(name))
    if name in DIFFERENT:
        pytest.xfail(DIFFERENT[name])


def _compare_with_recording(payload: bytes, request: RecordedSampling, *, exact: bool) -> None:
    wanted = {index: window for index, window in enumerate(request.windows) if window is not None}
    if not wanted:
        with pytest.raises(EmptyClip):
            sampled_frames(payload, XS, request.sampling, threads=2)
        return

    def keep(frame: PickedFrame) -> tuple[int, np.ndarray[Any, Any]]:
        return frame.pts, frame.load().array()

    frames, _ = picked_frames(keep, payload, XS, request.sampling, threads=2)  # and the views below with one
    assert sorted(frames) == sorted(wanted)
    if not exact:
        return
    for index, window in wanted.items():
        assert tuple(f"{crc(picture):08x}" for _, picture in frames[index]) == window.crc32
        assert tuple(pts for pts, _ in frames[index]) == window.pts
    reader = VideoReader(payload, XS, PATIENT, autorotate=False, allocate=lambda shape: np.empty(shape, "f4"))
    for done in reader.windows(request.sampling):
        # Every element: the frames are the recipe's, bit for bit, so its transforms give its tensor from them.
        clip = torch.from_numpy(np.stack([picture for _, picture in frames[done.index]])).permute(3, 0, 1, 2).float()
        expected = transform_clip(clip, XS, num_crops=request.sampling.num_crops)
        assert done.views.shape == expected.shape
        assert np.abs(done.views - expected.numpy()).max() < 1e-4
        statistics = wanted[done.index].tensor
        assert statistics is not None
        assert_statistics(torch.from_numpy(done.views), statistics)
    reader.close()


@pytest.mark.parametrize("name", [live(name) for name in smaller()])
def test_other_clips_equal_the_recipe(corpus: Path, name: str) -> None:
    """The same against the recipe as it runs here."""
    payload = (corpus / name).read_bytes()
    video = open_encoded_video(payload)
    try:
        for sampling in recipe_clips.samplings(Fraction(video.duration)):
            if name in DIFFERENT:
                with suppress(EmptyClip):
                    sampled_frames(payload, XS, sampling)
                continue
            _compare(payload, video, sampling, exact=has_stable_pixels(name))
    finally:
        video.close()
    if name in DIFFERENT:
        pytest.xfail(DIFFERENT[name])


def test_the_recipe_runs_on_every_codec(corpus: Path) -> None:
    readable = {codecs()[name] for name in videos(readable=True)}
    assert {codecs()[name] for name in ONE_PER_CODEC} == readable
    assert set(ONE_PER_CODEC) <= set(smaller())


def _compare(payload: bytes, video: Any, sampling: Sampling, *, exact: bool) -> None:
    windows = list(plan_windows(sampling, XS, Fraction(video.duration)))
    clips = {index: clip for index, window in enumerate(windows) if (clip := _read(video, window)) is not None}
    if not clips:
        with pytest.raises(EmptyClip):
            sampled_frames(payload, XS, sampling, threads=2)
        return
    frames, _ = sampled_frames(payload, XS, sampling, threads=2)  # and the views below with one
    assert sorted(frames) == sorted(clips)
    if not exact:
        return
    assert frames == {index: recipe_frames(clip, XS) for index, clip in clips.items()}
    reader = VideoReader(payload, XS, PATIENT, autorotate=False, allocate=lambda shape: np.empty(shape, "f4"))
    for done in reader.windows(sampling):
        expected = transform_clip(clips[done.index], XS, num_crops=sampling.num_crops).numpy()
        assert done.views.shape == expected.shape
        assert np.abs(done.views - expected).max() < 1e-4
    reader.close()


def _read(video: Any, window: Window) -> torch.Tensor | None:
    try:
        return read_clip(video, window.start_sec, window.end_sec)
    except EmptyClip:
        return None


UNREADABLE = {
    # The recipe cannot read these; what happens instead.
    "real/tv_hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": "frames",
    "real/xo_sample_h265.ts": "frames",
    "real/xo_video_desks.3gp": "frames",
    "made/c_h264.ts": "frames",
    "made/d_raw.h264": "frames",
    "made/d_raw_nob.h264": "frames",
    "made/g_size_change.ts": "frames",
    "made/m_nonutf8_title.mkv": "frames",
    "made/t_neg_start.mkv": "frames",
    "made/t_start_offset2s.ts": "frames",
    "made/z_corrupt_2000_early.mp4": "frames",
    "made/z_corrupt_hevc.mp4": "frames",
    "made/z_trunc_50.ts": "frames",
    "made/z_trunc_faststart_10.mp4": "frames",
    "real/xo_invalid-bitstream.webm": "UndecodableVideo",
    "real/xo_sample_ac3.mp4": "UnsupportedVideo",
    "real/xo_sample_fragmented_clearkey.mp4": "UndecodableVideo",
    "made/x_audio_only.m4a": "UnsupportedVideo",
    "made/x_ftyp_only.mp4": "UndecodableVideo",
    "made/z_trunc_moov_cut.mp4": "UnsupportedVideo",
    "made/z_trunc_no_moov.mp4": "UndecodableVideo",
}


@pytest.mark.parametrize("name", videos(readable=False) or [NOTHING])
def test_files_that_the_recipe_cannot_read(corpus: Path, name: str) -> None:
    expected = UNREADABLE.get(name, "UnsupportedVideo")
    payload = (corpus / name).read_bytes()
    if expected == "frames":
        frames, _ = sampled_frames(payload, get_spec("x3d_s"))
        assert len(frames[0]) == 13
        return
    with pytest.raises(RequestError) as caught:
        sampled_frames(payload, get_spec("x3d_s"))
    assert caught.value.type == expected


@pytest.mark.parametrize("name", sorted(STILL_IMAGES))
def test_still_images_are_not_videos(corpus: Path, name: str) -> None:
    with pytest.raises(RequestError) as caught:
        sampled_frames((corpus / name).read_bytes(), XS)
    assert caught.value.type == "UnsupportedVideo"


def test_damage_is_told(corpus: Path) -> None:
    _, video = sampled_frames((corpus / "made/z_corrupt_hevc.mp4").read_bytes(), get_spec("x3d_s"))
    assert video.file.warnings == ["the video is damaged; what was decoded before the damage was used"]
    with pytest.raises(UndecodableVideo, match="no frame could be decoded"):
        sampled_frames((corpus / "real/xo_invalid-bitstream.webm").read_bytes(), XS)
