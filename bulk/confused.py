"""Which classes are most often taken for each other. numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def most_confused(counts: NDArray[np.int64], number: int) -> list[int]:
    """At most `number` class ids of a confusion matrix (true classes by row): those of the most frequent confusions,
    in either direction, ordered so that classes that are confused with each other stand together.

    Equal counts go by class id, so that the order depends on the matrix alone.
    """
    between = counts + counts.T
    np.fill_diagonal(between, 0)
    rows, columns = np.triu_indices_from(between, k=1)
    order = np.argsort(-between[rows, columns], kind="stable")
    chosen: list[int] = []
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        new = [index for index in (row, column) if index not in chosen]
        if not between[row, column] or len(chosen) + len(new) > number:
            break
        chosen += new
    return _side_by_side(between, chosen)


def _side_by_side(between: NDArray[np.int64], ids: list[int]) -> list[int]:
    """Each class is followed by the one that it is most often confused with among those left; where it has none, the
    next group begins with the most confused class left."""
    left = list(ids)
    ordered: list[int] = []
    while left:
        following = left[0]
        if ordered:
            nearest = left[int(between[ordered[-1], left].argmax())]
            following = nearest if between[ordered[-1], nearest] else left[0]
        left.remove(following)
        ordered.append(following)
    return ordered
