"""Depthwise 3x3x3 convolutions as three two-dimensional ones: the same sums, and on CPUs training takes half the time.

oneDNN has vectorised kernels for depthwise convolutions in two dimensions alone; X3D's are three-dimensional, and their
backward pass costs more there than all the rest of the network. The kernels are fast where channels lie together in
memory (channels_last), in the gradients too, and several times slower where they do not.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_LEAST_SIDE = 3
"""The weight gradient of narrower pictures takes ten times as long; zeros around them and their gradient do not."""


def speed_up(model: nn.Module) -> nn.Module:
    """Let the model's depthwise 3x3x3 convolutions compute in the other way; weights and results stay the same."""
    for module in model.modules():
        if isinstance(module, nn.Conv3d) and _fits(module):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]
    return model


def _fits(convolution: nn.Conv3d) -> bool:
    return (
        convolution.groups == convolution.in_channels == convolution.out_channels
        and convolution.kernel_size == (3, 3, 3)
        and convolution.padding == (1, 1, 1)
        and convolution.stride in ((1, 1, 1), (1, 2, 2))
        and convolution.bias is None
    )


def _forward(convolution: nn.Conv3d, pictures: torch.Tensor) -> torch.Tensor:
    """(N, C, T, H, W) -> (N, C, T, H', W'), both channels_last_3d."""
    count, channels, length, height, width = pictures.shape
    frames = pictures.permute(0, 2, 1, 3, 4).reshape(count * length, channels, height, width)
    frames = frames.contiguous(memory_format=torch.channels_last)
    summed: torch.Tensor = _Planes.apply(frames, convolution.weight, convolution.stride[1], length)
    return _in_time(summed, length).permute(0, 2, 1, 3, 4)


class _Planes(torch.autograd.Function):
    """Every frame under each of the kernel's three planes, shifted in time and added; (N * T, C, H, W) in and out.

    Autograd's own backward pass of the shifted sums would copy every gradient four times.
    """

    @staticmethod
    def forward(ctx: Any, frames: torch.Tensor, weight: torch.Tensor, stride: int, length: int) -> torch.Tensor:
        ctx.save_for_backward(frames, weight)
        ctx.stride, ctx.length = stride, length

        def under(plane: int) -> torch.Tensor:
            return functional.conv2d(frames, weight[:, :, plane], stride=stride, padding=1, groups=len(weight))

        total = under(1)
        in_time = _in_time(total, length)
        in_time[:, 1:] += _in_time(under(0), length)[:, :-1]
        in_time[:, :-1] += _in_time(under(2), length)[:, 1:]
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        frames, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        in_time = _in_time(gradient, ctx.length)
        shifted = torch.empty_like(gradient)
        shifted_in_time = _in_time(shifted, ctx.length)
        of_weight = torch.empty_like(weight)
        of_frames, of_weight[:, :, 1] = _backward(gradient, frames, weight[:, :, 1], ctx.stride)
        shifted_in_time[:, :-1], shifted_in_time[:, -1] = in_time[:, 1:], 0
        part, of_weight[:, :, 0] = _backward(shifted, frames, weight[:, :, 0], ctx.stride)
        of_frames += part
        shifted_in_time[:, 1:], shifted_in_time[:, 0] = in_time[:, :-1], 0
        part, of_weight[:, :, 2] = _backward(shifted, frames, weight[:, :, 2], ctx.stride)
        of_frames += part
        return of_frames, of_weight, None, None


def _in_time(frames: torch.Tensor, length: int) -> torch.Tensor:
    """(N * T, C, H, W) -> the same memory as (N, T, C, H, W)."""
    return frames.view(-1, length, *frames.shape[1:])


def _backward(
    gradient: torch.Tensor, frames: torch.Tensor, plane: torch.Tensor, stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of a padded depthwise 3x3 convolution with respect to the frames and to the plane."""
    height, width = frames.shape[2:]
    narrow = stride == 1 and min(height, width) < _LEAST_SIDE
    if narrow:
        border = (0, max(0, _LEAST_SIDE - width), 0, max(0, _LEAST_SIDE - height))
        frames, gradient = functional.pad(frames, border), functional.pad(gradient, border)
    of_frames, of_plane, _ = torch.ops.aten.convolution_backward(
        gradient, frames, plane, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], len(plane), [True, True, False]
    )
    return of_frames[:, :, :height, :width] if narrow else of_frames, of_plane
