"""Typed clients for video models served by TorchServe, over HTTP and gRPC. Needs neither torch nor TorchServe.

from video_action_client import VideoClient

with VideoClient() as client:
    prediction = client.classify("clip.mp4", model="x3d_s")
    print(prediction.top.label, prediction.top.score)

http_client.py    VideoClient
grpc_client.py    GrpcVideoClient: same methods, same answers, same exceptions
base.py           predictions, management.py: models; what both clients share
keys.py           TorchServe's keys; retry.py: when a call is repeated
source.py         what can be sent
results.py        what comes back; events.py: an answer that comes in lines; explanation.py: where and when
live/             a live source, window by window
upgrade.py        versions replaced without losing a request
errors.py         what can go wrong
"""

from .errors import ApiError, ClientError, RequestError, ServingError, SourceFailed
from .events import (
    EmbeddingEvent,
    StreamEmbeddedWindow,
    StreamEmbeddingEnd,
    StreamEnd,
    StreamEvent,
    StreamSegment,
    StreamStart,
    StreamWindow,
)
from .explanation import CropPlace, Explanation, HeatMap, TimeWeight
from .grpc_client import GrpcVideoClient
from .http_client import VideoClient
from .live.events import WatchEnd, WatchEvent, WatchLost, WatchReconnected, WatchSkipped, WatchWindow
from .live.watch import Watch
from .results import (
    Clip,
    EffectiveSampling,
    EmbeddedClip,
    Embedding,
    ModelInfo,
    Prediction,
    ScoredLabel,
    Segment,
    Timeline,
    Timing,
    VideoInfo,
    WorkerInfo,
)
from .retry import Retry

__all__ = [
    "ApiError",
    "ClientError",
    "Clip",
    "CropPlace",
    "EffectiveSampling",
    "EmbeddedClip",
    "Embedding",
    "EmbeddingEvent",
    "Explanation",
    "GrpcVideoClient",
    "HeatMap",
    "ModelInfo",
    "Prediction",
    "RequestError",
    "Retry",
    "ScoredLabel",
    "Segment",
    "ServingError",
    "StreamEmbeddedWindow",
    "StreamEmbeddingEnd",
    "SourceFailed",
    "StreamEnd",
    "StreamEvent",
    "StreamSegment",
    "StreamStart",
    "StreamWindow",
    "TimeWeight",
    "Timeline",
    "Timing",
    "VideoClient",
    "VideoInfo",
    "Watch",
    "WatchEnd",
    "WatchEvent",
    "WatchLost",
    "WatchReconnected",
    "WatchSkipped",
    "WatchWindow",
    "WorkerInfo",
]
