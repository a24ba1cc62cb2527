"""Every number of a spec that can be recounted is recounted; the others are compared with the published tables."""

from __future__ import annotations

import json
import logging
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from pytorchvideo.models import hub
from torchvision.models import get_model_weights

from handlers.errors import UnknownSpec
from handlers.model.network import build_model
from handlers.specs import SPECS, ModelSpec, get_spec
from handlers.specs.spec_json import spec_from_json, spec_to_json

# The documentation's own tables, written out a second time.
DOCUMENTED = [
    # name, frames, rate, side and crop, top-1, top-5, M parameters, GFLOPs
    ("x3d_xs", 4, 12, 182, 69.12, 88.63, 3.79, 0.91),
    ("x3d_s", 13, 6, 182, 73.33, 91.27, 3.79, 2.96),
    ("x3d_m", 16, 5, 256, 75.94, 92.72, 3.79, 6.72),
    ("x3d_l", 16, 5, 356, 77.44, 93.31, 6.15, 26.64),
    ("slow_r50", 8, 8, 256, 74.58, 91.63, 32.45, 54.52),
    ("slowfast_r50", 32, 2, 256, 76.94, 92.69, 34.57, 65.71),
    ("slowfast_r101", 32, 2, 256, 77.90, 93.27, 62.83, 127.20),
    ("c2d_r50", 8, 8, 256, 71.46, 89.68, 24.33, 25.89),
    ("i3d_r50", 8, 8, 256, 73.27, 90.70, 28.04, 37.53),
    ("slow_r50_4x16", 4, 16, 256, 72.40, 90.18, 32.45, 27.55),
    ("slowfast_r50_4x16", 32, 2, 256, 75.34, 91.89, 34.48, 36.69),
    ("slowfast_16x8_r101_50_50", 64, 2, 256, 78.70, 93.61, 53.77, 215.61),
    ("csn_r101", 32, 2, 256, 77.00, 92.90, 22.21, 75.62),
    ("r2plus1d_r50", 16, 4, 256, 76.01, 92.23, 28.11, 76.45),
]
CLIP_SEC = {
    "x3d_xs": Fraction(8, 5),
    "x3d_s": Fraction(13, 5),
    "x3d_m": Fraction(8, 3),
    "x3d_l": Fraction(8, 3),
    "slow_r50": Fraction(32, 15),
    "slowfast_r50": Fraction(32, 15),
    "slowfast_r101": Fraction(32, 15),
    "x3d_s_mmaction2": Fraction(13, 5),
    "x3d_m_mmaction2": Fraction(8, 3),
    "camera_motion": Fraction(8, 5),
    "slow_r50_4x16": Fraction(32, 15),
    "slowfast_r50_4x16": Fraction(32, 15),
    "slowfast_16x8_r101_50_50": Fraction(64, 15),
    "c2d_r50": Fraction(32, 15),
    "i3d_r50": Fraction(32, 15),
    "csn_r101": Fraction(32, 15),
    "r2plus1d_r50": Fraction(32, 15),
    "mvit_base_16x4": Fraction(32, 15),
    "mvit_base_32x3": Fraction(16, 5),
    # frames / frame rate of torchvision's `meta["_docs"]`
    "tv_r3d_18": Fraction(16, 15),
    "tv_mc3_18": Fraction(16, 15),
    "tv_r2plus1d_18": Fraction(16, 15),
    "tv_s3d": Fraction(128, 15),
    "tv_mvit_v1_b": Fraction(32, 15),
    "tv_mvit_v2_s": Fraction(32, 15),
    "tv_swin3d_t": Fraction(32, 15),
    "tv_swin3d_s": Fraction(32, 15),
    "tv_swin3d_b": Fraction(32, 15),
}
all_specs = pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)


@pytest.mark.parametrize(("name", "frames", "rate", "size", "top1", "top5", "params", "flops"), DOCUMENTED)
def test_spec_has_the_documented_numbers(
    name: str, frames: int, rate: int, size: int, top1: float, top5: float, params: float, flops: float
) -> None:
    spec = get_spec(name)
    assert (spec.num_frames, spec.sampling_rate, spec.short_side, spec.crop_size) == (frames, rate, size, size)
    published = spec.published
    assert (published.top1, published.top5, published.params_m, published.flops_g) == (top1, top5, params, flops)
    assert (spec.mean, spec.std, spec.frames_per_second, spec.num_classes) == ((0.45,) * 3, (0.225,) * 3, 30, 400)
    assert spec.alpha == {"slowfast_r50_4x16": 8}.get(name, 4 if name.startswith("slowfast") else None)


def test_mmaction2_specs_have_the_figures_of_their_page() -> None:
    small, medium = get_spec("x3d_s_mmaction2"), get_spec("x3d_m_mmaction2")
    figures = {
        spec.name: [(entry.views, entry.top1, entry.reference_top1) for entry in spec.published.accuracies]
        for spec in (small, medium)
    }
    assert figures["x3d_s_mmaction2"] == [("10x1", 72.7, 73.1), ("10x3", 73.2, 73.5)]
    assert figures["x3d_m_mmaction2"] == [("10x1", 75.0, 75.1), ("10x3", 75.6, 76.2)]
    assert (small.num_frames, small.sampling_rate, small.short_side, small.crop_size) == (13, 6, 182, 182)
    assert (medium.num_frames, medium.sampling_rate, medium.short_side, medium.crop_size) == (16, 5, 256, 256)
    for spec in (small, medium):
        assert spec.head == "mmaction2"
        assert [mean * 255 for mean in spec.mean] == pytest.approx([114.75] * 3)
        assert [std * 255 for std in spec.std] == pytest.approx([57.38] * 3)
        # The file names end in the first eight digits of the files' SHA-256.
        assert spec.weights.url is not None
        assert spec.weights.url.endswith(f"-{spec.weights.sha256_prefix}.pth")


@all_specs
def test_parameters_recounted(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model = build_model(spec, num_classes=spec.num_classes, head=spec.head)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert round(counted / 1e6, 2) == spec.published.params_m


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=spec.name, marks=[pytest.mark.slow] if spec.published.flops_g > 20 else [])
        for spec in SPECS.values()
        if spec.published.flops_g is not None
    ],
)
def test_flops_of_one_view_recounted_within_six_percent(spec: ModelSpec) -> None:
    """At the spec's own crop, which is the input size that the published figures belong to."""
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    model = build_model(spec, num_classes=spec.num_classes, head=spec.head)
    fast = torch.zeros(1, 3, spec.num_frames, spec.crop_size, spec.crop_size)
    inputs = fast if spec.alpha is None else [fast[:, :, :: spec.alpha], fast]
    counted = FlopCountAnalysis(model, (inputs,)).unsupported_ops_warnings(False).total() / 1e9
    assert counted == pytest.approx(spec.published.flops_g, rel=0.06)


@all_specs
def test_clip_seconds(spec: ModelSpec) -> None:
    assert spec.clip_duration_exact == CLIP_SEC[spec.name]
    assert spec.clip_duration_sec == float(CLIP_SEC[spec.name])


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        *((name, hub.x3d.checkpoint_paths) for name in ("x3d_xs", "x3d_s", "x3d_m", "x3d_l")),
        ("slow_r50", hub.resnet.checkpoint_paths),
        *((name, hub.resnet.checkpoint_paths) for name in ("c2d_r50", "i3d_r50")),
        *(
            (name, hub.slowfast.checkpoint_paths)
            for name in ("slowfast_r50", "slowfast_r101", "slowfast_16x8_r101_50_50")
        ),
        ("csn_r101", hub.csn.checkpoint_paths),
        ("r2plus1d_r50", hub.r2plus1d.checkpoint_paths),
        *((name, hub.vision_transformers.checkpoint_paths) for name in ("mvit_base_16x4", "mvit_base_32x3")),
    ],
)
def test_weights_url_is_the_hubs_own(name: str, paths: dict[str, str]) -> None:
    assert get_spec(name).weights.url == paths[name]


@pytest.mark.parametrize("name", [name for name in SPECS if name.startswith("tv_")])
def test_torchvision_specs_have_the_figures_of_its_weights(name: str) -> None:
    spec, weights = get_spec(name), get_model_weights(name.removeprefix("tv_")).DEFAULT
    told = re.search(r"`frame_rate=([\d.]+)`, `clips_per_video=(\d+)`, and `clip_len=(\d+)`", weights.meta["_docs"])
    assert told is not None
    assert (spec.frame_rate, spec.num_frames, spec.published.views) == (float(told[1]), int(told[3]), f"{told[2]}x1")
    metrics = weights.meta["_metrics"]["Kinetics-400"]
    assert (spec.published.top1, spec.published.top5) == (metrics["acc@1"], metrics["acc@5"])
    assert spec.published.params_m == round(weights.meta["num_params"] / 1e6, 2)
    assert spec.published.flops_g in (None, weights.meta["_ops"])
    assert spec.weights.url == weights.url
    assert weights.url.endswith(f"-{spec.weights.sha256_prefix}.pth")
    transforms = weights.transforms()
    assert (tuple(transforms.mean), tuple(transforms.std)) == (spec.mean, spec.std)
    assert transforms.crop_size == [spec.crop_size] * 2
    assert transforms.resize_size == (list(spec.exact_size) if spec.exact_size else [spec.short_side])


def test_camera_motion_is_x3d_xs_with_bundled_weights() -> None:
    spec, base = get_spec("camera_motion"), get_spec("x3d_xs")
    assert spec.architecture == base.architecture
    assert (spec.num_frames, spec.sampling_rate, spec.crop_size) == (base.num_frames, base.sampling_rate, 182)
    assert (spec.num_classes, spec.weights.url) == (10, None)
    assert spec.weights.bundled == "camera_motion.safetensors"


def test_specs_are_values() -> None:
    for name, spec in SPECS.items():
        assert spec.name == name
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert hash(spec) == hash(replace(spec))
    with pytest.raises(FrozenInstanceError):
        get_spec("x3d_s").num_frames = 14  # type: ignore[misc]
    with pytest.raises(TypeError):
        SPECS["mine"] = get_spec("x3d_s")  # type: ignore[index]


@all_specs
def test_a_spec_survives_as_json(spec: ModelSpec) -> None:
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha belongs to slowfast alone"):
        replace(get_spec("x3d_s"), alpha=4)
    with pytest.raises(ValueError, match="crop 300 is larger than the short side 182"):
        replace(get_spec("x3d_s"), crop_size=300)


def test_unknown_spec_lists_the_known() -> None:
    with pytest.raises(UnknownSpec, match=r"unknown spec 'x3d_z'; known: x3d_xs, x3d_s, .*camera_motion"):
        get_spec("x3d_z")


def test_unknown_spec_suggests_the_most_similar() -> None:
    with pytest.raises(UnknownSpec, match=r"; did you mean x3d_s\?$"):
        get_spec("xd3_s")
    with pytest.raises(UnknownSpec, match=r"tv_swin3d_b$"):
        get_spec("nope")
