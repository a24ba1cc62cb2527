"""The synthesised videos: every frame can be told from every other after encoding, scaling and cropping."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from tests.support.paths import REPOSITORY
from tests.support.videos import PLANS, VideoPlan, decode_indices, frame_index, index_frame, make_video


@pytest.mark.parametrize("name", sorted(PLANS))
def test_indices_survive_the_codec(name: str, indexed_video: Callable[[str], bytes]) -> None:
    assert decode_indices(indexed_video(name)) == list(range(60))


def test_h264_has_b_frames(h264_video: bytes) -> None:
    with av.open(io.BytesIO(h264_video), "r") as container:
        kinds = {PictureType(frame.pict_type).name for frame in container.decode(video=0)}
    assert kinds == {"I", "P", "B"}


def test_indices_survive_a_centre_crop_of_the_short_side() -> None:
    frame = index_frame(1234, 640, 360)
    assert frame_index(frame[:, 140:500]) == 1234
    assert frame_index(frame[:, 140:500].astype(np.float32) / 255) == 1234


def test_a_picture_without_an_index_is_refused() -> None:
    for value in (0, 255):
        with pytest.raises(ValueError, match="carries no index"):
            frame_index(np.full((240, 320, 3), value, np.uint8))


def test_timestamps_are_the_plan_s() -> None:
    video = make_video(VideoPlan(num_frames=4, pts_ms=[0, 40, 200, 1000]))
    with av.open(io.BytesIO(video), "r") as container:
        times = [(frame.pts or 0) * (frame.time_base or Fraction(0)) for frame in container.decode(video=0)]
    assert times == [0, Fraction(40, 1000), Fraction(200, 1000), 1]


@pytest.mark.parametrize("name", ["h264", "h264_mkv", "hevc", "vp9", "mpeg4"])
def test_the_same_plan_gives_the_same_bytes(name: str) -> None:
    """In another process, too, and whatever its memory held before: encoders that read it unwritten are told not to."""
    program = (
        "import hashlib; from tests.support.videos import PLANS, make_video;"
        f"print(hashlib.sha256(make_video(PLANS[{name!r}])).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env={**os.environ, "MALLOC_PERTURB_": filler},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for filler in ("0", "85", "201")
    }
    assert len(digests) == 1
