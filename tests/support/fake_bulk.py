"""A classifier that decodes nothing: a payload is a JSON text that says what to answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handlers.errors import EmptyClip, RequestError, UnsupportedVideo
from handlers.request.answer import VideoScores, WindowScores
from handlers.request.options import VideoRequest
from handlers.video.sampling import VideoReport, Window

REPORT = VideoReport(
    duration_sec=2.0, width=64, height=48, fps=30.0, codec="h264", frames_decoded=7, decode_ms=1.23456, transform_ms=0.5
)


def payload(*windows: list[list[float]]) -> bytes:
    """A video of these windows' logits, (crops, classes) each."""
    return json.dumps(windows).encode()


@dataclass
class FakeClassifier:
    """Keeps what it was asked, in order, in `calls`."""

    calls: list[str] = field(default_factory=list)
    batches: int = 0

    def prepare(self, requests: Sequence[VideoRequest | RequestError]) -> list[Any]:
        self.calls.append(f"prepare {self.batches}")
        self.batches += 1
        return [self.batches - 1, *requests]

    def score(self, pending: list[Any]) -> list[VideoScores | RequestError]:
        number, *requests = pending
        self.calls.append(f"score {number}")
        return [request if isinstance(request, RequestError) else self._answer(request) for request in requests]

    def _answer(self, request: VideoRequest) -> VideoScores | RequestError:
        if request.payload == b"empty":
            return EmptyClip("no frame in the asked part")
        try:
            windows = json.loads(request.payload)
        except ValueError:
            return UnsupportedVideo("this is not a video")
        scores = [
            WindowScores(Window(index, index + 1), np.array(logits, np.float32)) for index, logits in enumerate(windows)
        ]
        return VideoScores(tuple(scores), REPORT, inference_ms=3.0, total_ms=4.0)
