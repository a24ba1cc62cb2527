"""A user's spec file, `my_model.yaml` -> a ModelSpec: the architecture of a model that is known, and what differs.

Or an architecture of one's own as an OpenVINO IR or a program of torch.export: `architecture: graph`, `graph:
model.xml` or `model.pt2` (a path from the file's folder), and every field of _GRAPH_NEEDS. Or a Hugging Face model:
`graph: folder`, and what shall differ from it.

architecture: x3d_xs        # a spec's name: its network, and every field that the file does not name
name: gestures              # default: the file's name
num_classes: 3
activation: sigmoid
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import yaml

from handlers.errors import InvalidConfig
from handlers.specs import (
    SPECS,
    Activation,
    Combine,
    GraphArchitecture,
    ModelSpec,
    Published,
    Temporal,
    Weights,
    get_spec,
)
from handlers.specs.model_spec import ChannelOrder, CropRounding, Layout, ResizeArithmetic

SUFFIXES = (".yaml", ".yml")

_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "temporal": get_args(Temporal),
        "resize_as": get_args(ResizeArithmetic),
        "crop_rounding": get_args(CropRounding),
        "channel_order": get_args(ChannelOrder),
        "layout": get_args(Layout),
        "activation": get_args(Activation),
        "combine": get_args(Combine),
    }
)
_COUNTS = ("num_frames", "sampling_rate", "short_side", "crop_size", "frames_per_second", "num_classes", "alpha")
_CHANNELS = ("mean", "std")
_GRAPH_NEEDS = ("num_frames", "sampling_rate", "short_side", "crop_size", "num_classes", "mean", "std")
_FIELDS = ("name", "architecture", "graph", *_COUNTS, "exact_size", "antialias", *_CHANNELS, *_CHOICES)
_MOST = 100_000


def resolve_spec(given: str) -> tuple[ModelSpec, bool]:
    """The spec of that name, file or Hugging Face folder; and whether it is the user's own.

    Raises UnknownSpec or InvalidConfig.
    """
    if given.endswith(SUFFIXES):
        return read_spec_file(Path(given)), True
    if given not in SPECS and Path(given).is_dir():
        return _folder_spec(Path(given)), True
    if os.sep in given:
        raise InvalidConfig(f"there is no folder {given}; a spec is a name, a file .yaml or a Hugging Face folder")
    return get_spec(given), False


def read_spec_file(path: Path) -> ModelSpec:
    """Raises InvalidConfig (UnknownSpec for an architecture that is none) with one sentence."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidConfig(f"{path.name} is not a readable YAML file: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise InvalidConfig(f"{path.name} must hold fields and values, as in `architecture: x3d_s`")
    unknown = [str(key) for key in content if key not in _FIELDS]
    if unknown:
        raise InvalidConfig(f"{path.name}: unknown field {unknown[0]}; known: {', '.join(_FIELDS)}")
    architecture = content.pop("architecture", None)
    if not isinstance(architecture, str):
        raise InvalidConfig(f"{path.name}: architecture must name a spec, e.g. `architecture: x3d_s`")
    base = _graph_base(path, content) if architecture == "graph" else get_spec(architecture)
    if "graph" in content:
        raise InvalidConfig(f"{path.name}: graph belongs to `architecture: graph`, got architecture {architecture}")
    values = {name: _checked(path.name, name, value) for name, value in content.items()}
    name = values.setdefault("name", path.stem)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\-.]*", name):
        raise InvalidConfig(f"{path.name}: the name {name!r} may hold letters, digits, '_', '-' and '.' alone")
    if name in SPECS:
        raise InvalidConfig(f"{path.name}: {name} is the name of a spec that is known here; give another `name`")
    # Figures and weights of the base are not this model's.
    published = replace(base.published, top1=None, top5=None, accuracies=(), flops_g=None)
    values |= {"published": published, "weights": Weights(source="own"), "preprocessing_source": "own"}
    try:
        return replace(base, **values)
    except ValueError as error:
        raise InvalidConfig(f"{path.name}: {error}") from error


def graph_file(spec_file: str, spec: ModelSpec) -> Path | None:
    """Where the graph (or the folder) of a spec that came from there is; None for a network that is known here."""
    if not isinstance(spec.architecture, GraphArchitecture):
        return None
    given = Path(spec_file)
    return given if given.is_dir() else given.parent / spec.architecture.file


def _graph_base(path: Path, content: dict[str, Any]) -> ModelSpec:
    """The spec of a graph before the file's own fields; takes `graph` out of the content."""
    file = content.pop("graph", None)
    if isinstance(file, str) and (path.parent / file).is_dir():
        return replace(_folder_spec(path.parent / file), architecture=GraphArchitecture(file=file))
    if not isinstance(file, str) or not file.endswith((".xml", ".pt2")):
        raise InvalidConfig(
            f"{path.name}: architecture: graph needs `graph: model.xml`, an OpenVINO IR, `graph: model.pt2`, a program "
            f"of torch.export, or a Hugging Face folder, got {file!r}"
        )
    missing = [name for name in _GRAPH_NEEDS if name not in content]
    if missing:
        raise InvalidConfig(f"{path.name}: a graph's spec has to say {', '.join(missing)}")
    weights = (path.parent / file).with_suffix(".bin" if file.endswith(".xml") else ".pt2")
    params_m = weights.stat().st_size / 4e6 if weights.is_file() else 0.0
    return ModelSpec(
        name="graph",
        family="graph",
        num_frames=1,
        sampling_rate=1,
        short_side=1,
        crop_size=1,
        head="graph",
        architecture=GraphArchitecture(file=file),
        published=Published(top1=None, top5=None, params_m=params_m, flops_g=None, views="1x1", source="own"),
        weights=Weights(source="own"),
        preprocessing_source="own",
    )


def _folder_spec(folder: Path) -> ModelSpec:
    from serving.huggingface import folder_spec  # torch, and with it seconds, which other specs do without

    return folder_spec(folder)


def _checked(origin: str, name: str, value: Any) -> Any:
    """The value in the spec's own type."""
    if name in _CHOICES and value not in _CHOICES[name]:
        raise InvalidConfig(f"{origin}: {name} must be one of {', '.join(_CHOICES[name])}, got {value!r}")
    if name in _COUNTS and not (_is_count(value) or (name == "alpha" and value is None)):
        raise InvalidConfig(f"{origin}: {name} must be a whole number from 1 to {_MOST}, got {value!r}")
    if name == "antialias" and not isinstance(value, bool):
        raise InvalidConfig(f"{origin}: antialias must be true or false, got {value!r}")
    if name == "name" and not isinstance(value, str):
        raise InvalidConfig(f"{origin}: name must be text, got {value!r}")
    if name == "exact_size" and value is not None:
        if not isinstance(value, list) or len(value) != 2 or not all(map(_is_count, value)):
            raise InvalidConfig(f"{origin}: exact_size must be [height, width] in pixels or null, got {value!r}")
        return tuple(value)
    if name in _CHANNELS:
        numbers = value if isinstance(value, list) else [value] * 3
        if len(numbers) != 3 or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
            raise InvalidConfig(f"{origin}: {name} must be a number or three, of pixels from 0 to 1, got {value!r}")
        return tuple(float(number) for number in numbers)
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST
