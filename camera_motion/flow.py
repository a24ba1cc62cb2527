"""Teaching by local motion: heads, for training alone, that read the camera's flow from early stages of the network.

A label says one of ten things about a whole clip, and says it through twenty-six blocks; what a stage sees move at each
place is hundreds of numbers, known exactly from the camera's path, and they reach the stage directly. Without them the
network stays at chance for most of an hour of two cores; with them it leaves it within minutes.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from camera_motion.clips import STEP_UNITS

STAGES = {"blocks.1": 24, "blocks.2": 48, "blocks.3": 96}
"""X3D's residual stages that are taught, by pytorchvideo's names, with their channels; the last has too few places."""

FLOW_UNIT = 0.05
"""Flow is learnt in this part of the picture's short side per step."""


class FlowHeads(nn.Module):
    """One linear read-out per stage of how far the scene under each place moves between neighbouring frames."""

    def __init__(self, model: nn.Module, num_frames: int) -> None:
        super().__init__()
        self._features: dict[str, torch.Tensor] = {}
        self._heads = nn.ModuleDict({_key(name): _head(width, num_frames) for name, width in STAGES.items()})
        for name in STAGES:
            model.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, stage: nn.Module, pictures: object, features: torch.Tensor) -> None:
        if stage.training:
            self._features[name] = features

    def loss(self, steps: torch.Tensor) -> torch.Tensor:
        """Of the model's last forward pass in training mode; `steps` (N, T - 1, 4), as `Example.steps`."""
        losses = []
        for name in STAGES:
            features = _in_step(self._features.pop(name))
            count, channels, length, height, width = features.shape
            stacked = features.transpose(1, 2).reshape(count, length * channels, height, width)
            guess = self._heads[_key(name)](stacked)
            losses.append(functional.smooth_l1_loss(guess, camera_flow(steps, height, width)))
        return torch.stack(losses).sum()


def _in_step(features: torch.Tensor) -> torch.Tensor:
    """The same, with a gradient in the network's memory layout: one in another would slow all layers before it down."""
    same = features.view_as(features)
    if same.requires_grad:
        same.register_hook(_by_channels)  # type: ignore[no-untyped-call]
    return same


def _by_channels(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last_3d)


def _key(stage: str) -> str:
    return stage.replace(".", "_")


def _head(width: int, num_frames: int) -> nn.Module:
    """All frames' features of a place, each at the same scale -> two components for each step between frames.

    It answers zero at first: noise from heads that know nothing would be all that the first hundreds of steps learn.
    """
    read_out = nn.Conv2d(width * num_frames, 2 * (num_frames - 1), kernel_size=1)
    nn.init.zeros_(read_out.weight)
    nn.init.zeros_(read_out.bias)  # type: ignore[arg-type]  # a Conv2d has one by default
    return nn.Sequential(nn.BatchNorm2d(width * num_frames, affine=False), read_out)


def camera_flow(steps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, T - 1, 4) steps of the pose -> (N, 2 * (T - 1), height, width): how the point seen at each place moves on.

    In FLOW_UNITs, x components first, to first order in zoom and roll.
    """
    pose = steps * torch.from_numpy(STEP_UNITS).to(steps)
    y = ((torch.arange(height, device=steps.device) + 0.5) / height - 0.5)[:, None]
    x = ((torch.arange(width, device=steps.device) + 0.5) / width - 0.5)[None, :]
    right, down, magnified, turned = (part[..., None, None] for part in pose.unbind(dim=2))
    flow_x = right - magnified * x - turned * y
    flow_y = down - magnified * y + turned * x
    return torch.cat((flow_x, flow_y), dim=1) / FLOW_UNIT
