"""Checkpoints as MMAction2 1.x and PySlowFast write them, and what their own models answer.

`LAYOUTS` lists every key and shape of those models' state dicts, generated from their structure. `weights` fills one
with values that are the same on every machine, `clip` makes the input. `dialects.json` beside this file holds what the
original models answered to them: MMAction2's X3D backbone with X3DHead (logits), PySlowFast's X3D, ResNet and SlowFast
in evaluation mode (probabilities), computed with torch 2.14.1, float32, on a CPU; 7 significant digits.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]

_X3D_STAGES = tuple(zip((24, 48, 96, 192), (54, 108, 216, 432), (3, 5, 11, 7), (8, 8, 16, 32), strict=True))
_RESNET_BLOCKS = (3, 4, 6, 3)


def weights(shapes: Mapping[str, tuple[int, ...]], gain: float) -> dict[str, NDArray[Any]]:
    """Values for every key; each key's own generator is seeded by its CRC-32."""
    return {key: _values(key, shape, gain) for key, shape in shapes.items()}


def _values(key: str, shape: tuple[int, ...], gain: float) -> NDArray[Any]:
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros((), dtype=np.int64)
    if key.endswith("running_var"):
        value = 0.5 + rng.random(shape)
    elif key.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1 and key.endswith("weight"):
        value = 0.8 + 0.4 * rng.random(shape)
    elif len(shape) == 1:
        value = 0.1 * rng.standard_normal(shape)
    else:
        value = rng.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
    return np.asarray(value, dtype=np.float32)


def clip(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Model input (N, 3, T, H, W); SlowFast's slow pathway is every fourth frame by linspace."""
    return (0.5 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Golden:
    """One model of another ecosystem: its state dict's shapes, how to fill them, and its answers."""

    dialect: str
    spec: str
    gain: float
    input_shape: tuple[int, ...]
    input_seed: int
    answers: NDArray[np.float64]
    """(N, 400): logits for MMAction2, probabilities for PySlowFast."""

    @property
    def shapes(self) -> Shapes:
        return dict(LAYOUTS[self.dialect, self.spec])

    def state_dict(self) -> dict[str, NDArray[Any]]:
        return weights(self.shapes, self.gain)


def goldens() -> list[Golden]:
    content = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return [
        Golden(
            dialect=entry["dialect"],
            spec=entry["spec"],
            gain=entry["gain"],
            input_shape=tuple(entry["input_shape"]),
            input_seed=entry["input_seed"],
            answers=np.array(entry["answers"]),
        )
        for entry in content
    ]


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", (width,)
    yield f"{name}.num_batches_tracked", ()


def _linear(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _mmaction2_x3d() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "backbone.conv1_s.conv.weight", (24, 3, 1, 3, 3)
    yield "backbone.conv1_t.conv.weight", (24, 1, 5, 1, 1)
    yield from _norm("backbone.conv1_t.bn", 24)
    width_in = 24
    for stage, (width, inner, depth, squeezed) in enumerate(_X3D_STAGES, start=1):
        for block in range(depth):
            name = f"backbone.layer{stage}.{block}"
            if block == 0:
                yield f"{name}.downsample.conv.weight", (width, width_in, 1, 1, 1)
                yield from _norm(f"{name}.downsample.bn", width)
            yield f"{name}.conv1.conv.weight", (inner, width_in, 1, 1, 1)
            yield from _norm(f"{name}.conv1.bn", inner)
            yield f"{name}.conv2.conv.weight", (inner, 1, 3, 3, 3)
            yield from _norm(f"{name}.conv2.bn", inner)
            yield f"{name}.conv3.conv.weight", (width, inner, 1, 1, 1)
            yield from _norm(f"{name}.conv3.bn", width)
            if block % 2 == 0:
                yield from _linear(f"{name}.se_module.fc1", squeezed, inner, 1, 1, 1)
                yield from _linear(f"{name}.se_module.fc2", inner, squeezed, 1, 1, 1)
            width_in = width
    yield "backbone.conv5.conv.weight", (432, 192, 1, 1, 1)
    yield from _norm("backbone.conv5.bn", 432)
    yield "cls_head.fc1.weight", (2048, 432)
    yield from _linear("cls_head.fc2", 400, 2048)


def _pyslowfast_x3d() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "s1.pathway0_stem.conv_xy.weight", (24, 3, 1, 3, 3)
    yield "s1.pathway0_stem.conv.weight", (24, 1, 5, 1, 1)
    yield from _norm("s1.pathway0_stem.bn", 24)
    width_in = 24
    for stage, (width, inner, depth, squeezed) in enumerate(_X3D_STAGES, start=2):
        for block in range(depth):
            name = f"s{stage}.pathway0_res{block}"
            yield from _pyslowfast_block(name, width_in, inner, width, b_groups=inner, b_frames=3, first=block == 0)
            if block % 2 == 0:
                yield from _linear(f"{name}.branch2.se.fc1", squeezed, inner, 1, 1, 1)
                yield from _linear(f"{name}.branch2.se.fc2", inner, squeezed, 1, 1, 1)
            width_in = width
    yield "head.conv_5.weight", (432, 192, 1, 1, 1)
    yield from _norm("head.conv_5_bn", 432)
    yield "head.lin_5.weight", (2048, 432, 1, 1, 1)
    yield from _linear("head.projection", 400, 2048)


def _pyslowfast_block(
    name: str,
    width_in: int,
    inner: int,
    width: int,
    *,
    first: bool,
    a_frames: int = 1,
    b_frames: int = 1,
    b_groups: int = 1,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if first:
        yield f"{name}.branch1.weight", (width, width_in, 1, 1, 1)
        yield from _norm(f"{name}.branch1_bn", width)
    yield f"{name}.branch2.a.weight", (inner, width_in, a_frames, 1, 1)
    yield from _norm(f"{name}.branch2.a_bn", inner)
    yield f"{name}.branch2.b.weight", (inner, inner // b_groups, b_frames, 3, 3)
    yield from _norm(f"{name}.branch2.b_bn", inner)
    yield f"{name}.branch2.c.weight", (width, inner, 1, 1, 1)
    yield from _norm(f"{name}.branch2.c_bn", width)


def _pyslowfast_pathway(
    pathway: int, stem: int, stem_frames: int, a_frames: tuple[int, ...], fused: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """One ResNet-50 pathway; with `fused`, each stage's input is that share wider: what the fast pathway gives."""
    yield f"s1.pathway{pathway}_stem.conv.weight", (stem, 3, stem_frames, 7, 7)
    yield from _norm(f"s1.pathway{pathway}_stem.bn", stem)
    previous = stem
    for index, depth in enumerate(_RESNET_BLOCKS):
        inner, width = stem * 2**index, 4 * stem * 2**index
        for block in range(depth):
            width_in = (previous + (previous // fused if fused else 0)) if block == 0 else width
            yield from _pyslowfast_block(
                f"s{index + 2}.pathway{pathway}_res{block}",
                width_in,
                inner,
                width,
                first=block == 0,
                a_frames=a_frames[index],
            )
        previous = width


def _pyslowfast_slow() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _pyslowfast_pathway(0, 64, 1, (1, 1, 3, 3), 0)
    yield from _linear("head.projection", 400, 2048)


def _pyslowfast_slowfast() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _pyslowfast_pathway(0, 64, 1, (1, 1, 3, 3), 4)
    yield from _pyslowfast_pathway(1, 8, 5, (3, 3, 3, 3), 0)
    for stage, fast in enumerate((8, 32, 64, 128), start=1):
        yield f"s{stage}_fuse.conv_f2s.weight", (2 * fast, fast, 7, 1, 1)
        yield from _norm(f"s{stage}_fuse.bn", 2 * fast)
    yield from _linear("head.projection", 400, 2304)


LAYOUTS: Mapping[tuple[str, str], Shapes] = {
    ("mmaction2", "x3d_s"): dict(_mmaction2_x3d()),
    ("pyslowfast", "x3d_s"): dict(_pyslowfast_x3d()),
    ("pyslowfast", "slow_r50"): dict(_pyslowfast_slow()),
    ("pyslowfast", "slowfast_r50"): dict(_pyslowfast_slowfast()),
}
"""(dialect, spec) -> key -> shape."""
