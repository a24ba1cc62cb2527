"""What one request may cost. Every limit is a setting of model-config.yaml, `handler.limits.NAME`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


def _limit(default: _Number, unit: str, help: str, over: str) -> _Number:
    """A field of Limits, with the one text about it: model-config.yaml and docs/protocol.md are written from it."""
    return field(default=default, metadata={"unit": unit, "help": help, "over": over})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one request. Over a bound that request is refused with 400, 413, 422 or 504; others are not affected.

    Defaults admit what phones and cameras record (8.3 megapixel frames, two hours) and keep the decoding process
    within 500 MB above idle: FFmpeg keeps up to 17 decoded pictures of 1.5 bytes per pixel for H.264 and HEVC.
    """

    max_video_bytes: int = _limit(200 * 1024 * 1024, "bytes", "size of the uploaded file", "413 `VideoTooLarge`")
    max_frame_pixels: int = _limit(4096 * 2304, "pixels", "width x height of a decoded frame", "422 `FrameTooLarge`")
    max_video_sec: float = _limit(4 * 3600.0, "seconds", "duration of the video", "422 `VideoTooLong`")
    max_windows: int = _limit(4096, "count", "windows (clips) of one video", "400 `InvalidOption`")
    max_videos: int = _limit(64, "count", "videos in one body", "400 `InvalidOption`")
    # 4096 windows of three crops.
    max_views: int = _limit(12_288, "count", "windows x crops of all videos in one body", "400 `InvalidOption`")
    # About 90 bytes each with Kinetics' labels, so that an answer stays below 10 MB.
    max_predictions: int = _limit(
        50_000,
        "count",
        "predictions in the answer to one body: windows x top_k in the format full, else top_k a video; an embedding, "
        "and each view of an explanation, counts as 128",
        "400 `InvalidOption`",
    )
    # After `responseTimeout` TorchServe kills the whole worker.
    request_timeout_sec: float = _limit(
        60.0,
        "seconds",
        "time from a request's arrival in the worker to its scores; smaller than responseTimeout",
        "504 `RequestTimeout`",
    )
    max_streams: int = _limit(32, "count", "streams in the file", "422 `UndecodableVideo`")
    max_packets: int = _limit(
        2_000_000, "count", "packets of the video stream, also while looking for a duration", "422 `VideoTooLong`"
    )
    max_frames_per_window: int = _limit(
        20_000, "count", "frames in one window; bounds absurd frame rates", "422 `VideoTooLong`"
    )
    # A process that does not stop by itself is killed.
    decode_timeout_sec: float = _limit(
        20.0, "seconds", "time for decoding one video; waiting for the model does not count", "504 `DecodeTimeout`"
    )
    decode_memory_mb: int = _limit(
        420, "MiB", "memory for decoding one video, above an idle decoding process", "422 `UndecodableVideo`"
    )
    max_alloc_mb: int = _limit(
        32,
        "MiB",
        "largest single allocation inside FFmpeg; grows to what max_frame_pixels needs",
        "422 `UndecodableVideo`",
    )
    # The default is FFmpeg's own.
    probe_bytes: int = _limit(
        5_000_000, "bytes", "how far FFmpeg may read to find the streams", "415 or 422, if they were not found by then"
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            wanted = (int, float) if each.type == "float" else (int,)
            if isinstance(value, bool) or not isinstance(value, wanted) or not value > 0:
                raise ValueError(f"limits.{each.name} must be a positive {each.type}, got {value!r}")
