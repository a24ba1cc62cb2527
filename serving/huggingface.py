"""A folder of a Hugging Face video classifier -> its spec, its labels, and its network as the archive's OpenVINO model.

The folder is what `save_pretrained` writes and the hub holds: config.json, the processor's settings, safetensors. Its
preprocessing is that of transformers' own video processor for the model. transformers is needed while packaging alone,
and runs none of the folder's code: each network is one of its own classes, and weights are read from safetensors only.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import nn

from handlers.errors import InvalidCheckpoint, InvalidConfig, RuntimeUnavailable
from handlers.model.archive_info import WeightsInfo
from handlers.model.labels import checked_labels
from handlers.specs import SPECS, GraphArchitecture, ModelSpec, Published, Weights
from serving.download import sha256_of
from serving.openvino_export import convert, openvino_installed
from serving.weights import WeightsSource

CONFIG = "config.json"
_CARD = "README.md"
_BILINEAR = 2  # of PIL's resampling filters, as the processors' settings number them
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A type of model: transformers' classes for it, what config.json calls frames and size, and its forward's input.

    `sampling_rate` is that of its first authors' Kinetics models; it decides the length of a timeline's windows alone.
    """

    model: str
    processor: str
    frames: str
    size: str
    argument: str
    sampling_rate: int


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "videomae": _Kind(  # 16 x 4, as its paper says
            model="VideoMAEForVideoClassification",
            processor="VideoMAEVideoProcessor",
            frames="num_frames",
            size="image_size",
            argument="pixel_values",
            sampling_rate=4,
        ),
        "timesformer": _Kind(  # 8 x 32
            model="TimesformerForVideoClassification",
            processor="TimesformerVideoProcessor",
            frames="num_frames",
            size="image_size",
            argument="pixel_values",
            sampling_rate=32,
        ),
        "vivit": _Kind(  # 32 x 2
            model="VivitForVideoClassification",
            processor="VivitVideoProcessor",
            frames="num_frames",
            size="image_size",
            argument="pixel_values",
            sampling_rate=2,
        ),
        "vjepa2": _Kind(  # 16 x 4
            model="VJEPA2ForVideoClassification",
            processor="VJEPA2VideoProcessor",
            frames="frames_per_clip",
            size="crop_size",
            argument="pixel_values_videos",
            sampling_rate=4,
        ),
    }
)


def folder_spec(folder: Path) -> ModelSpec:
    """The spec of the model in that folder; raises InvalidConfig with one sentence."""
    config, kind = _config(folder)
    transformers = _transformers()
    try:
        # What the files leave out has the defaults of transformers' classes.
        values = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        processor = getattr(transformers, kind.processor).from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise InvalidConfig(
            f"{folder.name}: transformers cannot read {CONFIG} and the processor's settings "
            f"(video_preprocessor_config.json or preprocessor_config.json): {type(error).__name__}"
        ) from error
    size = _square(folder.name, getattr(values, kind.size))
    short_side, exact_size = _resize(folder.name, processor, size)
    mean, std = _normalisation(processor)
    name = re.sub(r"[^A-Za-z0-9_\-.]+", "_", folder.resolve().name).strip("_-.") or "model"
    try:
        return ModelSpec(
            name=f"{name}_huggingface" if name in SPECS else name,
            family="graph",
            num_frames=int(getattr(values, kind.frames)),
            sampling_rate=kind.sampling_rate,
            temporal="whole_video",
            short_side=short_side,
            exact_size=exact_size,
            antialias=True,
            resize_as="torchvision",
            crop_size=size,
            crop_rounding="floor",
            mean=mean,
            std=std,
            layout="NT3SS",
            num_classes=len(_label_names(folder)),
            activation="sigmoid" if config.get("problem_type") == "multi_label_classification" else "softmax",
            head="graph",
            architecture=GraphArchitecture(file=folder.resolve().name),
            published=Published(top1=None, top5=None, params_m=0.0, flops_g=None, views="1x1", source="own"),
            weights=Weights(source="own"),
            preprocessing_source="huggingface",
        )
    except ValueError as error:
        raise InvalidConfig(f"{folder.name}: {error}") from error


def folder_labels(folder: Path) -> tuple[str, ...]:
    """config.json's id2label in the order of the class ids; raises InvalidConfig or InvalidLabels."""
    return checked_labels(_label_names(folder), origin=f"id2label in {folder.name}/{CONFIG}")


def _label_names(folder: Path) -> list[str]:
    config, _ = _config(folder)
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers' own default
    try:
        by_id = {int(key): str(name) for key, name in names.items()}
        return [by_id[index] for index in range(len(by_id))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidConfig(f"{folder.name}: id2label in {CONFIG} must name the classes 0, 1, 2, ...") from error


def licence_note(folder: Path) -> str | None:
    """A warning where the front matter of the folder's card names a licence that forbids commercial use."""
    try:
        text = (folder / _CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        card = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return None
    if not isinstance(card, dict):
        return None
    for field in ("license", "license_name"):
        for licence in card[field] if isinstance(card.get(field), list) else [card.get(field)]:
            if re.search(r"(^|[-_ ])nc([-_ ]|$)|non-?_?commercial", str(licence), re.IGNORECASE):
                return f"LICENCE: the card of {folder.name} says {licence}, which forbids commercial use"
    return None


class _Logits(nn.Module):
    """The logits alone, of the clips alone: what transformers answers otherwise is a class of its own."""

    def __init__(self, model: nn.Module, argument: str) -> None:
        super().__init__()
        self.model, self._argument = model, argument

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**{self._argument: clips}).logits
        return logits


def import_folder(folder: Path, spec: ModelSpec, target: Path) -> WeightsSource:
    """Writes `target` (.xml) and the .bin beside it: the folder's network for clips of the spec, with its features.

    Raises InvalidCheckpoint or RuntimeUnavailable with one sentence.
    """
    if not openvino_installed():
        raise RuntimeUnavailable("a Hugging Face model needs the package openvino: pip install openvino")
    _, kind = _config(folder)
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise InvalidCheckpoint(
            f"{folder.name} holds no model.safetensors; other weights may hold code and are not read: save it again "
            "with model.save_pretrained(folder)"
        )
    model = _load(folder, kind)
    frames, size = getattr(model.config, kind.frames), _square(folder.name, getattr(model.config, kind.size))
    if (frames, size) != (spec.num_frames, spec.crop_size):
        raise InvalidConfig(
            f"{folder.name} takes {frames} frames of {size} pixels, the spec says {spec.num_frames} of {spec.crop_size}"
        )
    convert(_Logits(model, kind.argument), spec, target, classifier="model.classifier")
    digest = sha256_of(files[0]) if len(files) == 1 else _sha256_of_all(files)
    info = WeightsInfo(kind="checkpoint", source=folder.resolve().name, sha256=digest)
    return WeightsSource(state_dict={}, head="graph", num_classes=int(model.classifier.out_features), info=info)


def _load(folder: Path, kind: _Kind) -> Any:
    """The model in eval mode, float32, with every weight from the folder."""
    transformers = _transformers()
    try:
        model, found = getattr(transformers, kind.model).from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        raise InvalidCheckpoint(
            f"{folder.name}: transformers cannot load {kind.model} from it: {type(error).__name__}"
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        shown = ", ".join(missing[:_NAMES_SHOWN])
        raise InvalidCheckpoint(
            f"{folder.name} holds no weights for {len(missing)} tensors of {kind.model} ({shown}): fine-tune its "
            "classifier first"
        )
    if not isinstance(model.classifier, nn.Linear):
        raise InvalidCheckpoint(f"{folder.name} has no classifier: its config has no labels")
    return model.eval()


def _config(folder: Path) -> tuple[Mapping[str, Any], _Kind]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"{folder.name} is no folder of a Hugging Face model: it has no readable {CONFIG}"
        ) from error
    found = config.get("model_type") if isinstance(config, dict) else None
    kind = _KINDS.get(str(found))
    if kind is None:
        raise InvalidConfig(f"{folder.name} holds a model of type {found!r}; known: {', '.join(_KINDS)}")
    classes = config.get("architectures") or [kind.model]
    if kind.model not in classes:
        raise InvalidConfig(f"{folder.name} holds {classes[0]}; a classifier is needed, {kind.model}")
    return config, kind


def _square(name: str, size: object) -> int:
    """The side of the model's square frames in pixels, which config.json gives once or as height and width."""
    sides = {size} if isinstance(size, int) else set(size) if isinstance(size, list | tuple) else set()
    if len(sides) != 1:
        raise InvalidConfig(f"{name}: the model's frames must be square, {CONFIG} says {size!r}")
    return int(sides.pop())


def _resize(name: str, processor: Any, size: int) -> tuple[int, tuple[int, int] | None]:
    """The spec's `short_side` and `exact_size`; raises InvalidConfig for what a spec cannot say."""
    if not processor.do_resize or processor.resample != _BILINEAR:
        raise InvalidConfig(f"{name}: the processor must resize frames, with the bilinear filter (resample: 2)")
    given = processor.size
    exact = (given.get("height"), given.get("width"))
    cropped = processor.crop_size if processor.do_center_crop else given
    square = (cropped.get("height"), cropped.get("width"))
    if square != (size, size):
        raise InvalidConfig(
            f"{name}: the processor gives frames of {square[0]} x {square[1]} pixels, the model takes {size} x {size}"
        )
    if given.get("shortest_edge") and not given.get("longest_edge"):
        return int(given["shortest_edge"]), None
    if all(exact):
        return min(exact), exact
    raise InvalidConfig(f"{name}: the processor's size must be shortest_edge, or height and width, got {given}")


def _normalisation(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The spec's mean and std, of pixels from 0 to 1: the processor's are of `pixel * rescale_factor`, which ViViT's
    offset moves to -1 to 1."""
    factor = float(processor.rescale_factor) if processor.do_rescale else 1.0
    is_moved = type(processor).__name__.startswith("Vivit") and processor.do_rescale
    offset = float(getattr(processor, "offset", True)) if is_moved else 0.0
    given = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    means, stds = ([each] * 3 if isinstance(each, int | float) else list(each) for each in given)
    mean = [(offset + value) / (255 * factor) for value in means]
    std = [value / (255 * factor) for value in stds]
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _sha256_of_all(files: list[Path]) -> str:
    """Of the digests of a model in several files, in the order of their names."""
    return hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()


def _transformers() -> Any:
    """The package; mypy need not know it, for it is not always installed."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise RuntimeUnavailable(
            "packaging a Hugging Face model needs the package transformers: pip install -r requirements/huggingface.txt"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
