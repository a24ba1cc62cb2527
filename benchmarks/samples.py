"""Numbers measured -> their summary."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Summary:
    """Of `count` samples, in the samples' own unit. Percentiles are interpolated linearly, as numpy's default."""

    count: int
    median: float
    mean: float
    p90: float
    p95: float
    p99: float
    minimum: float
    maximum: float

    def to_json(self) -> dict[str, Any]:
        """Rounded to three decimals: a microsecond where the unit is a millisecond."""
        return {
            "count": self.count,
            **{name: round(getattr(self, name), 3) for name in self.__slots__ if name != "count"},
        }


def summarise(samples: Sequence[float]) -> Summary:
    """Raises ValueError for no samples."""
    if not samples:
        raise ValueError("no samples to summarise")
    median, p90, p95, p99 = (float(value) for value in np.percentile(samples, [50, 90, 95, 99]))
    return Summary(
        count=len(samples),
        median=median,
        mean=fmean(samples),
        p90=p90,
        p95=p95,
        p99=p99,
        minimum=min(samples),
        maximum=max(samples),
    )


def shuffled(items: Sequence[T], turn: int) -> list[T]:
    """The items in a round's order: another one each round, so that none always follows the same, alike in each run."""
    return random.Random(turn).sample(list(items), len(items))
