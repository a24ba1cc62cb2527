"""What the models' own libraries give for a video: their builders, their temporal rules, their transforms.

Nothing here comes from handlers but the recipe, which is pytorchvideo's and torchvision's own classes in the documented
order (`handlers.video.recipe`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from pytorchvideo.models import hub
from pytorchvideo.models.resnet import create_resnet
from pytorchvideo.models.slowfast import create_slowfast
from torchvision.datasets.video_utils import VideoClips
from torchvision.models import get_model, get_model_weights

from handlers.specs import get_spec
from handlers.video.recipe import recipe_tensor

PYTORCHVIDEO: Mapping[str, Any] = {
    "c2d_r50": hub.c2d_r50,
    "i3d_r50": hub.i3d_r50,
    "csn_r101": hub.csn_r101,
    "r2plus1d_r50": hub.r2plus1d_r50,  # answers probabilities
    # PySlowFast's configs/Kinetics/pytorchvideo: SLOW_4x16_R50 and SLOWFAST_4x16_R50
    "slow_r50_4x16": lambda: create_resnet(stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(4, 7, 7)),
    "slowfast_r50_4x16": lambda: create_slowfast(
        slowfast_fusion_conv_kernel_size=(5, 1, 1),
        slowfast_fusion_conv_stride=(8, 1, 1),
        head_pool_kernel_sizes=((4, 7, 7), (32, 7, 7)),
    ),
    "slowfast_16x8_r101_50_50": hub.slowfast_16x8_r101_50_50,
    "mvit_base_16x4": hub.mvit_base_16x4,
    "mvit_base_32x3": hub.mvit_base_32x3,
}

# Of each weights' `meta["_docs"]`: clip_len and frame_rate.
TORCHVISION: Mapping[str, tuple[int, float]] = {
    "r3d_18": (16, 15),
    "mc3_18": (16, 15),
    "r2plus1d_18": (16, 15),
    "s3d": (128, 15),
    "mvit_v1_b": (16, 7.5),
    "mvit_v2_s": (16, 7.5),
    "swin3d_t": (32, 15),
    "swin3d_s": (32, 15),
    "swin3d_b": (32, 15),
}

FILES = (
    "made/c_h264.mp4",
    "real/tv_v_SoccerJuggling_g23_c01.avi",
    "real/xo_midroll-5s.mp4",
    "made/c_hevc.mp4",
    "made/c_vp9.webm",
    "made/c_av1.mp4",
    "made/c_mjpeg.mkv",
    "made/t_fps29.97.mp4",
    "made/t_fps12.5.mp4",
    "made/t_fps50.mp4",
)
"""What they are compared on, of the shared corpus."""

NAMES = (*PYTORCHVIDEO, *(f"tv_{name}" for name in TORCHVISION))


def model(name: str, state_dict: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The original model with these weights, in eval mode."""
    built = PYTORCHVIDEO[name]() if name in PYTORCHVIDEO else get_model(name.removeprefix("tv_"), weights=None)
    built.load_state_dict(dict(state_dict))
    module: torch.nn.Module = built.eval()
    return module


def tensor(name: str, payload: bytes) -> torch.Tensor:
    """The original's input of its first clip: (3, T, S, S) float32."""
    if name in PYTORCHVIDEO:
        return recipe_tensor(payload, get_spec(name))
    frames, fps = every_frame(payload)
    clip_len, frame_rate = TORCHVISION[name.removeprefix("tv_")]
    picked = VideoClips._resample_video_idx(int(len(frames) * frame_rate / fps), fps, frame_rate)
    positions = np.arange(len(frames))[picked.numpy() if isinstance(picked, torch.Tensor) else picked][:clip_len]
    # A video that is too short has no clip there; here its last frame repeats.
    positions = np.concatenate([positions, np.full(clip_len - len(positions), len(frames) - 1)])
    clip = torch.from_numpy(np.stack([frames[position] for position in positions])).permute(0, 3, 1, 2)
    transforms = get_model_weights(name.removeprefix("tv_")).DEFAULT.transforms()
    transformed: torch.Tensor = transforms(clip)
    return transformed


def probabilities(name: str, module: torch.nn.Module, clip: torch.Tensor) -> NDArray[np.float64]:
    """(num_classes,) of the original model for one clip, (3, T, S, S)."""
    alpha = get_spec(name).alpha
    with torch.no_grad():
        if alpha is None:
            answer = module(clip[None])[0]
        else:  # the hub tutorial's PackPathway
            slow = torch.index_select(clip, 1, torch.linspace(0, clip.shape[1] - 1, clip.shape[1] // alpha).long())
            answer = module([slow[None], clip[None]])[0]
    if name != "r2plus1d_r50":
        answer = answer.softmax(0)
    found: NDArray[np.float64] = answer.double().numpy()
    return found


def every_frame(payload: bytes) -> tuple[list[NDArray[np.uint8]], float]:
    """All frames, (H, W, 3) RGB as stored, in the order in which they are shown, and the stream's average rate."""
    with av.open(io.BytesIO(payload), "r", metadata_errors="replace") as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        fps = float(stream.average_rate)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(stream)], fps
