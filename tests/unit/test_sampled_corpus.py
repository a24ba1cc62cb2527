"""The default decoder against the recipe on every file of the corpus: frames bit for bit, tensors to 1e-4."""

from __future__ import annotations

import json
from contextlib import suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handlers.errors import EmptyClip, RequestError, UndecodableVideo
from handlers.specs import get_spec
from handlers.video.recipe import open_encoded_video, read_clip, transform_clip
from handlers.video.sampling import Sampling, Window
from handlers.video.view_reader import VideoReader
from handlers.video.windows import plan_windows
from tests.conftest import CORPUS
from tests.support.frames import PATIENT, recipe_frames, sampled_frames

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
STILL_IMAGES = {f"made/x_image.{kind}" for kind in ("bmp", "gif", "jpg", "png", "tiff")}
HUGE = {"real/xo_portrait_4k60.mp4", "made/g_4096x2160_3f.mp4"}  # gigabytes, by the recipe


@cache
def _reference() -> dict[str, Any]:
    path = CORPUS / "reference.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _files(*, readable: bool) -> list[str]:
    names = [
        name
        for name, models in _reference().items()
        if not name.startswith("_") and name not in STILL_IMAGES and ("error" not in models["x3d_s"]) == readable
    ]
    return names or ["(no corpus)"]


def _has_stable_pixels(name: str) -> bool:
    return name not in _reference()["_thread_dependent"]


@pytest.mark.parametrize("name", _files(readable=True))
def test_first_clip_equals_the_reference(corpus: Path, name: str) -> None:
    """Against frames that another program's run recorded, for every model."""
    if name in FIRST_CLIP_DIFFERENT:
        pytest.xfail(DIFFERENT[name])
    payload = (corpus / name).read_bytes()
    for model in SPECS:
        expected = _reference()[name][model]
        if "error" in expected:
            continue
        frames, _ = sampled_frames(payload, get_spec(model))
        if _has_stable_pixels(name):
            assert [f"{crc:08x}" for crc in frames[0]] == expected["picked_crc32"], model
        assert len(frames[0]) == len(expected["picked_crc32"])


@pytest.mark.parametrize("name", [name for name in _files(readable=True) if name not in HUGE])
def test_other_clips_equal_the_recipe(corpus: Path, name: str) -> None:
    """At 1.5 s, near the end, and ten clips of three crops: frames bit for bit, tensors to 1e-4."""
    payload = (corpus / name).read_bytes()
    video = open_encoded_video(payload)
    near_end = max(float(video.duration) - 1.0, 0.3)
    try:
        for sampling in (Sampling(start_sec=1.5), Sampling(start_sec=near_end), Sampling(num_clips=10, num_crops=3)):
            if name in DIFFERENT:
                with suppress(EmptyClip):
                    sampled_frames(payload, XS, sampling)
                continue
            _compare(payload, video, sampling, exact=_has_stable_pixels(name))
    finally:
        video.close()
    if name in DIFFERENT:
        pytest.xfail(DIFFERENT[name])


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


@pytest.mark.parametrize("name", _files(readable=False))
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
