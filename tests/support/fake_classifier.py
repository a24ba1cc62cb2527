"""A classifier that answers by the payload's text, and calls of a handler that has it in TorchServe's own terms.

`good <n>` gives scores, `slow` a RequestError, `crash` raises.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from ts.context import RequestProcessor
from ts.protocol.otf_message_handler import create_predict_response

from handlers import __version__
from handlers.config import HandlerConfig
from handlers.errors import DecodeTimeout, RequestError
from handlers.model.archive_info import ArchiveInfo, WeightsInfo
from handlers.request.answer import VideoScores, WindowScores
from handlers.request.budgets import Budget
from handlers.request.explanation import Explanation
from handlers.request.heat import WindowHeat
from handlers.request.options import VideoRequest
from handlers.specs import get_spec
from handlers.video.sampling import VideoReport, Window

SPEC = get_spec("x3d_xs")
LABELS = ("jump", "run", "sit")
REPORT = VideoReport(
    duration_sec=2.0,
    width=64,
    height=48,
    fps=30.0,
    codec="h264",
    frames_decoded=4,
    decode_ms=3.0,
    transform_ms=2.0,
)


EXPLANATION = Explanation(
    1, "cam", (WindowHeat(Window(0.0, 1.6), (0.0, 0.8), (np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3),)),)
)
"""Heat that grows with each position, of one clip of two steps."""


class FakeClassifier:
    """VideoClassifier's interface; scores follow from the payload alone."""

    spec, labels, config = SPEC, LABELS, HandlerConfig(spec="x3d_xs")
    archive = ArchiveInfo(
        spec="x3d_xs",
        name="clips",
        version="2.0",
        num_classes=3,
        head=SPEC.head,
        weights=WeightsInfo(kind="random", source=None, sha256="", seed=0),
        package_version=__version__,
    )

    def __init__(self, broken_step: str | None = None) -> None:
        self.broken_step = broken_step
        self.budgets: Sequence[Budget] = ()
        self.seen: Sequence[VideoRequest | RequestError] = ()

    decoder_restarts: Mapping[str, int] = {}
    other_busy_workers = 0

    def serving(self) -> AbstractContextManager[None]:
        return nullcontext()

    def prepare(
        self, requests: Sequence[VideoRequest | RequestError], budgets: Sequence[Budget]
    ) -> list[VideoRequest | RequestError]:
        assert len(budgets) == len(requests)
        self.budgets = budgets
        if self.broken_step == "prepare":
            raise OSError("/secret/path is gone")
        return list(requests)

    def score(self, pending: Sequence[VideoRequest | RequestError]) -> list[VideoScores | RequestError]:
        self.seen = pending
        if self.broken_step == "score":
            raise MemoryError("token 1234")
        return [one if isinstance(one, RequestError) else self._scores(one.payload) for one in pending]

    def describe(self) -> dict[str, Any]:
        return {"spec": {"name": SPEC.name}, "num_labels": 3}

    def _scores(self, payload: bytes) -> VideoScores | RequestError:
        kind, _, number = payload.decode().partition(" ")
        if kind == "slow":
            return DecodeTimeout("too slow")
        logits = np.array([[float(number), 1.0, 0.0]], dtype=np.float32)
        if kind == "crash":
            logits = np.array([[0.0, 0.0, 0.0, 9.0]], dtype=np.float32)  # a class that has no label
        window = WindowScores(Window(0.0, 1.6), logits, features=logits)
        return VideoScores((window,), REPORT, inference_ms=5.0, total_ms=10.0, explanation=EXPLANATION)


def rows(*payloads: str, **headers: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """HTTP rows with raw bodies, all with the same headers."""
    common = {"Host": "127.0.0.1", "explain": "False", "X-Top-K": "3", **headers}
    return (
        [{"body": bytearray(payload.encode())} for payload in payloads],
        [{**common, "body": {"content-type": ""}} for _ in payloads],
    )


def call(handler: Any, data: list[dict[str, Any]], headers: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    """(status, parsed body) per answered row, through the base class's `handle` and TorchServe's own encoding."""
    context = handler.context
    context.request_processor = [RequestProcessor(each) for each in headers]
    context.request_ids = {index: f"id-{index}" for index in range(len(data))}
    context.metrics.request_ids = context.request_ids
    bodies = handler.handle(data, context)
    assert len(bodies) == len(data)
    create_predict_response(bodies, context.request_ids, "Prediction success", 200, context=context)
    for index in context.request_ids:
        assert context.get_response_content_type(index) == "application/json"
    return [(context.get_response_status(index)[0], json.loads(bodies[index])) for index in context.request_ids]
