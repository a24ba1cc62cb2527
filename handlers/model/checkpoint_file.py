"""A checkpoint file -> the state dict in it, by keys alone; no code in the file runs.

The state dict is the file itself or lies below one of the keys under which training code keeps it: `model_state`
(PyTorchVideo, PySlowFast), `state_dict` (MMAction2, Lightning), `model_state_dict` (PyTorch's tutorial), `model`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from handlers.errors import InvalidCheckpoint

ROOTS = ("model_state", "state_dict", "model_state_dict", "model")

Tensors = dict[str, torch.Tensor]


def read_safetensors(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    """The tensors of a safetensors file, and its metadata. Raises InvalidCheckpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InvalidCheckpoint(f"{path.name} is not a readable safetensors file: {error}") from error


def read_torch_file(path: Path, key: str | None = None) -> Tensors:
    """The state dict of a file that `torch.save` wrote, below `key` if one is given. Raises InvalidCheckpoint.

    Training state beside it (optimizer, epoch, config) is not looked at. `key` may name a nested one: `ema.model`.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise InvalidCheckpoint(f"{path.name} holds a {type(content).__name__}, not a dictionary of weights")
    if key is not None:
        root = _below(content, key, path.name)
    else:
        root = next((content[name] for name in ROOTS if isinstance(content.get(name), Mapping)), content)
    others = [str(name) for name, value in root.items() if not isinstance(value, torch.Tensor)]
    if others or not root:
        place = f"under {', '.join(ROOTS)}, and is none itself" if key is None else f"under {key}"
        raise InvalidCheckpoint(
            f"{path.name} has no state dict {place}; its keys: {_some_keys(content)}; --key names the one to take"
        )
    return {str(name): value for name, value in root.items()}


def without_prefix(entries: Tensors, prefix: str, origin: str) -> Tensors:
    """The entries whose keys begin with `prefix`, without it; others are left out, since the prefix was asked for.

    Raises InvalidCheckpoint when no key has it.
    """
    kept = {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}
    if not kept:
        raise InvalidCheckpoint(f"no key of {origin} begins with {prefix!r}; its first keys: {_some_keys(entries)}")
    return kept


def _below(content: Mapping[Any, Any], key: str, origin: str) -> Mapping[Any, Any]:
    found: Any = content
    for name in [key] if key in content else key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        raise InvalidCheckpoint(f"{origin} has no dictionary under {key!r}; its keys: {_some_keys(content)}")
    return found


def _some_keys(content: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(content)[:8])) or "nothing"


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global|class) ([\w.]+)", str(error))
        if wanted is None:
            raise _unreadable(path) from error
        raise InvalidCheckpoint(
            f"{path.name} holds more than tensors ({wanted[1]}), and loading that could run code from the file; if you "
            "trust it, save its weights alone once, where your training code can be imported: "
            "loaded = torch.load(FILE, weights_only=False); then torch.save(loaded.state_dict(), NEW_FILE) if that is "
            "a whole model, torch.save(loaded['state_dict'], NEW_FILE) if it is a dictionary"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        if "TorchScript" in str(error):
            raise InvalidCheckpoint(
                f"{path.name} is a TorchScript program, which is code; if you trust it, save its weights alone once: "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
            ) from error
        raise _unreadable(path) from error


def _unreadable(path: Path) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"{path.name} is not a checkpoint that torch can read, or it is damaged")
