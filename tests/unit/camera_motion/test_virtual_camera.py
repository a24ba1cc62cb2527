"""The independent measurement: its clips show the motion that their label and speed band name, and nothing else."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from camera_motion.clips import decode
from camera_motion.motion import LABELS
from camera_motion.realframes import Still, read_stills
from camera_motion.scenes import make_texture
from camera_motion.virtual_camera import (
    BANDS,
    EDGES,
    TRAVEL_SEC,
    VirtualCameraClips,
    amount,
    frame_at,
    poses,
    shoot,
)

CORPUS = Path(__file__).resolve().parents[4] / "shared" / "corpus" / "real"

# Where a point right of the middle goes in the picture, (x, y) with y down.
CONTENT_MOVES = {
    "pan left": (1, 0),
    "pan right": (-1, 0),
    "tilt up": (0, 1),
    "tilt down": (0, -1),
    "zoom in": (1, 0),
    "zoom out": (-1, 0),
    "roll clockwise": (0, -1),
    "roll counter-clockwise": (0, 1),
}
TIMES_SEC = np.linspace(0, TRAVEL_SEC, 33)


def still(seed: int = 4) -> Still:
    return Still("made", make_texture(np.random.default_rng(seed))[:360, :480].copy())


def centroid(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    light = picture.sum(axis=2).astype(np.float64)
    y, x = np.indices(light.shape)
    return np.asarray(np.array([(x * light).sum(), (y * light).sum()]) / light.sum())


@pytest.mark.parametrize("label", CONTENT_MOVES)
@pytest.mark.parametrize("seed", range(3))
def test_content_moves_against_the_camera(label: str, seed: int) -> None:
    dot = np.zeros((400, 400, 3), np.uint8)
    dot[196:204, 236:244] = 255
    path = poses(label, {"zoom": 1.3, "roll": 20.0}.get(label.split()[0], 0.15), TIMES_SEC, np.random.default_rng(seed))
    first, last = (frame_at(Image.fromarray(dot), pose, (200.0, 200.0), 200.0, (160, 120)) for pose in path[[0, -1]])
    moved = centroid(last) - centroid(first)
    along = float(moved @ np.array(CONTENT_MOVES[label]))
    assert along > 3
    assert math.hypot(*moved) < 1.5 * along


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("band", range(len(BANDS)))
def test_speeds_lie_in_their_band(label: str, band: int) -> None:
    rng = np.random.default_rng(band)
    motion = label.split()[0]
    low, high = EDGES[motion][band : band + 2]
    size = amount(label, band, rng)
    assert low <= size <= high
    path = poses(label, size, TIMES_SEC, rng)
    travel = np.abs(path[-1] - path[0])
    if motion == "static":
        assert math.hypot(*travel[:2]) == pytest.approx(size)
    elif motion == "shake":
        assert np.sqrt((path[:, 0] ** 2).mean()) == pytest.approx(size)
        assert np.abs(path[:, :2].mean(axis=0)).max() < 1e-9
    else:
        axis = ("pan", "tilt", "zoom", "roll").index(motion)
        wanted = {"zoom": math.log(size), "roll": math.radians(size)}.get(motion, size)
        assert travel[axis] == pytest.approx(wanted, rel=0.35)


@pytest.mark.parametrize("label", ["pan left", "zoom out", "roll clockwise"])
def test_windows_stay_inside_the_frame(label: str) -> None:
    """The frame has a red border that a window inside never shows."""
    picture = still().picture
    picture[..., 0] = np.minimum(picture[..., 0], 120)
    framed = np.zeros_like(picture)
    framed[:] = (255, 0, 0)
    framed[2:-2, 2:-2] = picture[2:-2, 2:-2]
    video, label_id, band = shoot(Still("made", framed), label, 2, np.random.default_rng(1))
    frames, _ = decode(video)
    assert (LABELS[label_id], band) == (label, 2)
    assert len(frames) >= 1.6 * 12
    assert ((frames[..., 0] > 240) & (frames[..., 1] < 15) & (frames[..., 2] < 15)).mean() < 0.02


def test_a_part_has_every_label_and_bands_take_turns() -> None:
    clips = VirtualCameraClips([still()], seed=3)[0]
    assert [label for _, label, _ in clips] == list(range(len(LABELS)))
    assert {band for _, _, band in clips} == set(range(len(BANDS)))


def test_a_blank_frame_has_no_clip() -> None:
    blank = Still("blank", np.full((240, 320, 3), 90, np.uint8))
    with pytest.raises(ValueError, match=r"no window of static fits into blank \(320x240\)"):
        shoot(blank, "static", 0, np.random.default_rng(0))


@pytest.mark.slow  # decodes every video of the corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no videos in {CORPUS}")
def test_stills_of_the_corpus_are_photographs_or_named_as_drawn() -> None:
    stills = read_stills(CORPUS, per_video=1)
    assert sum(not each.drawn for each in stills) >= 15
    assert {each.source for each in stills if each.drawn} >= {"tc_av1_video.mkv", "xo_midroll-5s.mp4"}
