"""The file of a converted model's head, for explanations, which handlers/model/head_file.py reads.

The weights of the head are in the converted model already; the file says where, so that an archive does not grow.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.model.head import HeadWeights
from handlers.model.head_file import PLACE

_SMALL = 4096  # numbers; a few kilobytes are not worth a search
_FOLDING_ERROR = 1e-5  # relative; OpenVINO folds a normalisation into its convolution with rounding of its own


def write_head(head: HeadWeights, target: Path, model: Path) -> None:
    """Writes `target` for a head of the converted model `model` (.xml, with the .bin beside it)."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in head.to_arrays().items():
        at = None if array.size < _SMALL else _offset_of(array, model)
        if at is None:
            arrays[name] = array
        else:
            arrays[name + PLACE] = np.array([at, *array.shape])
    np.savez(target, **arrays)  # type: ignore[arg-type]  # numpy's stubs take a keyword for its own


def _offset_of(array: NDArray[Any], model: Path) -> int | None:
    """Where in the model's weights these numbers lie, None where they are not found."""
    weights = np.memmap(model.with_suffix(".bin"), np.uint8, "r")
    largest = float(np.abs(array).max())
    for offset in _constants(model, array):
        found = weights[offset : offset + array.size * 4].view(np.float32)
        if np.abs(found - array.ravel()).max() <= _FOLDING_ERROR * largest:
            return offset
    return None


def _constants(model: Path, array: NDArray[Any]) -> Iterator[int]:
    """The offsets of all constants of that length; the model says in its XML where each of them lies."""
    for data in ElementTree.parse(model).iterfind("layers/layer[@type='Const']/data"):
        if data.get("element_type") == "f32" and int(data.get("size", 0)) == array.size * 4:
            lengths = [int(length) for length in data.get("shape", "").split(",") if length.strip()]
            if [length for length in lengths if length != 1] == [length for length in array.shape if length != 1]:
                yield int(data.get("offset", -1))
