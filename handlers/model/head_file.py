"""The head of a converted model, from its file: small arrays, and for large ones where they lie in the model's weights.

So the archive holds no second copy of them, and a worker reads them when the first explanation is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.model.head import HeadWeights

PLACE = ".at"
"""Ending of a name: an array of the offset in bytes and the shape, instead of the array itself."""


def read_head(path: Path) -> HeadWeights | None:
    """The head of an unpacked archive, None where it has none; large arrays are mapped, not read."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    for name in [name for name in arrays if name.endswith(PLACE)]:
        offset, *shape = (int(number) for number in arrays.pop(name))
        weights = path.with_name("model.bin")
        arrays[name.removesuffix(PLACE)] = np.memmap(weights, np.float32, "r", offset=offset, shape=tuple(shape))
    return HeadWeights.from_arrays(arrays)
