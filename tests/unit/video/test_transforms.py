"""The fused transform against the documented chain of torch operations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms
import torchvision.transforms.functional
import torchvision.transforms.v2.functional
from numpy.typing import NDArray

from handlers.specs import ModelSpec, get_spec
from handlers.video.antialias import AntialiasTransform
from handlers.video.recipe import transform_clip
from handlers.video.transforms import FrameTransform, Orientation, pack_pathways, subsample_indices, with_alpha

SIZES = [(240, 320), (320, 240), (182, 182), (181, 183), (1, 1), (2, 2), (16, 16), (16, 2000), (121, 161), (720, 1280)]


def _frame(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _documented(frame: NDArray[np.uint8], spec: ModelSpec, num_crops: int) -> NDArray[np.float32]:
    """pytorchvideo's and torchvision's own classes on a clip of this one frame; (num_crops, 3, S, S)."""
    clip = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[:, None].float()
    clip = clip.expand(-1, spec.num_frames, -1, -1)
    return transform_clip(clip, spec, num_crops=num_crops)[:, :, 0].numpy()


def _fused(frame: NDArray[np.uint8], spec: ModelSpec, num_crops: int, orientation: Orientation) -> NDArray[np.float32]:
    out = np.full((num_crops, 3, spec.crop_size, spec.crop_size), np.nan, dtype=np.float32)
    height, width, _ = frame.shape
    kind = AntialiasTransform if spec.antialias else FrameTransform
    transform = kind(spec, height=height, width=width, num_crops=num_crops, orientation=orientation)
    transform.apply(with_alpha(frame).reshape(-1), out)
    return out


@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
@pytest.mark.parametrize("name", ["x3d_xs", "x3d_m", "x3d_s_mmaction2"])
def test_equals_the_documented_chain(name: str, size: tuple[int, int], num_crops: int) -> None:
    spec, frame = get_spec(name), _frame(*size)
    difference = _fused(frame, spec, num_crops, Orientation()) - _documented(frame, spec, num_crops)
    assert np.abs(difference).max() < 1e-4


_TORCHVISION = {
    "exact": get_spec("tv_r3d_18"),
    "square": get_spec("tv_s3d"),
    "short side": get_spec("tv_swin3d_t"),
    "antialias": replace(get_spec("tv_swin3d_t"), antialias=True),
    "antialias, exact": replace(get_spec("tv_r3d_18"), antialias=True),
    "bgr": replace(get_spec("tv_swin3d_t"), channel_order="bgr"),
    "antialias, bgr": replace(get_spec("tv_swin3d_t"), channel_order="bgr", antialias=True),
}


@pytest.mark.parametrize(
    "size", [(240, 320), (320, 240), (256, 256), (181, 1000), (121, 161), (720, 1280)], ids=lambda s: f"{s[1]}x{s[0]}"
)
@pytest.mark.parametrize("spec", _TORCHVISION.values(), ids=_TORCHVISION)
def test_equals_torchvisions_transforms_of_uint8_frames(spec: ModelSpec, size: tuple[int, int]) -> None:
    """Without antialias its first transforms, as its models' presets have them; with it its second, as Hugging Face."""
    frame = _frame(*size)
    kind = torchvision.transforms.v2.functional if spec.antialias else torchvision.transforms.functional
    clip = torch.from_numpy(frame).permute(2, 0, 1)[None]
    clip = clip[:, [2, 1, 0]] if spec.channel_order == "bgr" else clip
    clip = kind.resize(clip, list(spec.exact_size or (spec.short_side,)), antialias=spec.antialias)
    clip = kind.center_crop(clip, [spec.crop_size] * 2)
    expected = kind.normalize(torchvision.transforms.functional.convert_image_dtype(clip), spec.mean, spec.std)
    assert np.abs(_fused(frame, spec, 1, Orientation()) - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize("spec", [_TORCHVISION["exact"], _TORCHVISION["antialias"]], ids=["plain", "antialias"])
def test_three_crops_and_a_turned_frame(spec: ModelSpec) -> None:
    frame = _frame(120, 161)
    turned = _fused(frame, spec, 3, Orientation(transpose=True, flip_x=True))
    upright = np.ascontiguousarray(frame[:, ::-1].transpose(1, 0, 2))
    np.testing.assert_allclose(turned, _fused(upright, spec, 3, Orientation()), atol=1e-6)
    np.testing.assert_allclose(turned[1], _fused(upright, spec, 1, Orientation())[0], atol=1e-6)


@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flip_x", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
def test_an_oriented_frame_is_turned_first_and_transformed_then(
    transpose: bool, flip_x: bool, flip_y: bool, num_crops: int
) -> None:
    spec, stored = get_spec("x3d_xs"), _frame(120, 161)
    shown = stored[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    shown = shown.transpose(1, 0, 2) if transpose else shown
    fused = _fused(stored, spec, num_crops, Orientation(transpose=transpose, flip_x=flip_x, flip_y=flip_y))
    assert np.abs(fused - _documented(shown, spec, num_crops)).max() < 1e-4


def test_padded_rows_are_read_with_their_stride() -> None:
    spec, frame = get_spec("x3d_xs"), _frame(50, 61)
    padded = np.zeros((50, 256), dtype=np.uint8)
    padded[:, : 61 * 4] = with_alpha(frame).reshape(50, -1)
    out = np.empty((1, 3, spec.crop_size, spec.crop_size), dtype=np.float32)
    FrameTransform(spec, height=50, width=61, row_bytes=256).apply(padded.reshape(-1), out)
    np.testing.assert_array_equal(out, _fused(frame, spec, 1, Orientation()))


@pytest.mark.parametrize("num_samples", [1, 4, 8, 13, 16, 32])
def test_subsampling_picks_what_torch_picks(num_samples: int) -> None:
    for num_frames in (*range(1, 700), 999, 4096, 20_000):
        expected = torch.clamp(torch.linspace(0, num_frames - 1, num_samples), 0, num_frames - 1).long()
        assert subsample_indices(num_frames, num_samples).tolist() == expected.tolist(), num_frames


def test_subsampling_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        subsample_indices(0, 4)


@pytest.mark.parametrize("num_frames", [8, 32])
def test_the_slow_pathway_takes_every_alpha_th_frame(num_frames: int) -> None:
    views = np.arange(num_frames, dtype=np.float32).reshape(1, 1, num_frames, 1, 1).repeat(3, axis=1)
    slow, fast = pack_pathways(views, alpha=4)
    expected = torch.linspace(0, num_frames - 1, num_frames // 4).long()
    assert slow[0, 0, :, 0, 0].tolist() == expected.tolist()
    assert fast is views
