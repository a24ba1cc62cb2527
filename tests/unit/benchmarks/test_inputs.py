"""The videos that are measured, and what the contenders are given."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from benchmarks.baselines.archives import HUB_MODELS, recipe
from benchmarks.baselines.contender import Stopwatch, top_five
from benchmarks.baselines.ffmpeg_libraries import library_path, plain_name
from benchmarks.baselines.process import CONTENDERS, create
from benchmarks.videos import VIDEOS, BenchmarkVideo, describe_video, encode, ensure_video, frames
from handlers.errors import InvalidConfig
from handlers.model.archive_info import ArchiveInfo, WeightsInfo
from handlers.specs import Head, get_spec

SMALL = BenchmarkVideo(name="160x120", width=160, height=120, duration_sec=2, bit_rate_kbps=150)


@pytest.fixture(scope="module")
def small() -> bytes:
    return encode(SMALL)


def test_the_contracts_sizes() -> None:
    sizes = {(video.width, video.height): video.duration_sec for video in VIDEOS.values()}
    assert sizes == {(320, 240): 10, (1280, 720): 10, (1920, 1080): 10, (3840, 2160): 3}
    assert all(name == f"{video.width}x{video.height}" for name, video in VIDEOS.items())


def test_h264_with_b_frames_at_the_rate_asked_for(small: bytes) -> None:
    with av.open(io.BytesIO(small), "r") as container:
        stream = container.streams.video[0]
        decoded = list(container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == Fraction(30)
    assert [(frame.width, frame.height) for frame in decoded] == [(160, 120)] * 60
    kinds = [PictureType(frame.pict_type) for frame in decoded]
    assert kinds.count(PictureType.B) >= 30
    assert 75_000 < len(small) * 8 / SMALL.duration_sec < 250_000


def test_the_same_bytes_each_time(small: bytes) -> None:
    assert encode(SMALL) == small


def test_content_moves_and_is_not_noise() -> None:
    pictures = [picture.astype(np.float32) for _, picture in zip(range(16), frames(SMALL), strict=False)]
    assert np.abs(pictures[15] - pictures[0]).mean() > 4
    neighbours = np.abs(np.diff(pictures[0], axis=1)).mean()
    assert neighbours < 0.6 * np.abs(pictures[0] - pictures[0].mean(axis=(0, 1))).mean()


def test_made_once_and_kept(tmp_path: Path, small: bytes) -> None:
    seen: list[int] = []
    path = ensure_video(SMALL, tmp_path, on_frame=lambda: seen.append(1))
    assert (path.read_bytes(), len(seen)) == (small, 60)
    assert ensure_video(SMALL, tmp_path, on_frame=lambda: seen.append(1)) == path
    assert len(seen) == 60
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_another_setting_is_another_file() -> None:
    other = BenchmarkVideo(name="160x120", width=160, height=120, duration_sec=2, bit_rate_kbps=150, seed=1)
    assert other.file_name != SMALL.file_name


def test_description_is_of_the_file(tmp_path: Path) -> None:
    path = ensure_video(SMALL, tmp_path)
    about = describe_video(SMALL, path)
    assert about["bytes"] == path.stat().st_size
    assert len(about["sha256"]) == 64


def archive_info(spec: str, head: Head = "pytorchvideo") -> ArchiveInfo:
    weights = WeightsInfo(kind="random", source=None, sha256="0", seed=0)
    return ArchiveInfo(
        spec=spec, name=spec, version="1.0", num_classes=7, head=head, weights=weights, package_version="0.1"
    )


@pytest.mark.parametrize("name", HUB_MODELS)
def test_the_recipes_parameters_are_the_specs(name: str) -> None:
    spec, parameters = get_spec(name), recipe(archive_info(name))
    assert parameters["num_classes"] == 7
    duration = parameters["num_frames"] * parameters["sampling_rate"] / parameters["frames_per_second"]
    assert duration == spec.clip_duration_sec
    assert (parameters["side_size"], parameters["crop_size"]) == (spec.short_side, spec.crop_size)


@pytest.mark.parametrize(("spec", "head"), [("camera_motion", "pytorchvideo"), ("x3d_s", "mmaction2")])
def test_no_recipe_for_models_that_the_hub_does_not_have(spec: str, head: Head) -> None:
    with pytest.raises(InvalidConfig, match="there is no recipe"):
        recipe(archive_info(spec, head))


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("libavcodec-5e6b81c2.so.62.28.102", "libavcodec.so.62"),
        ("libxcb-shape-7716c890.so.0.0.0", "libxcb-shape.so.0"),
        ("libavcodec.so.62", "libavcodec.so.62"),
    ],
)
def test_plain_names_of_wheel_libraries(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_the_wheels_libraries_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    folder = tmp_path / "lib"
    variables = library_path(folder)
    if not variables:
        pytest.skip("PyAV was not installed from a wheel: it holds no libraries")
    assert variables == {"LD_LIBRARY_PATH": f"{folder}:/opt/lib"}
    assert any(path.name.startswith("libavcodec.so.") and path.resolve().is_file() for path in folder.iterdir())
    assert library_path(folder) == variables  # links that are there are kept


def test_stages_add_up() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage("decode"):
            pass
    with watch.stage("model"):
        pass
    run = watch.run([3, 1])
    assert set(run.stages_ms) == {"decode", "model"}
    assert run.total_ms == sum(run.stages_ms.values())
    assert run.top == (3, 1)


def test_top_five_is_best_first() -> None:
    assert top_five(np.array([0.1, 5, 3, 4, 2, 1], dtype=np.float32)) == (1, 3, 2, 4, 5)


def test_unknown_contenders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=", ".join(CONTENDERS)):
        create("none", tmp_path)
