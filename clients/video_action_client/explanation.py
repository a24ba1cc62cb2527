"""Where and when a model saw a class: what `VideoClient.explain` returns. Times are seconds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import InvalidAnswer

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself only since Python 3.11

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TimeWeight:
    """How much the part `[start_sec, end_sec)` spoke for the class: 0 to 1, the weightiest part 1."""

    start_sec: float
    end_sec: float
    weight: float

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(float(entry["start_sec"]), float(entry["end_sec"]), float(entry["weight"]))


@dataclass(frozen=True, slots=True)
class CropPlace:
    """Where a map lies in the frame, in shares of the frame's width and height, 0 to 1."""

    left: float
    top: float
    width: float
    height: float

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(*(float(entry[name]) for name in ("left", "top", "width", "height")))


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Heat over the frame at `time_sec`, rows from the top, 0 to 1. `weight`: its mean, 1 for the weightiest map."""

    time_sec: float
    weight: float
    heatmap: tuple[tuple[float, ...], ...]
    crop: CropPlace

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        rows = tuple(tuple(float(heat) for heat in row) for row in entry["heatmap"])
        return cls(float(entry["time_sec"]), float(entry["weight"]), rows, CropPlace.from_json(entry["crop"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a video has a label: `times` say when the model saw it, `maps` where.

    `method` is `cam` (exact) or `grad_cam`. `pathways` has the maps of SlowFast's pathways by name, and is empty for
    other models. `image` is a PNG file, if it was asked for. `answer` is the server's whole answer as it came.
    """

    label: str
    class_id: int
    score: float
    method: str
    times: tuple[TimeWeight, ...]
    maps: tuple[HeatMap, ...]
    pathways: Mapping[str, tuple[HeatMap, ...]]
    image: bytes | None = field(default=None, repr=False)
    answer: Json = field(repr=False, compare=False)

    @classmethod
    def from_json(cls, answer: object) -> Self:
        """Raises InvalidAnswer if that is no explanation."""
        try:
            if not isinstance(answer, Mapping):
                raise TypeError(f"expected an object, got {type(answer).__name__}")
            image = answer.get("image")
            return cls(
                label=str(answer["label"]),
                class_id=int(answer["class_id"]),
                score=float(answer["score"]),
                method=str(answer["method"]),
                times=tuple(TimeWeight.from_json(each) for each in answer["times"]),
                maps=_maps(answer["maps"]),
                pathways={str(name): _maps(maps) for name, maps in answer.get("pathways", {}).items()},
                image=None if image is None else base64.b64decode(image, validate=True),
                answer=answer,
            )
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise InvalidAnswer(
                f"the answer is no explanation of this project's handlers: {type(error).__name__}: {error}"
            ) from None


def _maps(entries: Any) -> tuple[HeatMap, ...]:
    return tuple(HeatMap.from_json(each) for each in entries)
