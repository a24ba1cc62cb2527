"""Small video classifiers of Hugging Face's transformers with random weights, and what they answer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.originals import every_frame

LABELS = ("calm", "fast", "loud", "late", "blue")
NAMES = ("videomae", "timesformer", "vivit", "vjepa2")
_CROP = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
_PROCESSORS: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "videomae": ("VideoMAEVideoProcessor", {**_CROP, "image_mean": [0.485, 0.456, 0.406]}),
        "timesformer": ("TimesformerVideoProcessor", {"size": {"height": 32, "width": 32}, "do_center_crop": False}),
        "vivit": ("VivitVideoProcessor", _CROP),
        "vjepa2": ("VJEPA2VideoProcessor", {"crop_size": 32}),  # its short side follows
    }
)


def transformers() -> Any:
    """The package; skips where it is not installed."""
    pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install -r requirements/huggingface.txt"
    )
    package = importlib.import_module("transformers")
    package.utils.logging.set_verbosity_error()
    package.utils.logging.disable_progress_bar()
    return package


def save_model(name: str, folder: Path) -> Path:
    """A model of that type, with answers that differ from video to video."""
    tf = transformers()
    common: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: index for index, label in enumerate(LABELS)},
    }
    by_name: dict[str, dict[str, Any]] = {
        "videomae": {"image_size": 32, "patch_size": 8, "num_frames": 8, "intermediate_size": 64},
        "timesformer": {"image_size": 32, "patch_size": 8, "num_frames": 4, "intermediate_size": 64},
        "vivit": {"image_size": 32, "tubelet_size": [2, 8, 8], "num_frames": 8, "intermediate_size": 64},
        "vjepa2": {
            "crop_size": 32, "patch_size": 8, "frames_per_clip": 8, "num_pooler_layers": 1, "pred_hidden_size": 32,
            "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2,
        },
    }  # fmt: skip
    model_class = {
        "videomae": "VideoMAEForVideoClassification",
        "timesformer": "TimesformerForVideoClassification",
        "vivit": "VivitForVideoClassification",
        "vjepa2": "VJEPA2ForVideoClassification",
    }[name]
    config_class = getattr(tf, model_class).config_class
    torch.manual_seed(3)
    model = getattr(tf, model_class)(config_class(**common, **by_name[name])).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(0.0, 1.0 if key.startswith("classifier") else 0.15)
    model.save_pretrained(folder)
    processor, settings = _PROCESSORS[name]
    getattr(tf, processor)(**settings).save_pretrained(folder)
    return folder


def tensor(name: str, folder: Path, payload: bytes) -> torch.Tensor:
    """What transformers' own processor makes of the whole video: (T, 3, S, S)."""
    tf = transformers()
    frames, fps = every_frame(payload)
    processor = getattr(tf, _PROCESSORS[name][0]).from_pretrained(folder)
    config = tf.AutoConfig.from_pretrained(folder)
    inputs = processor(
        np.stack(frames),
        do_sample_frames=True,
        num_frames=getattr(config, "frames_per_clip", None) or config.num_frames,
        video_metadata={"total_num_frames": len(frames), "fps": fps},
        return_tensors="pt",
    )
    pixels: torch.Tensor = next(iter(inputs.values()))[0]
    return pixels


def probabilities(folder: Path, clip: torch.Tensor) -> NDArray[np.float64]:
    """(num_classes,) of transformers' own model for one clip."""
    model = transformers().AutoModelForVideoClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        scores: NDArray[np.float64] = model(clip[None]).logits[0].softmax(0).double().numpy()
    return scores
