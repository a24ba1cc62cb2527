"""X3D with the weights of others: MMAction2's conversions, and this repository's own `camera_motion`."""

from __future__ import annotations

from dataclasses import replace

from handlers.specs.model_spec import Accuracy, Published, Weights
from handlers.specs.pytorchvideo import X3D_M, X3D_S, X3D_XS

_MMACTION2 = "https://download.openmmlab.com/mmaction/recognition/x3d"

X3D_S_MMACTION2 = replace(
    X3D_S,
    name="x3d_s_mmaction2",
    mean=(114.75 / 255,) * 3,
    std=(57.38 / 255,) * 3,
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
X3D_M_MMACTION2 = replace(
    X3D_M,
    name="x3d_m_mmaction2",
    mean=(114.75 / 255,) * 3,
    std=(57.38 / 255,) * 3,
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
CAMERA_MOTION = replace(
    X3D_XS,
    name="camera_motion",
    num_classes=10,
    published=Published(top1=None, top5=None, params_m=3.00, flops_g=0.91, views="1x1", source="here"),
    weights=Weights(bundled="camera_motion.safetensors", bundled_labels="camera_motion.labels.txt", source="here"),
    preprocessing_source="here",
)
