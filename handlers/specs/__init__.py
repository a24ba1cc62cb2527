"""Every model that is known here, as values: `get_spec(name)`. What a spec says is in `model_spec`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from handlers.errors import UnknownSpec
from handlers.specs import derived, pytorchvideo, torchvision
from handlers.specs.model_spec import (
    EXPLAINED_FAMILIES,
    Accuracy,
    Activation,
    Architecture,
    Channels,
    Combine,
    Family,
    GraphArchitecture,
    Head,
    HubArchitecture,
    ModelSpec,
    Published,
    ResNetArchitecture,
    Source,
    Temporal,
    TorchvisionArchitecture,
    Weights,
    X3DArchitecture,
)

__all__ = [
    "EXPLAINED_FAMILIES",
    "SPECS",
    "Accuracy",
    "Activation",
    "Architecture",
    "Channels",
    "Combine",
    "Family",
    "GraphArchitecture",
    "Head",
    "HubArchitecture",
    "ModelSpec",
    "Published",
    "ResNetArchitecture",
    "Source",
    "Temporal",
    "TorchvisionArchitecture",
    "Weights",
    "X3DArchitecture",
    "get_spec",
]

SPECS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            pytorchvideo.X3D_XS,
            pytorchvideo.X3D_S,
            pytorchvideo.X3D_M,
            pytorchvideo.X3D_L,
            pytorchvideo.SLOW_R50,
            pytorchvideo.SLOWFAST_R50,
            pytorchvideo.SLOWFAST_R101,
            derived.X3D_S_MMACTION2,
            derived.X3D_M_MMACTION2,
            derived.CAMERA_MOTION,
            pytorchvideo.SLOW_R50_4X16,
            pytorchvideo.SLOWFAST_R50_4X16,
            pytorchvideo.SLOWFAST_16X8_R101_50_50,
            pytorchvideo.C2D_R50,
            pytorchvideo.I3D_R50,
            pytorchvideo.CSN_R101,
            pytorchvideo.R2PLUS1D_R50,
            pytorchvideo.MVIT_BASE_16X4,
            pytorchvideo.MVIT_BASE_32X3,
            torchvision.TV_R3D_18,
            torchvision.TV_MC3_18,
            torchvision.TV_R2PLUS1D_18,
            torchvision.TV_S3D,
            torchvision.TV_MVIT_V1_B,
            torchvision.TV_MVIT_V2_S,
            torchvision.TV_SWIN3D_T,
            torchvision.TV_SWIN3D_S,
            torchvision.TV_SWIN3D_B,
        )
    }
)
"""Every spec by name; read-only."""


def get_spec(name: str) -> ModelSpec:
    """The spec of that name; raises UnknownSpec with the known names."""
    try:
        return SPECS[name]
    except KeyError:
        similar = difflib.get_close_matches(name, SPECS, n=1)
        meant = f"; did you mean {similar[0]}?" if similar else ""
        raise UnknownSpec(f"unknown spec {name!r}; known: {', '.join(SPECS)}{meant}") from None
