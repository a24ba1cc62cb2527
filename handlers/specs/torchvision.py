"""torchvision's video models with weights for Kinetics-400, as `tv_NAME`.

A clip of theirs is so many frames in a row of the video at `frame_rate` frames per second (the weights' `_docs`), which
is the spec's 30 / sampling_rate. Their documented preprocessing, each weights' `transforms`, resizes uint8 frames.
"""

from __future__ import annotations

from dataclasses import replace

from handlers.specs.model_spec import ModelSpec, Published, TorchvisionArchitecture, Weights

_FILES = "https://download.pytorch.org/models"

TV_R3D_18 = ModelSpec(
    name="tv_r3d_18",
    family="torchvision",
    num_frames=16,
    sampling_rate=2,
    temporal="fps_stride",
    short_side=128,
    exact_size=(128, 171),
    crop_size=112,
    resize_as="torchvision",
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
    head="torchvision",
    architecture=TorchvisionArchitecture(model="r3d_18", classifier="fc"),
    published=Published(top1=63.200, top5=83.479, params_m=33.37, flops_g=40.697, views="5x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/r3d_18-b3b3357e.pth", sha256_prefix="b3b3357e", source="torchvision"),
    preprocessing_source="torchvision",
)
TV_MC3_18 = replace(
    TV_R3D_18,
    name="tv_mc3_18",
    architecture=TorchvisionArchitecture(model="mc3_18", classifier="fc"),
    published=Published(top1=63.960, top5=84.130, params_m=11.70, flops_g=43.343, views="5x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/mc3_18-a90a0ba3.pth", sha256_prefix="a90a0ba3", source="torchvision"),
)
TV_R2PLUS1D_18 = replace(
    TV_R3D_18,
    name="tv_r2plus1d_18",
    architecture=TorchvisionArchitecture(model="r2plus1d_18", classifier="fc"),
    published=Published(top1=67.463, top5=86.175, params_m=31.51, flops_g=40.519, views="5x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/r2plus1d_18-91a641e6.pth", sha256_prefix="91a641e6", source="torchvision"),
)
TV_S3D = replace(
    TV_R3D_18,
    name="tv_s3d",
    num_frames=128,
    short_side=256,
    exact_size=(256, 256),
    crop_size=224,
    architecture=TorchvisionArchitecture(model="s3d", classifier="classifier.1"),
    # Its 17.979 GFLOPs are of a clip of another length.
    published=Published(top1=68.368, top5=88.050, params_m=8.32, flops_g=None, views="1x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/s3d-d76dad2f.pth", sha256_prefix="d76dad2f", source="torchvision"),
)
TV_MVIT_V1_B = replace(
    TV_R3D_18,
    name="tv_mvit_v1_b",
    sampling_rate=4,
    short_side=256,
    exact_size=None,
    crop_size=224,
    mean=(0.45, 0.45, 0.45),
    std=(0.225, 0.225, 0.225),
    architecture=TorchvisionArchitecture(model="mvit_v1_b", classifier="head.1"),
    published=Published(top1=78.477, top5=93.582, params_m=36.61, flops_g=70.599, views="5x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/mvit_v1_b-dbeb1030.pth", sha256_prefix="dbeb1030", source="torchvision"),
)
TV_MVIT_V2_S = replace(
    TV_MVIT_V1_B,
    name="tv_mvit_v2_s",
    architecture=TorchvisionArchitecture(model="mvit_v2_s", classifier="head.1"),
    published=Published(top1=80.757, top5=94.665, params_m=34.54, flops_g=64.224, views="5x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/mvit_v2_s-ae3be167.pth", sha256_prefix="ae3be167", source="torchvision"),
)
# The GFLOPs that torchvision states for Swin are of a shorter clip than the one that its accuracy was measured with.
TV_SWIN3D_T = replace(
    TV_R3D_18,
    name="tv_swin3d_t",
    num_frames=32,
    short_side=256,
    exact_size=None,
    crop_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    architecture=TorchvisionArchitecture(model="swin3d_t", classifier="head"),
    published=Published(top1=77.715, top5=93.519, params_m=28.16, flops_g=None, views="12x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/swin3d_t-7615ae03.pth", sha256_prefix="7615ae03", source="torchvision"),
)
TV_SWIN3D_S = replace(
    TV_SWIN3D_T,
    name="tv_swin3d_s",
    architecture=TorchvisionArchitecture(model="swin3d_s", classifier="head"),
    published=Published(top1=79.521, top5=94.158, params_m=49.82, flops_g=None, views="12x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/swin3d_s-da41c237.pth", sha256_prefix="da41c237", source="torchvision"),
)
TV_SWIN3D_B = replace(
    TV_SWIN3D_T,
    name="tv_swin3d_b",
    architecture=TorchvisionArchitecture(model="swin3d_b", classifier="head"),
    published=Published(top1=79.427, top5=94.386, params_m=88.05, flops_g=None, views="12x1", source="torchvision"),
    weights=Weights(url=f"{_FILES}/swin3d_b_1k-24f7c7c6.pth", sha256_prefix="24f7c7c6", source="torchvision"),
)
