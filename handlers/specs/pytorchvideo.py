"""PyTorchVideo's models with weights for Kinetics-400."""

from __future__ import annotations

from dataclasses import replace

from handlers.specs.model_spec import (
    HubArchitecture,
    ModelSpec,
    Published,
    ResNetArchitecture,
    Weights,
    X3DArchitecture,
)

_HUB = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"

X3D_XS = ModelSpec(
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
X3D_S = replace(
    X3D_XS,
    name="x3d_s",
    num_frames=13,
    sampling_rate=6,
    architecture=X3DArchitecture(input_clip_length=13, input_crop_size=160),
    published=Published(top1=73.33, top5=91.27, params_m=3.79, flops_g=2.96, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/X3D_S.pyth", source="hub"),
)
X3D_M = replace(
    X3D_XS,
    name="x3d_m",
    num_frames=16,
    sampling_rate=5,
    short_side=256,
    crop_size=256,
    architecture=X3DArchitecture(input_clip_length=16, input_crop_size=224),
    published=Published(top1=75.94, top5=92.72, params_m=3.79, flops_g=6.72, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/X3D_M.pyth", source="hub"),
)
X3D_L = replace(
    X3D_XS,
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
SLOW_R50 = ModelSpec(
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
SLOWFAST_R50 = ModelSpec(
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
SLOWFAST_R101 = replace(
    SLOWFAST_R50,
    name="slowfast_r101",
    architecture=ResNetArchitecture(model_depth=101, fusion_kernel_frames=5),
    published=Published(top1=77.90, top5=93.27, params_m=62.83, flops_g=127.20, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/SLOWFAST_8x8_R101.pyth", source="hub"),
)
SLOW_R50_4X16 = replace(
    SLOW_R50,
    name="slow_r50_4x16",
    num_frames=4,
    sampling_rate=16,
    published=Published(top1=72.40, top5=90.18, params_m=32.45, flops_g=27.55, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/SLOW_4x16_R50.pyth", source="zoo"),
)
# The zoo has its weights, the hub no function for it; PySlowFast's SLOWFAST_4x16_R50.yaml: ALPHA 8, FUSION_KERNEL_SZ 5.
SLOWFAST_R50_4X16 = replace(
    SLOWFAST_R50,
    name="slowfast_r50_4x16",
    alpha=8,
    architecture=ResNetArchitecture(model_depth=50, fusion_kernel_frames=5),
    published=Published(top1=75.34, top5=91.89, params_m=34.48, flops_g=36.69, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/SLOWFAST_4x16_R50.pyth", source="zoo"),
)
SLOWFAST_16X8_R101_50_50 = replace(
    SLOWFAST_R50,
    name="slowfast_16x8_r101_50_50",
    num_frames=64,
    architecture=HubArchitecture(model="slowfast_16x8_r101_50_50", classifier="blocks.6.proj"),
    published=Published(top1=78.70, top5=93.61, params_m=53.77, flops_g=215.61, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/SLOWFAST_16x8_R101_50_50.pyth", source="hub"),
)
C2D_R50 = replace(
    SLOW_R50,
    name="c2d_r50",
    family="c2d",
    architecture=HubArchitecture(model="c2d_r50", classifier="blocks.6.proj"),
    published=Published(top1=71.46, top5=89.68, params_m=24.33, flops_g=25.89, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/C2D_8x8_R50.pyth", source="hub"),
)
I3D_R50 = replace(
    SLOW_R50,
    name="i3d_r50",
    family="i3d",
    architecture=HubArchitecture(model="i3d_r50", classifier="blocks.6.proj"),
    published=Published(top1=73.27, top5=90.70, params_m=28.04, flops_g=37.53, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/I3D_8x8_R50.pyth", source="hub"),
)
CSN_R101 = replace(
    SLOW_R50,
    name="csn_r101",
    family="csn",
    num_frames=32,
    sampling_rate=2,
    architecture=HubArchitecture(model="csn_r101", classifier="blocks.5.proj"),
    published=Published(top1=77.00, top5=92.90, params_m=22.21, flops_g=75.62, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/CSN_32x2_R101.pyth", source="hub"),
)
R2PLUS1D_R50 = replace(
    SLOW_R50,
    name="r2plus1d_r50",
    family="r2plus1d",
    num_frames=16,
    sampling_rate=4,
    architecture=HubArchitecture(model="r2plus1d_r50", classifier="blocks.5.proj"),
    published=Published(top1=76.01, top5=92.23, params_m=28.11, flops_g=76.45, views="10x3", source="zoo"),
    weights=Weights(url=f"{_HUB}/R2PLUS1D_16x4_R50.pyth", source="hub"),
)
# Not in the zoo's table: accuracy as the hub functions' docstrings state it, views as MViT's paper tests on Kinetics.
MVIT_BASE_16X4 = replace(
    SLOW_R50,
    name="mvit_base_16x4",
    family="mvit",
    num_frames=16,
    sampling_rate=4,
    crop_size=224,
    architecture=HubArchitecture(model="mvit_base_16x4", classifier="head.proj"),
    published=Published(top1=78.9, top5=None, params_m=36.61, flops_g=None, views="5x1", source="hub"),
    weights=Weights(url=f"{_HUB}/MVIT_B_16x4.pyth", source="hub"),
)
MVIT_BASE_32X3 = replace(
    MVIT_BASE_16X4,
    name="mvit_base_32x3",
    num_frames=32,
    sampling_rate=3,
    architecture=HubArchitecture(model="mvit_base_32x3", classifier="head.proj"),
    published=Published(top1=80.3, top5=None, params_m=36.61, flops_g=None, views="5x1", source="hub"),
    weights=Weights(url=f"{_HUB}/MVIT_B_32x3_f294077834.pyth", source="hub"),
)
