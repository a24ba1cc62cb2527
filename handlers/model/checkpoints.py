"""Checkpoint files of three ecosystems -> one canonical state dict: pytorchvideo's own keys, float32.

X3D, Slow and SlowFast are recognised by keys that only one ecosystem has, not by file names:

    pytorchvideo   {"model_state": ...}     blocks.0. ...                  X3D, Slow, SlowFast
    mmaction2      {"state_dict": ...}      backbone.conv1_s.conv ...      X3D
    pyslowfast     {"model_state": ...}     s1.pathway0_stem ...           X3D, Slow, SlowFast

Models of the other families come from one library each, whose keys they keep.

Files are read with `torch.load(weights_only=True)` or as safetensors, so no code in them runs. Whatever does not fit is
refused, never skipped: a half-loaded model would give answers, but wrong ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast, get_args

import torch

from handlers.errors import InvalidCheckpoint
from handlers.model.checkpoint_file import read_safetensors, read_torch_file, without_prefix
from handlers.model.dialect_keys import RENAME
from handlers.model.network import check_state_dict, expected_shapes
from handlers.specs import Family, Head, ModelSpec

HEAD_METADATA_KEY = "head"
"""Key of a safetensors file's own metadata under which packaging notes the head its weights belong to."""

# DistributedDataParallel, torch.compile, and names that a LightningModule or one's own model gives its network.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
_INTEGERS = (".num_batches_tracked", ".relative_position_index")  # counters, and Swin's table of offsets
_CLASSIFIER = re.compile(r"blocks\.[56]\.proj\.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights under canonical keys, float32, that fit the spec they were read for."""

    state_dict: Mapping[str, torch.Tensor]
    head: Head
    num_classes: int
    dialect: Head


@dataclass(frozen=True, slots=True)
class _Layout:
    dialect: Head
    family: Family
    tell_tale: str


# The first match wins: X3D's stem key of PySlowFast and pytorchvideo is a superset of Slow's.
_LAYOUTS = (
    _Layout("pytorchvideo", "slowfast", "blocks.0.multipathway_blocks.1.conv.weight"),
    _Layout("pytorchvideo", "x3d", "blocks.0.conv.conv_t.weight"),
    _Layout("pytorchvideo", "slow", "blocks.0.conv.weight"),
    _Layout("mmaction2", "x3d", "backbone.conv1_s.conv.weight"),
    _Layout("pyslowfast", "slowfast", "s1.pathway1_stem.conv.weight"),
    _Layout("pyslowfast", "x3d", "s1.pathway0_stem.conv_xy.weight"),
    _Layout("pyslowfast", "slow", "s1.pathway0_stem.conv.weight"),
)

_SHARED_FAMILIES = {layout.family for layout in _LAYOUTS}


def read_checkpoint(
    path: Path, spec: ModelSpec, *, key: str | None = None, strip_prefix: str | None = None
) -> Checkpoint:
    """The checkpoint file as weights for `spec`; the class count is the file's own. Raises InvalidCheckpoint.

    `key` says where in the file the state dict is, `strip_prefix` which of its entries are the model's: those whose
    keys begin so. Without them both are found out.
    """
    if not path.is_file():
        raise InvalidCheckpoint(f"there is no checkpoint file {path}")
    noted_head: str | None = None
    if path.suffix == ".safetensors":
        if key is not None:
            raise InvalidCheckpoint(
                f"{path.name} is a safetensors file, which holds one state dict, not several by key"
            )
        entries, metadata = read_safetensors(path)
        noted_head = metadata.get(HEAD_METADATA_KEY)
    else:
        entries = read_torch_file(path, key)
    if strip_prefix is not None:
        entries = without_prefix(entries, strip_prefix, path.name)
    return canonical_checkpoint(entries, spec, origin=path.name, noted_head=noted_head)


def canonical_checkpoint(
    entries: Mapping[str, torch.Tensor], spec: ModelSpec, *, origin: str, noted_head: str | None = None
) -> Checkpoint:
    """A state dict of any of the layouts, renamed, cast to float32 and checked against `spec`.

    `noted_head` is what a canonical file says about its own head; without it the layout's head is taken.
    """
    entries = _unwrapped(entries)
    layout = _layout_of(entries, spec, origin)
    if layout.family != spec.family:
        raise InvalidCheckpoint(
            f"{origin} holds a {layout.family} model ({layout.dialect} layout), but {spec.name} is {spec.family}"
        )
    state_dict = {RENAME[layout.dialect](key, layout.family): value for key, value in entries.items()}
    if len(state_dict) != len(entries):
        raise InvalidCheckpoint(f"{origin} names the same weights twice")
    head = layout.dialect if noted_head is None else _checked_head(noted_head, origin)
    classifier = state_dict.get(f"{spec.classifier}.weight")
    if classifier is None or classifier.ndim < 2:
        raise InvalidCheckpoint(f"{origin} has no classifier: {spec.name} needs a whole model, not a backbone alone")
    num_classes = int(classifier.shape[0])
    state_dict = _completed(state_dict, spec, num_classes=num_classes, head=head)
    check_state_dict(state_dict, spec, num_classes=num_classes, head=head, origin=origin)
    return Checkpoint(
        state_dict=MappingProxyType({key: _float32(key, value, origin) for key, value in state_dict.items()}),
        head=head,
        num_classes=num_classes,
        dialect=layout.dialect,
    )


def _unwrapped(entries: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Without the prefixes that wrappers put before every key."""
    while not any(layout.tell_tale in entries for layout in _LAYOUTS):
        prefix = next((p for p in _WRAPPERS if all(key.startswith(p) for key in entries)), None)
        if prefix is None or not entries:
            return entries
        entries = {key.removeprefix(prefix): value for key, value in entries.items()}
    return entries


def _layout_of(entries: Mapping[str, torch.Tensor], spec: ModelSpec, origin: str) -> _Layout:
    if spec.family not in _SHARED_FAMILIES:
        return _Layout(spec.head, spec.family, "")
    for layout in _LAYOUTS:
        if layout.tell_tale in entries:
            return layout
    shown = ", ".join(list(entries)[:5]) or "none"
    known = "pytorchvideo (X3D, Slow, SlowFast), MMAction2 (X3D) or PySlowFast (X3D, Slow, SlowFast)"
    raise InvalidCheckpoint(
        f"{origin} is in no known layout: expected {known}; its first keys: {shown}; "
        "--strip-prefix takes a prefix off them"
    )


def _checked_head(name: str, origin: str) -> Head:
    if name not in get_args(Head):
        raise InvalidCheckpoint(f"{origin} names the head {name!r}; known: {', '.join(get_args(Head))}")
    return cast(Head, name)


def _completed(
    state_dict: dict[str, torch.Tensor], spec: ModelSpec, *, num_classes: int, head: Head
) -> dict[str, torch.Tensor]:
    """Adds missing `num_batches_tracked` entries and reshapes linear weights to 1x1x1 convolutions."""
    for key, shape in expected_shapes(spec, num_classes=num_classes, head=head).items():
        value = state_dict.get(key)
        if value is None and key.endswith(".num_batches_tracked"):
            state_dict[key] = torch.zeros((), dtype=torch.int64)
        elif value is not None and (*value.shape, 1, 1, 1) == shape:
            state_dict[key] = value.reshape(shape)  # a linear layer there is a 1x1x1 convolution here
    return state_dict


def _float32(key: str, value: torch.Tensor, origin: str) -> torch.Tensor:
    if key.endswith(_INTEGERS):
        return value.to(torch.int64)
    if not value.is_floating_point():
        raise InvalidCheckpoint(f"{origin}: {key} is {value.dtype}, weights must be floating point")
    value = value.to(torch.float32).contiguous()
    if not bool(torch.isfinite(value).all()):
        raise InvalidCheckpoint(f"{origin}: {key} holds values that are not finite")
    return value
