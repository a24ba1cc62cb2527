"""The head of a network that torch has built -> the arrays that explanations are computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from handlers.model.head import FloatArray, HeadWeights
from handlers.model.network import LogMeanProbability
from handlers.specs import ModelSpec


def head_weights(model: nn.Module, spec: ModelSpec) -> HeadWeights | None:
    """The head of a model of that spec; None where explanations are not known for its kind (`ModelSpec.last_block`)."""
    if spec.last_block is None:
        return None
    head: Any = model.get_submodule(spec.classifier.rpartition(".")[0])
    common: dict[str, Any] = {
        "projection": _numbers(head.proj.weight),
        "bias": _numbers(head.proj.bias),
        "log_mean": isinstance(head.output_pool, LogMeanProbability),
    }
    if head.pool is None:  # SlowFast pools each pathway in a block of its own
        number = int(spec.last_block.rpartition(".")[2]) + 1
        pools: Any = model.get_submodule(f"blocks.{number}.pool")
        return HeadWeights(pools=tuple(_window(pool) for pool in pools), **common)
    if spec.family != "x3d":
        return HeadWeights(pools=(_window(head.pool),), **common)
    norm = head.pool.pre_norm
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return HeadWeights(
        pools=(_window(head.pool.pool),),
        before=_numbers(head.pool.pre_conv.weight.flatten(1) * scale[:, None]),
        before_bias=_numbers(norm.bias - norm.running_mean * scale),
        after=_numbers(head.pool.post_conv.weight.flatten(1)),
        **common,
    )


def _window(pool: nn.Module) -> tuple[int, int, int] | None:
    if isinstance(pool, nn.AdaptiveAvgPool3d):
        return None
    size = pool.kernel_size
    frames, height, width = (size,) * 3 if isinstance(size, int) else tuple(size)  # type: ignore[arg-type]
    return frames, height, width


def _numbers(tensor: torch.Tensor) -> FloatArray:
    numbers: FloatArray = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
    return numbers
