"""Keys of MMAction2's and PySlowFast's checkpoints -> pytorchvideo's own, which are canonical here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from handlers.specs import Family, Head


def _keep(key: str, family: Family) -> str:
    return key


_MMACTION2_UNITS = MappingProxyType(
    {
        "downsample.conv": "branch1_conv",
        "downsample.bn": "branch1_norm",
        "conv1.conv": "branch2.conv_a",
        "conv1.bn": "branch2.norm_a",
        "conv2.conv": "branch2.conv_b",
        "conv2.bn": "branch2.norm_b.0",
        "se_module.fc1": "branch2.norm_b.1.block.0",
        "se_module.fc2": "branch2.norm_b.1.block.2",
        "conv3.conv": "branch2.conv_c",
        "conv3.bn": "branch2.norm_c",
    }
)
_MMACTION2_ENDS = MappingProxyType(
    {
        # pytorchvideo's stem names are swapped: its conv_t is the spatial convolution.
        "backbone.conv1_s.conv": "blocks.0.conv.conv_t",
        "backbone.conv1_t.conv": "blocks.0.conv.conv_xy",
        "backbone.conv1_t.bn": "blocks.0.norm",
        "backbone.conv5.conv": "blocks.5.pool.pre_conv",
        "backbone.conv5.bn": "blocks.5.pool.pre_norm",
        "cls_head.fc1": "blocks.5.pool.post_conv",
        "cls_head.fc2": "blocks.5.proj",
    }
)


def _from_mmaction2(key: str, family: Family) -> str:
    """MMAction2's key -> canonical; an unknown key is returned unchanged, and then refused as left over."""
    module, _, leaf = key.rpartition(".")
    if module in _MMACTION2_ENDS:
        return f"{_MMACTION2_ENDS[module]}.{leaf}"
    block = re.fullmatch(r"backbone\.layer(\d)\.(\d+)\.(.+)", module)
    if block is None or block[3] not in _MMACTION2_UNITS:
        return key
    return f"blocks.{block[1]}.res_blocks.{block[2]}.{_MMACTION2_UNITS[block[3]]}.{leaf}"


_PYSLOWFAST_UNITS = MappingProxyType(
    {
        "branch1": "branch1_conv",
        "branch1_bn": "branch1_norm",
        "branch2.a": "branch2.conv_a",
        "branch2.a_bn": "branch2.norm_a",
        "branch2.b": "branch2.conv_b",
        "branch2.b_bn": "branch2.norm_b",
        "branch2.se.fc1": "branch2.norm_b.1.block.0",
        "branch2.se.fc2": "branch2.norm_b.1.block.2",
        "branch2.c": "branch2.conv_c",
        "branch2.c_bn": "branch2.norm_c",
    }
)
_PYSLOWFAST_STEM = MappingProxyType(
    {
        "x3d": {"conv_xy": "conv.conv_t", "conv": "conv.conv_xy", "bn": "norm"},
        "slow": {"conv": "conv", "bn": "norm"},
        "slowfast": {"conv": "conv", "bn": "norm"},
    }
)
_PYSLOWFAST_HEAD = MappingProxyType(
    {
        "x3d": {
            "conv_5": "5.pool.pre_conv",
            "conv_5_bn": "5.pool.pre_norm",
            "lin_5": "5.pool.post_conv",
            "projection": "5.proj",
        },
        "slow": {"projection": "5.proj"},
        "slowfast": {"projection": "6.proj"},
    }
)


def _from_pyslowfast(key: str, family: Family) -> str:
    """PySlowFast's key -> canonical; an unknown key is returned unchanged, and then refused as left over."""
    module, _, leaf = key.rpartition(".")
    if (end := re.fullmatch(r"head\.(\w+)", module)) and end[1] in _PYSLOWFAST_HEAD[family]:
        return f"blocks.{_PYSLOWFAST_HEAD[family][end[1]]}.{leaf}"
    if fuse := re.fullmatch(r"s(\d)_fuse\.(conv_f2s|bn)", module):
        unit = "conv_fast_to_slow" if fuse[2] == "conv_f2s" else "norm"
        return f"blocks.{int(fuse[1]) - 1}.multipathway_fusion.{unit}.{leaf}"
    stem = re.fullmatch(r"s1\.pathway(\d)_stem\.(\w+)", module)
    if stem and stem[2] in _PYSLOWFAST_STEM[family]:
        pathway = f"multipathway_blocks.{stem[1]}." if family == "slowfast" else ""
        return f"blocks.0.{pathway}{_PYSLOWFAST_STEM[family][stem[2]]}.{leaf}"
    block = re.fullmatch(r"s(\d)\.pathway(\d)_res(\d+)\.(.+)", module)
    if block is None or block[4] not in _PYSLOWFAST_UNITS:
        return key
    pathway = f"multipathway_blocks.{block[2]}." if family == "slowfast" else ""
    unit = _PYSLOWFAST_UNITS[block[4]]
    if family == "x3d" and unit == "branch2.norm_b":
        unit = "branch2.norm_b.0"  # X3D's is a Sequential of the normalisation and the squeeze-excitation
    return f"blocks.{int(block[1]) - 1}.{pathway}res_blocks.{block[3]}.{unit}.{leaf}"


RENAME: Mapping[Head, Callable[[str, Family], str]] = MappingProxyType(
    {"pytorchvideo": _keep, "torchvision": _keep, "mmaction2": _from_mmaction2, "pyslowfast": _from_pyslowfast}
)
"""Layout -> the function that gives a key's canonical name for a model of that family."""
