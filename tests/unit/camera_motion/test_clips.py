"""Sample clips: the motion that a label names is the motion that the pixels show."""

from __future__ import annotations

import io
import subprocess
import sys

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from camera_motion.clips import (
    MIRRORED,
    REVERSED,
    TRANSPOSED,
    Example,
    ExampleSource,
    decode,
    encoded_video,
    picked_indices,
    sized_spec,
    symmetric,
)
from camera_motion.motion import ORDINARY, REFERENCE_SEC, STATIC_DRIFT, WIDE, Ranges, sample_path
from camera_motion.render import Scene, Texture, encode_h264, render
from camera_motion.sample_clips import LABELS, make_clip, make_frames
from camera_motion.scenes import SIZE, make_texture

EXACTLY = [
    "static",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "roll clockwise",
    "roll counter-clockwise",
    "shake",
]

# Where a point right of the middle goes in the picture, (x, y) with y down, for each directed label.
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


def dot_texture() -> Texture:
    """Black, with one white dot at (SIZE / 2 + 90, SIZE / 2): far out, where zoom and roll move most."""
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    middle = SIZE // 2
    picture[middle - 4 : middle + 4, middle + 86 : middle + 94] = 255
    return Texture(picture)


def centroid(frame: NDArray[np.float32]) -> NDArray[np.float64]:
    """(x, y) of the light."""
    light = frame.sum(axis=2).astype(np.float64)
    y, x = np.indices(light.shape)
    return np.asarray(np.array([(x * light).sum(), (y * light).sum()]) / light.sum())


def test_labels_are_the_ten_in_order() -> None:
    assert list(LABELS) == EXACTLY


@pytest.mark.parametrize("label", CONTENT_MOVES)
@pytest.mark.parametrize("seed", range(3))
def test_content_moves_against_the_camera(label: str, seed: int) -> None:
    path = sample_path(label, np.random.default_rng(seed), strength=0.3)
    scene = Scene(dot_texture(), texels=256.0, origin=np.array([SIZE / 2, SIZE / 2]))
    first, last = render(scene, path, np.array([0.0, REFERENCE_SEC]), width=160, height=120)
    moved = centroid(last) - centroid(first)
    expected = np.array(CONTENT_MOVES[label])
    along = float(moved @ expected)
    across = float(np.abs(moved @ expected[::-1]))
    assert along > 1.0
    assert across < 0.6 * along


@pytest.mark.parametrize("ranges", [ORDINARY, WIDE], ids=["ordinary", "wide"])
@pytest.mark.parametrize("seed", range(20))
def test_static_stays_and_shake_returns(seed: int, ranges: Ranges) -> None:
    times_sec = np.array([0.0, 0.5, 1.033, 1.567])
    static = sample_path("static", np.random.default_rng(seed)).poses(times_sec)[:, :2]
    assert np.abs(static - static[0]).max() < 3 * STATIC_DRIFT
    shake = np.diff(sample_path("shake", np.random.default_rng(seed), ranges=ranges).poses(times_sec)[:, :2], axis=0)
    covered = np.hypot(*shake.T).sum()
    assert covered / 3 > 2 * STATIC_DRIFT
    assert np.hypot(*shake.sum(axis=0)) <= (ranges.shake_net + 0.15) * covered


@pytest.mark.parametrize("ranges", [ORDINARY, WIDE], ids=["ordinary", "wide"])
def test_speed_grows_with_strength_through_the_range(ranges: Ranges) -> None:
    travels = [
        abs(sample_path("pan right", np.random.default_rng(0), strength=strength, ranges=ranges).travel[0])
        for strength in (0.0, 0.5, 1.0)
    ]
    assert (travels[0], travels[2]) == pytest.approx(ranges.pan)
    assert travels[0] < travels[1] < travels[2]


def test_unknown_label_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown camera motion 'dolly'; known: static, pan left"):
        make_clip("dolly", seed=0)


def test_clip_is_h264_of_the_size_rate_and_length_asked_for() -> None:
    clip = make_clip("zoom in", seed=3, duration_sec=1.0, fps=24, width=96, height=64)
    with av.open(io.BytesIO(clip), "r") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 96, 64)
        assert stream.average_rate == 24
        assert sum(1 for _ in container.decode(video=0)) == 24


def test_clips_repeat_and_differ_by_seed() -> None:
    clips = [make_frames("shake", seed=seed, duration_sec=0.3, width=64, height=48) for seed in (5, 5, 6)]
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


def test_reverse_is_the_same_frames_backwards() -> None:
    forward, fps = decode(make_clip("pan left", seed=1, duration_sec=0.4, fps=10, width=64, height=48, crf=8))
    backward, _ = decode(
        make_clip("pan left", seed=1, duration_sec=0.4, fps=10, width=64, height=48, crf=8, reverse=True)
    )
    assert fps == 10
    assert np.abs(forward[::-1].astype(int) - backward).mean() < 3
    assert np.abs(forward.astype(int) - backward).mean() > 6


def test_sample_clips_need_no_torch() -> None:
    code = "import sys, camera_motion.sample_clips; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_odd_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="even sides, got 63x48"):
        encode_h264(np.zeros((1, 48, 63, 3), np.uint8), fps=10)


@pytest.mark.parametrize("kind", range(12))
def test_textures_have_contrast_and_repeat(kind: int) -> None:
    texture = make_texture(np.random.default_rng(kind))
    assert texture.shape == (SIZE, SIZE, 3)
    assert texture.std() > 8
    assert np.array_equal(texture, make_texture(np.random.default_rng(kind)))


def test_symmetries_are_their_own_inverse_and_keep_classes_apart() -> None:
    for permutation in (REVERSED, MIRRORED, TRANSPOSED):
        assert [permutation[permutation[index]] for index in range(10)] == list(range(10))
    assert LABELS[REVERSED[LABELS.index("zoom in")]] == "zoom out"
    assert LABELS[MIRRORED[LABELS.index("tilt up")]] == "tilt up"
    assert LABELS[TRANSPOSED[LABELS.index("pan left")]] == "tilt up"


@pytest.mark.parametrize("label", CONTENT_MOVES)
def test_symmetric_examples_show_what_their_label_says(label: str) -> None:
    """The dot's motion in a reversed, mirrored or transposed clip is the one that its new label names."""
    path = sample_path(label, np.random.default_rng(0), strength=0.1)
    scene = Scene(dot_texture(), texels=256.0, origin=np.array([SIZE / 2, SIZE / 2]))
    frames = render(scene, path, np.array([0.0, REFERENCE_SEC]), width=128, height=128).astype(np.uint8)
    example = Example(frames, LABELS.index(label), np.zeros((1, 4), np.float32))
    for seed in range(16):
        seen = symmetric(np.random.default_rng(seed), example)
        first, last = (centroid(frame.astype(np.float32)) for frame in seen.frames)
        from_middle = first - 63.5
        # Zoom and roll move the dot according to where it is; rotate so that it lies right of the middle.
        if "zoom" in label or "roll" in label:
            turn = np.exp(-1j * np.angle(complex(*from_middle)))
        else:
            turn = 1.0
        moved = complex(*(last - first)) * turn
        expected = complex(*CONTENT_MOVES[LABELS[seen.label]])
        assert (moved * expected.conjugate()).real > 0.5 * abs(moved)


def test_recipe_picks_first_and_last_frame_of_the_window() -> None:
    assert picked_indices(30, sized_spec(182)).tolist() == [0, 15, 31, 47]
    assert picked_indices(10, sized_spec(182)).tolist() == [0, 5, 10, 15]
    assert picked_indices(30, sized_spec(182), available=4).tolist() == [0, 1, 2, 3]


def test_examples_repeat_by_seed_and_have_the_wanted_shape() -> None:
    def stream() -> list[Example]:
        source = ExampleSource(3, sized_spec(32), encoded_share=0.0, encode_every=2, textures=2)
        return [source.next() for _ in range(4)]

    for first, second in zip(stream(), stream(), strict=True):
        assert first.frames.shape == (4, 32, 32, 3)
        assert first.frames.dtype == np.uint8
        assert first.label == second.label
        assert np.array_equal(first.frames, second.frames)


def test_encoded_clips_vary_in_size_and_rate() -> None:
    rng = np.random.default_rng(0)
    textures = [Texture(make_texture(rng)) for _ in range(2)]
    shapes = set()
    for label in range(4):
        with av.open(io.BytesIO(encoded_video(rng, textures, label).video), "r") as container:
            stream = container.streams.video[0]
            shapes.add((stream.width, stream.height, stream.average_rate))
    assert len(shapes) >= 3


def test_only_wide_clips_have_several_encoders() -> None:
    rng = np.random.default_rng(0)
    textures = [Texture(make_texture(rng)) for _ in range(2)]

    def codecs(wide: bool, count: int) -> set[str]:
        found = set()
        for label in range(count):
            with av.open(
                io.BytesIO(encoded_video(rng, textures, label % len(LABELS), wide=wide).video), "r"
            ) as container:
                found.add(container.streams.video[0].codec_context.name)
                assert sum(1 for _ in container.decode(video=0)) > 1
        return found

    assert codecs(False, 3) == {"h264"}
    assert codecs(True, 12) == {"h264", "hevc", "mpeg4"}
