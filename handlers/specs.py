"""What a model is: architecture, preprocessing, published figures. Frozen values, no code that runs them.

Sources, cited per spec by key:
    tutorial   PyTorchVideo's Torch Hub inference tutorial (transform parameters, frames x rate, 30 frames per second)
    zoo        PyTorchVideo's model zoo page, docs/source/model_zoo.md (Kinetics-400 top-1 / top-5 with 10 clips x 3
               crops, parameters, FLOPs of one view). fvcore counts within 6 % of its FLOPs at the spec's crop, not at
               the smaller one the network is built with: the table's x3d_s is 182 pixels, not 160
    hub        pytorchvideo 0.1.5, `pytorchvideo/models/hub/*.py` (architecture arguments, weights URLs)
    pyslowfast PySlowFast's configs/Kinetics/X3D_L.yaml (X3D-L's test crop, which the tutorial lacks)
    mmaction2  MMAction2 0.x's configs/recognition/x3d (frames, crop, mean and deviation on 0 to 255, accuracy on videos
               of short side 320; the file names end in their SHA-256's first digits). The 1.x page measured the same
               files again: 72.7 / 73.3 and 74.9 / 75.5. Parameters and FLOPs are the zoo's, same networks
    here       trained by this repository, `python -m scripts.train_camera_motion`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

from handlers.errors import UnknownSpec

Family = Literal["x3d", "slow", "slowfast"]
Head = Literal["pytorchvideo", "mmaction2", "pyslowfast"]
Source = Literal["tutorial", "zoo", "hub", "pyslowfast", "mmaction2", "here"]

_HUB = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"
_MMACTION2 = "https://download.openmmlab.com/mmaction/recognition/x3d"


@dataclass(frozen=True, slots=True, kw_only=True)
class X3DArchitecture:
    """Arguments of pytorchvideo's create_x3d; length and crop decide the head's pooling window, not the input size."""

    input_clip_length: int
    input_crop_size: int
    depth_factor: float = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetArchitecture:
    """Arguments of create_resnet or create_slowfast; `fusion_kernel_frames` is SlowFast's alone."""

    model_depth: int
    fusion_kernel_frames: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 percent with `views` (clips x crops); `reference_top1`: the same weights in their first authors' code."""

    views: str
    top1: float
    reference_top1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the model's authors claim: percent on Kinetics-400, millions of parameters, GFLOPs of one view.

    `views` is clips x crops, as `evaluate --views` writes it; `accuracies` are all that were published, where more than
    one was.
    """

    top1: float | None
    top5: float | None
    params_m: float
    flops_g: float
    views: str
    accuracies: tuple[Accuracy, ...] = ()
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Where published weights are: a URL, or file names in this repository's weights folder (with their labels)."""

    url: str | None = None
    bundled: str | None = None
    bundled_labels: str | None = None
    sha256_prefix: str | None = None
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model family member with the preprocessing it was trained with.

    A clip is `num_frames` frames picked uniformly from `clip_duration_sec` seconds of video. Frames are RGB, scaled to
    [0, 1], normalised with `mean` and `std` (same for the three channels), the short side resized to `short_side`
    pixels (bilinear) and a `crop_size` x `crop_size` square cut out.
    """

    name: str
    family: Family
    num_frames: int
    sampling_rate: int
    short_side: int
    crop_size: int
    frames_per_second: int = 30
    mean: float = 0.45
    std: float = 0.225
    alpha: int | None = None
    num_classes: int = 400
    head: Head = "pytorchvideo"
    architecture: X3DArchitecture | ResNetArchitecture
    published: Published
    weights: Weights
    preprocessing_source: Source = "tutorial"

    def __post_init__(self) -> None:
        if (self.family == "slowfast") != (self.alpha is not None):
            raise ValueError(f"{self.name}: alpha belongs to slowfast alone, got {self.family} with alpha {self.alpha}")
        if self.crop_size > self.short_side:
            raise ValueError(f"{self.name}: crop {self.crop_size} is larger than the short side {self.short_side}")

    @property
    def clip_duration_sec(self) -> float:
        """Seconds of video in one clip: `num_frames * sampling_rate / frames_per_second`, as the tutorial computes."""
        return (self.num_frames * self.sampling_rate) / self.frames_per_second

    @property
    def clip_duration_exact(self) -> Fraction:
        return Fraction(self.num_frames * self.sampling_rate, self.frames_per_second)

    @property
    def pathways(self) -> int:
        return 2 if self.family == "slowfast" else 1


_X3D_XS = ModelSpec(
    name="x3d_xs",
    family="x3d",
    num_frames=4,
    sampling_rate=12,
    short_side=182,
    crop_size=182,
    architecture=X3DArchitecture(input_clip_length=4, input_crop_size=160),
    published=Published(top1=69.12, top5=88.63, params_m=3.79, flops_g=0.91, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/X3D_XS.pyth", source="hub"),
)
_X3D_S = replace(
    _X3D_XS,
    name="x3d_s",
    num_frames=13,
    sampling_rate=6,
    architecture=X3DArchitecture(input_clip_length=13, input_crop_size=160),
    published=Published(top1=73.33, top5=91.27, params_m=3.79, flops_g=2.96, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/X3D_S.pyth", source="hub"),
)
_X3D_M = replace(
    _X3D_XS,
    name="x3d_m",
    num_frames=16,
    sampling_rate=5,
    short_side=256,
    crop_size=256,
    architecture=X3DArchitecture(input_clip_length=16, input_crop_size=224),
    published=Published(top1=75.94, top5=92.72, params_m=3.79, flops_g=6.72, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/X3D_M.pyth", source="hub"),
)
_X3D_L = replace(
    _X3D_XS,
    name="x3d_l",
    num_frames=16,
    sampling_rate=5,
    # X3D_L.yaml: TEST_CROP_SIZE 356 for three crops, TRAIN_CROP_SIZE 312 (the hub's input_crop_size). The zoo's FLOPs
    # are those of 356 pixels too: fvcore counts 25.5 G there, and 18.9 G at 312.
    short_side=356,
    crop_size=356,
    architecture=X3DArchitecture(input_clip_length=16, input_crop_size=312, depth_factor=5.0),
    published=Published(top1=77.44, top5=93.31, params_m=6.15, flops_g=26.64, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/X3D_L.pyth", source="hub"),
    preprocessing_source="pyslowfast",
)
_SLOW_R50 = ModelSpec(
    name="slow_r50",
    family="slow",
    num_frames=8,
    sampling_rate=8,
    short_side=256,
    crop_size=256,
    architecture=ResNetArchitecture(model_depth=50),
    published=Published(top1=74.58, top5=91.63, params_m=32.45, flops_g=54.52, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/SLOW_8x8_R50.pyth", source="hub"),
)
_SLOWFAST_R50 = ModelSpec(
    name="slowfast_r50",
    family="slowfast",
    num_frames=32,
    sampling_rate=2,
    short_side=256,
    crop_size=256,
    alpha=4,
    architecture=ResNetArchitecture(model_depth=50, fusion_kernel_frames=7),
    published=Published(top1=76.94, top5=92.69, params_m=34.57, flops_g=65.71, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/SLOWFAST_8x8_R50.pyth", source="hub"),
)
_SLOWFAST_R101 = replace(
    _SLOWFAST_R50,
    name="slowfast_r101",
    architecture=ResNetArchitecture(model_depth=101, fusion_kernel_frames=5),
    published=Published(top1=77.90, top5=93.27, params_m=62.83, flops_g=127.20, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/SLOWFAST_8x8_R101.pyth", source="hub"),
)
_X3D_S_MMACTION2 = replace(
    _X3D_S,
    name="x3d_s_mmaction2",
    mean=114.75 / 255,
    std=57.38 / 255,
    head="mmaction2",
    published=Published(
        top1=73.2,
        top5=None,
        params_m=3.79,
        flops_g=2.96,
        views="10x3",
        accuracies=(
            Accuracy(views="10x1", top1=72.7, reference_top1=73.1),
            Accuracy(views="10x3", top1=73.2, reference_top1=73.5),
        ),
        source="mmaction2",
    ),
    weights=Weights(
        url=f"{_MMACTION2}/facebook/x3d_s_facebook_13x6x1_kinetics400_rgb_20201027-623825a0.pth",
        sha256_prefix="623825a0",
        source="mmaction2",
    ),
    preprocessing_source="mmaction2",
)
_X3D_M_MMACTION2 = replace(
    _X3D_M,
    name="x3d_m_mmaction2",
    mean=114.75 / 255,
    std=57.38 / 255,
    head="mmaction2",
    published=Published(
        top1=75.6,
        top5=None,
        params_m=3.79,
        flops_g=6.72,
        views="10x3",
        accuracies=(
            Accuracy(views="10x1", top1=75.0, reference_top1=75.1),
            Accuracy(views="10x3", top1=75.6, reference_top1=76.2),
        ),
        source="mmaction2",
    ),
    weights=Weights(
        url=f"{_MMACTION2}/facebook/x3d_m_facebook_16x5x1_kinetics400_rgb_20201027-3f42382a.pth",
        sha256_prefix="3f42382a",
        source="mmaction2",
    ),
    preprocessing_source="mmaction2",
)
_CAMERA_MOTION = replace(
    _X3D_XS,
    name="camera_motion",
    num_classes=10,
    published=Published(top1=None, top5=None, params_m=3.00, flops_g=0.91, views="1x1", source="here"),
    weights=Weights(bundled="camera_motion.safetensors", bundled_labels="camera_motion.labels.txt", source="here"),
    preprocessing_source="here",
)

SPECS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _X3D_XS,
            _X3D_S,
            _X3D_M,
            _X3D_L,
            _SLOW_R50,
            _SLOWFAST_R50,
            _SLOWFAST_R101,
            _X3D_S_MMACTION2,
            _X3D_M_MMACTION2,
            _CAMERA_MOTION,
        )
    }
)
"""Every spec by name; read-only."""


def get_spec(name: str) -> ModelSpec:
    """The spec of that name; raises UnknownSpec with the known names."""
    try:
        return SPECS[name]
    except KeyError:
        raise UnknownSpec(f"unknown spec {name!r}; known: {', '.join(SPECS)}") from None
