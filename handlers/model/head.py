"""What a network does behind its last feature maps, as a few arrays: where in the maps a class was recognised.

    maps          (C, T, H, W) of each pathway, what the last block of the backbone gives
    before        X3D: a 1x1x1 convolution with its normalisation, and ReLU
    pools         the mean over a window that moves by one, or over everything
    after         X3D: a 1x1x1 convolution and ReLU, on what the pathways' pools gave, one behind the other
    projection    the logits of each position of the window
    log_mean      the logarithm of the positions' mean probability (PySlowFast's head) or, as a rule, their mean logit

The heat of a position is its share in the class's logit: the channels there, each times the mean gradient of the logit
by that channel. That is Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, before its ReLU). Where the head is
linear it is the class activation map itself (Zhou et al. 2016, arXiv:1512.04150), and the mean over all positions,
summed over the pathways, is the logit without its bias, but for the edge, which fewer windows cover.

The gradient is computed here by hand, for workers on OpenVINO have no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Method = Literal["cam", "grad_cam"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class HeadWeights:
    """`projection` (classes, D) and `bias` (classes,); `before` (M, C) with `before_bias` (M,); `after` (D, M).

    `pools`: the window (T, H, W) of each pathway, None for everything.
    """

    projection: FloatArray
    bias: FloatArray
    pools: tuple[tuple[int, int, int] | None, ...]
    before: FloatArray | None = None
    before_bias: FloatArray | None = None
    after: FloatArray | None = None
    log_mean: bool = False

    @property
    def method(self) -> Method:
        """`cam` where the head is linear, so that the map is exact; else `grad_cam`."""
        return "grad_cam" if self._is_curved else "cam"

    @property
    def _is_curved(self) -> bool:
        return self.log_mean or self.before is not None or self.after is not None

    def heat(self, maps: Sequence[FloatArray], target: int) -> tuple[FloatArray, ...]:
        """(T, H, W) of each pathway, positive where the position spoke for the class `target`; maps (C, T, H, W)."""
        weights = self._channel_weights(maps, target)
        return tuple(
            np.tensordot(weight.astype(np.float32), pathway, axes=1)
            for weight, pathway in zip(weights, maps, strict=True)
        )

    def _channel_weights(self, maps: Sequence[FloatArray], target: int) -> list[FloatArray]:
        """(C,) of each pathway: the gradient of the logit by that channel, summed over the positions of the maps."""
        ends = list(itertools.accumulate(len(pathway) for pathway in maps))
        if not self._is_curved:
            return np.split(self.projection[target], ends[:-1])
        # Every window's weights sum to 1, so the sum over positions needs the gradient at each window alone.
        inner = [self._before(pathway) for pathway in maps]
        pooled = _pooled([values for values, _ in inner], self.pools)  # (P, M)
        by_window = self._gradient_by_pooled(pooled, target)
        if self.before is None:
            return np.split(by_window.sum(axis=0), ends[:-1])
        (_, is_on), *_others = inner
        by_window = by_window * _pooled([is_on], self.pools)
        return [by_window.sum(axis=0) @ self.before]

    def _before(self, maps: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What goes into the pool, and where ReLU let it pass (1 or 0)."""
        if self.before is None or self.before_bias is None:
            return maps, np.ones_like(maps)
        flat = self.before @ maps.reshape(len(maps), -1) + self.before_bias[:, None]
        values = np.maximum(flat, 0).reshape(-1, *maps.shape[1:])
        return values, (values > 0).astype(np.float32)

    def _gradient_by_pooled(self, pooled: FloatArray, target: int) -> FloatArray:
        """(P, M): the gradient of the logit by what the pools gave for each of the P windows, (P, M)."""
        hidden = pooled if self.after is None else np.maximum(pooled @ self.after.T, 0)
        if self.log_mean:
            probabilities = _softmax(hidden @ self.projection.T + self.bias)
            shares = probabilities[:, target] / probabilities[:, target].sum()
            by_logits = -shares[:, None] * probabilities
            by_logits[:, target] += shares
            by_hidden = by_logits @ self.projection
        else:
            by_hidden = np.broadcast_to(self.projection[target] / len(pooled), hidden.shape)
        gradient: FloatArray = by_hidden if self.after is None else (by_hidden * (hidden > 0)) @ self.after
        return gradient

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Its parts by name, those that are there; a pool of everything is (0, 0, 0)."""
        parts: dict[str, NDArray[Any] | None] = {
            "projection": self.projection,
            "bias": self.bias,
            "before": self.before,
            "before_bias": self.before_bias,
            "after": self.after,
        }
        arrays = {name: part for name, part in parts.items() if part is not None}
        arrays["pools"] = np.array([pool or (0, 0, 0) for pool in self.pools])
        arrays["log_mean"] = np.array(self.log_mean)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> HeadWeights:
        pools = tuple(tuple(int(length) for length in pool) for pool in arrays["pools"])
        return cls(
            projection=arrays["projection"],
            bias=arrays["bias"],
            pools=tuple((pool[0], pool[1], pool[2]) if any(pool) else None for pool in pools),
            before=arrays.get("before"),
            before_bias=arrays.get("before_bias"),
            after=arrays.get("after"),
            log_mean=bool(arrays["log_mean"]),
        )


def _pooled(maps: Sequence[FloatArray], pools: Sequence[tuple[int, int, int] | None]) -> FloatArray:
    """(P, channels of all pathways): the means over each of the P windows, with a step of one, as in AvgPool3d."""
    columns = [
        np.stack([pathway[(slice(None), *window)].mean(axis=(1, 2, 3)) for window in _windows(pathway.shape[1:], pool)])
        for pathway, pool in zip(maps, pools, strict=True)
    ]
    return np.concatenate(columns, axis=1)


def _windows(shape: tuple[int, ...], pool: tuple[int, int, int] | None) -> Iterator[tuple[slice, ...]]:
    if pool is None:
        yield tuple(slice(0, length) for length in shape)
        return
    firsts = [range(length - size + 1) for length, size in zip(shape, pool, strict=True)]
    for corner in itertools.product(*firsts):
        yield tuple(slice(at, at + size) for at, size in zip(corner, pool, strict=True))


def _softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
