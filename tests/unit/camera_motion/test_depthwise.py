"""The depthwise convolutions that training computes in another way, against PyTorch's own, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from camera_motion.depthwise import speed_up


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(9, 12), (4, 4), (2, 2), (1, 3)])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_sums_and_gradients_are_the_same(
    memory_format: torch.memory_format, stride: int, size: tuple[int, int], length: int
) -> None:
    torch.manual_seed(0)
    usual = nn.Conv3d(6, 6, 3, padding=1, stride=(1, stride, stride), groups=6, bias=False).double()
    quick = nn.Conv3d(6, 6, 3, padding=1, stride=(1, stride, stride), groups=6, bias=False).double()
    quick.load_state_dict(usual.state_dict())
    speed_up(quick)
    assert "forward" in vars(quick)
    pictures = torch.randn(2, 6, length, *size, dtype=torch.float64).contiguous(memory_format=memory_format)
    first, second = pictures.clone().requires_grad_(), pictures.clone().requires_grad_()
    expected, answer = usual(first), quick(second)
    torch.testing.assert_close(answer, expected)
    weights = torch.randn_like(expected)
    torch.autograd.backward((expected * weights).sum())
    torch.autograd.backward((answer * weights).sum())
    torch.testing.assert_close(second.grad, first.grad)
    torch.testing.assert_close(quick.weight.grad, usual.weight.grad)


def test_other_convolutions_are_left_alone() -> None:
    others = nn.Sequential(
        nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 4, (5, 1, 1), groups=4, padding=(2, 0, 0)), nn.Conv3d(4, 4, 1)
    )
    speed_up(others)
    assert not any("forward" in vars(module) for module in others)
