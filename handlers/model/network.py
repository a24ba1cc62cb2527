"""Spec + weights -> an eval-mode nn.Module that returns logits; the only module that imports pytorchvideo.models.

Three ecosystems share the backbones and differ at the end, so a checkpoint's head is a parameter here:

    pytorchvideo   windowed average pool, classify every position, average the logits over the positions
    mmaction2      average over all positions, then classify once
    pyslowfast     windowed average pool, classify and softmax every position, average the probabilities

pytorchvideo 0.1.5 builds X3D with a Softmax in the head, which its own main branch dropped later
(`head_activation=None`); with it a recipe that applies softmax itself would do so twice. It is dropped here too: all
models return logits. R(2+1)D's head has a Softmax, too, before it averages the positions, and no later version dropped
it: its logits are the logarithms of the averaged probabilities, as with PySlowFast's head.

Models beyond X3D, Slow and SlowFast have one head, that of the library that builds them, pytorchvideo or torchvision.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from handlers.errors import InvalidCheckpoint
from handlers.specs import (
    GraphArchitecture,
    Head,
    HubArchitecture,
    ModelSpec,
    TorchvisionArchitecture,
    X3DArchitecture,
)

with warnings.catch_warnings():
    # pytorchvideo imports fvcore, which uses torch.jit.script; torch warns that this is deprecated.
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=FutureWarning)
    from pytorchvideo.models import hub
    from pytorchvideo.models.resnet import create_resnet
    from pytorchvideo.models.slowfast import create_slowfast
    from pytorchvideo.models.x3d import create_x3d

_NAMES_SHOWN = 5
"""How many keys an error message lists; the rest is counted."""


class LogMeanProbability(nn.Module):
    """(N, classes, T, H, W) logits per position -> (N, classes, 1, 1, 1): log of the position-averaged probabilities.

    PySlowFast returns the average of the positions' softmax; the logarithm makes that a logit vector whose softmax is
    the same probabilities again. Computed as a log-sum-exp, so tiny probabilities do not underflow.
    """

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        positions = logits.shape[2] * logits.shape[3] * logits.shape[4]
        mean = torch.logsumexp(torch.log_softmax(logits, dim=1), dim=(2, 3, 4), keepdim=True)
        return mean - math.log(positions)


class WithFeatures(nn.Module):
    """Gives (logits, features, *maps) for the model's pathways, each an argument of its own.

    Features are what goes into the last layer, (N, length), averaged over the positions where it classifies several.
    Maps are what the block `last_block` gives for each pathway, (N, C, T, H, W); there are none without its name.
    """

    def __init__(self, model: nn.Module, classifier: str, last_block: str | None = None) -> None:
        super().__init__()
        self.model = model
        self._seen: list[torch.Tensor] = []
        self._maps: list[torch.Tensor] = []
        if last_block is not None:
            model.get_submodule(last_block).register_forward_hook(self._note_maps)
        layer = model.get_submodule(classifier)
        self._channels_last = isinstance(layer, nn.Linear)  # else a convolution, (N, length, T, H, W)
        layer.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))

    def _note_maps(self, _: nn.Module, inputs: object, maps: torch.Tensor | list[torch.Tensor]) -> None:
        self._maps += maps if isinstance(maps, list) else [maps]  # SlowFast's next block writes into the list

    def forward(self, *pathways: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._seen.clear()
        self._maps.clear()
        logits: torch.Tensor = self.model(pathways[0] if len(pathways) == 1 else list(pathways))
        features = self._seen.pop()
        if features.ndim > 2:
            features = features.flatten(1, -2).mean(1) if self._channels_last else features.flatten(2).mean(2)
        maps = tuple(self._maps)
        self._maps.clear()  # nothing holds their memory longer than the caller does
        return logits, features, *maps


def features_length(model: nn.Module, classifier: str) -> int:
    """How many numbers go into the model's last layer."""
    layer = model.get_submodule(classifier)
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)  # type: ignore[arg-type]


def build_model(spec: ModelSpec, *, num_classes: int, head: Head) -> nn.Module:
    """The model in eval mode, with whatever weights its builder gives it.

    Input (N, 3, T, H, W) float32, or for SlowFast the list [slow, fast]; output logits (N, num_classes).
    Raises InvalidCheckpoint for a head that the family does not have.
    """
    if head == "mmaction2" and spec.family != "x3d":
        raise InvalidCheckpoint(f"the mmaction2 head exists for X3D alone, got spec {spec.name} ({spec.family})")
    if spec.family not in ("x3d", "slow", "slowfast") and head != spec.head:
        raise InvalidCheckpoint(f"{spec.name} has the {spec.head} head alone, got {head}")
    model = _backbone(spec, num_classes)
    if spec.family == "x3d" and head != "pytorchvideo":
        # The other two normalise the very first shortcut (24 to 24 channels, stride 2); pytorchvideo does not.
        block = model.blocks[1].res_blocks[0]
        block.branch1_norm = nn.BatchNorm3d(block.branch1_conv.out_channels)
    if head == "mmaction2":
        model.blocks[-1].pool.pool = nn.AdaptiveAvgPool3d(1)
    elif head == "pyslowfast":
        model.blocks[-1].output_pool = LogMeanProbability()
    module: nn.Module = model.eval().requires_grad_(False)
    return module


def _backbone(spec: ModelSpec, num_classes: int) -> Any:  # pytorchvideo is untyped, and its modules are edited above
    """The hub's model: the same builder, called with the arguments of `pytorchvideo.models.hub`."""
    architecture = spec.architecture
    if isinstance(architecture, GraphArchitecture):
        raise InvalidCheckpoint(f"{spec.name} is a graph for OpenVINO; torch cannot build it")
    if isinstance(architecture, X3DArchitecture):
        # SiLU is pytorchvideo's Swish (x * sigmoid(x)) as one traceable operator instead of an autograd function.
        return create_x3d(
            model_num_class=num_classes,
            input_clip_length=architecture.input_clip_length,
            input_crop_size=architecture.input_crop_size,
            depth_factor=architecture.depth_factor,
            head_activation=None,
            inner_act=nn.SiLU,
        )
    if isinstance(architecture, HubArchitecture):
        return _from_hub(architecture, num_classes)
    if isinstance(architecture, TorchvisionArchitecture):
        from torchvision.models import get_model  # a second of imports that the other models do without

        return get_model(architecture.model, weights=None, num_classes=num_classes)
    if architecture.fusion_kernel_frames is None:
        return create_resnet(
            model_num_class=num_classes,
            model_depth=architecture.model_depth,
            stem_conv_kernel_size=(1, 7, 7),
            head_pool_kernel_size=(spec.num_frames, 7, 7),
        )
    model = create_slowfast(
        model_num_class=num_classes,
        model_depth=architecture.model_depth,
        slowfast_fusion_conv_kernel_size=(architecture.fusion_kernel_frames, 1, 1),
        slowfast_fusion_conv_stride=(spec.alpha, 1, 1),
        head_pool_kernel_sizes=((spec.num_frames // (spec.alpha or 1), 7, 7), (spec.num_frames, 7, 7)),
    )
    # By default the first block writes its outputs into the caller's list, so that a second call with it would fail.
    model.blocks[0].inplace = False
    return model


def _from_hub(architecture: HubArchitecture, num_classes: int) -> Any:
    """pytorchvideo's own function of that name. Its transformers name the class count in another way."""
    builder = getattr(hub, architecture.model)
    if architecture.model.startswith("mvit"):
        # Its layers ask a tensor for numbers while they are built, which one without values cannot give.
        with torch.device("cpu"):
            return builder(head_num_classes=num_classes)
    arguments = {"head_activation": None} if architecture.model.startswith("r2plus1d") else {}
    model = builder(model_num_class=num_classes, **arguments)
    if architecture.model.startswith("slowfast"):
        model.blocks[0].inplace = False
    elif architecture.model.startswith("r2plus1d"):
        model.blocks[-1].output_pool = LogMeanProbability()
    return model


def expected_shapes(spec: ModelSpec, *, num_classes: int, head: Head) -> dict[str, torch.Size]:
    """Key -> shape of the model's state dict, without allocating it."""
    with torch.device("meta"):
        model = build_model(spec, num_classes=num_classes, head=head)
    return {key: value.shape for key, value in model.state_dict().items()}


def check_state_dict(
    state_dict: dict[str, torch.Tensor], spec: ModelSpec, *, num_classes: int, head: Head, origin: str
) -> None:
    """Raises InvalidCheckpoint when keys are missing, left over, or of another shape; names the first few."""
    expected = expected_shapes(spec, num_classes=num_classes, head=head)
    missing = [key for key in expected if key not in state_dict]
    left_over = [key for key in state_dict if key not in expected]
    if missing or left_over:
        parts = [
            f"{len(names)} keys {word} ({_some(names)})"
            for names, word in ((missing, "missing"), (left_over, "left over"))
            if names
        ]
        raise InvalidCheckpoint(f"{origin} does not fit {spec.name} with the {head} head: {'; '.join(parts)}")
    wrong = [
        f"{key} is {tuple(value.shape)}, not {tuple(expected[key])}"
        for key, value in state_dict.items()
        if value.shape != expected[key]
    ]
    if wrong:
        raise InvalidCheckpoint(f"{origin} does not fit {spec.name}: {len(wrong)} shapes differ: {_some(wrong)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def load_model(spec: ModelSpec, weights: Path, *, num_classes: int, head: Head) -> nn.Module:
    """The model with the weights of an archive's weights.safetensors; raises InvalidCheckpoint if they do not fit."""
    try:
        state_dict = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InvalidCheckpoint(f"{weights.name} is not a readable safetensors file: {error}") from error
    check_state_dict(state_dict, spec, num_classes=num_classes, head=head, origin=weights.name)
    with torch.device("meta"):
        model = build_model(spec, num_classes=num_classes, head=head)
    model.load_state_dict(state_dict, assign=True)
    return model.eval().requires_grad_(False)
