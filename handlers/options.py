"""One TorchServe row (and its headers) -> VideoRequest(payload, RequestOptions)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from handlers.clips import Sampling

Average = Literal["prob", "score"]
Format = Literal["dict", "list", "full"]


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What the client asked for, validated."""

    top_k: int = 5
    sampling: Sampling = field(default_factory=Sampling)
    average: Average = "prob"
    format: Format = "dict"


@dataclass(frozen=True, slots=True)
class VideoRequest:
    """The bytes of one video file and what to do with them."""

    payload: bytes
    options: RequestOptions
