"""A spec as JSON values, and back: for a decoding process, and for archives of models that have no row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from handlers.specs.model_spec import (
    Accuracy,
    GraphArchitecture,
    HubArchitecture,
    ModelSpec,
    Published,
    ResNetArchitecture,
    TorchvisionArchitecture,
    Weights,
    X3DArchitecture,
)

_ARCHITECTURES: Mapping[str, Any] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (X3DArchitecture, ResNetArchitecture, HubArchitecture, TorchvisionArchitecture, GraphArchitecture)
    }
)


def spec_to_json(spec: ModelSpec) -> dict[str, Any]:
    """Every field of the spec; the architecture's class is named under `kind`."""
    content = asdict(spec)
    content["architecture"]["kind"] = type(spec.architecture).__name__
    return content


def spec_from_json(content: Mapping[str, Any]) -> ModelSpec:
    """The spec that `spec_to_json` gave; raises ValueError, TypeError or KeyError for anything else."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    architecture = dict(values["architecture"])
    values["architecture"] = _ARCHITECTURES[architecture.pop("kind")](**architecture)
    published = dict(values["published"])
    published["accuracies"] = tuple(Accuracy(**entry) for entry in published["accuracies"])
    values["published"], values["weights"] = Published(**published), Weights(**values["weights"])
    return ModelSpec(**values)
