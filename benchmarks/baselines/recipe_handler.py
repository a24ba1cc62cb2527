"""The documented recipe as a TorchServe handler: what one writes after reading PyTorchVideo's Torch Hub tutorial.

EncodedVideo, the tutorial's transforms, pytorchvideo's model in torch eager, TorchServe's defaults. Nothing of
`handlers` is used, so that the two can be compared. This file goes into an archive as its handler, next to
`weights.safetensors`, `index_to_name.json` and a model-config.yaml with the tutorial's parameters; in-process it is the
`recipe` contender.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms._functional_tensor as functional_tensor
from safetensors.torch import load_file

# pytorchvideo 0.1.5 imports this module under the name that it had before torchvision 0.17.
sys.modules.setdefault("torchvision.transforms.functional_tensor", functional_tensor)

from pytorchvideo.data.encoded_video_pyav import EncodedVideoPyAV  # noqa: E402
from pytorchvideo.models import hub  # noqa: E402
from pytorchvideo.transforms import ApplyTransformToKey, ShortSideScale, UniformTemporalSubsample  # noqa: E402
from torchvision.transforms import Compose, Lambda  # noqa: E402
from torchvision.transforms._transforms_video import CenterCropVideo, NormalizeVideo  # noqa: E402


class RecipeHandler:
    """Decode, transform, model, softmax, top five: one request after the other."""

    def initialize(self, context: Any) -> None:
        """TorchServe's call: `context` says where the archive was unpacked, and holds its model-config.yaml."""
        self.load(Path(context.system_properties["model_dir"]), context.model_yaml_config["recipe"])

    def load(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        """The model and the transforms with the tutorial's parameters; also the entry for use without TorchServe."""
        self._alpha: int | None = recipe["alpha"]
        self._clip_duration_sec = recipe["num_frames"] * recipe["sampling_rate"] / recipe["frames_per_second"]
        # The hub builds X3D without an activation in its head since 2022; the released package still has one.
        arguments: dict[str, Any] = {"model_num_class": recipe["num_classes"]}
        if recipe["model"].startswith("x3d"):
            arguments["head_activation"] = None
        self._model = getattr(hub, recipe["model"])(pretrained=False, **arguments)
        self._model.load_state_dict(load_file(folder / "weights.safetensors"))
        self._model = self._model.eval()
        self._labels: dict[str, str] = json.loads((folder / "index_to_name.json").read_text(encoding="utf-8"))
        mean, std = recipe["mean"], recipe["std"]
        self._transform = ApplyTransformToKey(
            key="video",
            transform=Compose(
                [
                    UniformTemporalSubsample(recipe["num_frames"]),
                    Lambda(lambda clip: clip / 255.0),
                    NormalizeVideo(mean, std),
                    ShortSideScale(size=recipe["side_size"]),
                    CenterCropVideo(recipe["crop_size"]),
                    Lambda(self._pack),
                ]
            ),
        )

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[dict[str, float]]:
        """TorchServe's call: one answer per row."""
        return [self.predict(bytes(row.get("data") or row.get("body") or b"")) for row in rows]

    def predict(self, content: bytes) -> dict[str, float]:
        return self.top_five(self.infer(self.transform(self.decode(content))))

    def decode(self, content: bytes) -> Any:
        """The clip `[0, clip duration)`, `{"video": (3, T, H, W) float32}`."""
        return EncodedVideoPyAV(io.BytesIO(content), "upload").get_clip(0, self._clip_duration_sec)

    def transform(self, clip: Any) -> Any:
        """(3, T, S, S), or for SlowFast [slow, fast]."""
        return self._transform(clip)["video"]

    def infer(self, inputs: Any) -> torch.Tensor:
        """Logits, (classes,)."""
        with torch.no_grad():
            batch = [pathway[None] for pathway in inputs] if self._alpha else inputs[None]
            logits: torch.Tensor = self._model(batch)[0]
        return logits

    def top_five(self, logits: torch.Tensor) -> dict[str, float]:
        best = torch.nn.functional.softmax(logits, dim=0).topk(min(5, len(logits)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {self._labels[str(index)]: float(score) for index, score in pairs}

    def _pack(self, clip: torch.Tensor) -> Any:
        """The tutorial's PackPathway; nothing for models with one pathway."""
        if self._alpha is None:
            return clip
        picks = torch.linspace(0, clip.shape[1] - 1, clip.shape[1] // self._alpha).long()
        return [torch.index_select(clip, 1, picks), clip]
