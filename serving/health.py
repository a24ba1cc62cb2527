"""Whether a server answers, seen from a client: its models' workers and queues, its keys, a tiny real prediction."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from serving.tiny_clip import tiny_clip
from video_action_client import ClientError, ModelInfo, VideoClient
from video_action_client.errors import ConnectionFailed, InvalidKey, KeyUnavailable
from video_action_client.keys import Api


@dataclass(frozen=True, slots=True)
class TinyPrediction:
    """What came of a prediction on `tiny_clip`: `milliseconds` from sending to the answer; `error`, one sentence.

    `unasked`: the server could not be asked at all; nobody listens there, or it refuses the key.
    """

    milliseconds: float
    error: str | None = None
    unasked: bool = False

    @property
    def ok(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One version of a model. `prediction` is None where none was tried: without a ready worker it would wait."""

    name: str
    version: str
    default: bool
    ready_workers: int
    min_workers: int
    pending_requests: int
    queue_size: int
    prediction: TinyPrediction | None

    @property
    def problem(self) -> str | None:
        """Why it does not answer; None if it does, be it with fewer workers than it should have."""
        if self.ready_workers == 0:
            return "no worker is ready"
        return None if self.prediction is None else self.prediction.error


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """`expiries`: when each API's key ends, None where nothing tells it. `problem`: why it could not be asked."""

    url: str
    problem: str | None
    expiries: dict[str, datetime | None]
    models: tuple[ModelStatus, ...]

    @property
    def exit_code(self) -> int:
        """0: every model answers; 1: one does not, or there is none; 2: the server could not be asked."""
        if self.problem is not None:
            return 2
        return int(not self.models or any(model.problem is not None for model in self.models))


def try_prediction(client: VideoClient, model: str, version: str | None = None) -> TinyPrediction:
    """Have the model classify the tiny clip; never raises ClientError."""
    clip, started = tiny_clip(), time.monotonic()
    error: str | None = None
    unasked = False
    try:
        client.classify(clip, model=model, version=version, top_k=1)
    except ClientError as caught:
        error, unasked = caught.message, _is_unasked(caught)
    return TinyPrediction((time.monotonic() - started) * 1e3, error, unasked)


def server_status(client: VideoClient, *, predict: bool = True) -> ServerStatus:
    """Ask for every model and, with `predict`, each of their versions for a prediction; never raises ClientError."""
    problem: str | None = None
    models: list[ModelStatus] = []
    try:
        models = [_model_status(client, info, predict=predict) for info in client.models()]
    except ClientError as error:
        problem = error.message
    unasked = next((each.prediction for each in models if each.prediction and each.prediction.unasked), None)
    if problem is None and unasked is not None:
        problem = unasked.error
    # Last: a key that had ended has been renewed by then.
    expiries = {api: client.key_expires(api) for api in get_args(Api)}
    return ServerStatus(client.url, problem, expiries, tuple(models))


def _model_status(client: VideoClient, info: ModelInfo, *, predict: bool) -> ModelStatus:
    return ModelStatus(
        name=info.name,
        version=info.version,
        default=info.default,
        ready_workers=sum(worker.status == "READY" for worker in info.workers),
        min_workers=info.min_workers,
        pending_requests=info.pending_requests,
        queue_size=info.pending_requests + info.remaining_capacity,
        prediction=try_prediction(client, info.name, info.version) if predict and info.ready else None,
    )


def _is_unasked(error: ClientError) -> bool:
    return isinstance(error, InvalidKey | KeyUnavailable) or (isinstance(error, ConnectionFailed) and not error.sent)
