"""What one request may cost. Every limit is a setting of model-config.yaml, `handler.limits.NAME`."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one request. Over a bound that request is refused with 400, 413, 422 or 504; others are not affected.

    Defaults admit what phones and cameras record (8.3 megapixel frames, two hours) and keep the decoding process
    within 500 MB above idle: FFmpeg keeps up to 17 decoded pictures of 1.5 bytes per pixel for H.264 and HEVC.
    """

    max_video_bytes: int = 200 * 1024 * 1024
    """Bytes of the uploaded file; config.properties' max_request_size bounds the HTTP request as a whole."""
    max_frame_pixels: int = 4096 * 2304
    """Width x height of a decoded frame, pixels."""
    max_video_sec: float = 4 * 3600.0
    """Duration of the video, seconds."""
    max_windows: int = 4096
    """Windows (clips) of one video."""
    max_videos: int = 64
    """Videos in one body."""
    max_views: int = 12_288
    """Views (windows x crops) that all videos of one body may ask for: 4096 windows of three crops."""
    max_predictions: int = 50_000
    """Predictions (windows x top_k, or top_k where the answer holds no windows) in the answer to one body.

    About 90 bytes each with Kinetics' labels, so that an answer stays below 10 MB.
    """
    request_timeout_sec: float = 60.0
    """Wall time of one request from its arrival in the worker to its scores, seconds.

    It must be smaller than TorchServe's `responseTimeout`, after which the whole worker is killed.
    """
    max_streams: int = 32
    """Streams in the container."""
    max_packets: int = 2_000_000
    """Packets of the video stream that may be read, also while looking for a duration."""
    max_frames_per_window: int = 20_000
    """Frames in one window: bounds absurd frame rates."""
    decode_timeout_sec: float = 20.0
    """Wall time of decoding one request, seconds; the process is killed when it does not stop by itself."""
    decode_memory_mb: int = 420
    """Memory that decoding one request may take above an idle decoding process, MiB."""
    max_alloc_mb: int = 32
    """Largest single allocation inside FFmpeg, MiB; grows on its own to what `max_frame_pixels` needs."""
    probe_bytes: int = 5_000_000
    """How far FFmpeg may read to find out what streams there are, bytes; the default is FFmpeg's own."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = (int, float) if field.type == "float" else (int,)
            if isinstance(value, bool) or not isinstance(value, wanted) or not value > 0:
                raise ValueError(f"limits.{field.name} must be a positive {field.type}, got {value!r}")
