"""The text of an archive's model-config.yaml: every setting with its unit and its default, ready to be edited."""

from __future__ import annotations

from dataclasses import fields

from handlers.config import HandlerConfig
from handlers.limits import Limits
from handlers.specs import Head

_LIMITS = {
    "max_video_bytes": "bytes of the uploaded file",
    "max_frame_pixels": "width x height of a decoded frame, pixels",
    "max_video_sec": "duration of the video, seconds",
    "max_windows": "windows (clips) of one video",
    "max_videos": "videos in one body",
    "max_views": "views (windows x crops) of all videos in one body",
    "max_predictions": "predictions (windows x top_k) in the answer to one body",
    "request_timeout_sec": "wall time of one request, seconds; smaller than responseTimeout",
    "max_streams": "streams in the container",
    "max_packets": "packets of the video stream that may be read",
    "max_frames_per_window": "frames in one window; bounds absurd frame rates",
    "decode_timeout_sec": "wall time of decoding one request, seconds",
    "decode_memory_mb": "memory for decoding one request, MiB",
    "max_alloc_mb": "largest single allocation inside FFmpeg, MiB",
    "probe_bytes": "how far to read to find out what streams there are, bytes",
}

_SERVER = {
    "minWorkers: 1": "worker processes; one uses all cores (`threads`) and batches requests",
    "maxWorkers: 1": "on a machine with several GPUs: one per GPU",
    "batchSize: 8": "most requests that go through the model together",
    "maxBatchDelay: 1": "milliseconds to wait for a batch to fill; every lone request waits as long",
    "responseTimeout: 120": "seconds after which a worker that does not answer is replaced",
    "startupTimeout: 120": "seconds a worker may take to load",
}
_HANDLER = {
    "spec": "the model: architecture and preprocessing; the archive's weights belong to it",
    "head": "how positions are averaged: pytorchvideo | mmaction2 | pyslowfast, as these weights were trained",
    "decoder": "sampled (default): only the frames wanted | encoded_video: the documented recipe, literally",
    "autorotate": "true (default): turn frames as the file's rotation says",
    "isolation": "process (default): decode in a child process with limits | none: in the worker",
    "sandbox": "auto (default): confine decoding processes as far as the system permits | required | none",
    "decode_processes": "decoding processes; 0 (default): one per core",
    "runtime": "auto (default): the fastest that is installed | eager | compile | openvino",
    "precision": "float32 (default, exact) | bfloat16 | float16 (GPU)",
    "threads": "threads of the model; 0 (default): one per core",
}


def model_config(*, name: str, spec: str, head: Head, runtime: str, precision: str) -> str:
    """The YAML text; values are plain names and numbers, so nothing needs quoting."""
    chosen: dict[str, object] = {"spec": spec, "head": head, "runtime": runtime, "precision": precision}
    defaults, limits = HandlerConfig(spec=spec), Limits()
    lines = [f"# Settings of the model {name}, read when it loads: TorchServe's own first, then the handler's."]
    lines += [f"{setting:<24}# {comment}" for setting, comment in _SERVER.items()]
    lines += ["", "handler:"]
    for key in (field.name for field in fields(HandlerConfig) if field.name != "limits"):
        setting = f"{key}: {_yaml(chosen.get(key, getattr(defaults, key)))}"
        lines.append(f"  {setting:<28}# {_HANDLER[key]}")
    lines.append(f"  {'limits:':<28}# over one of these a request is refused; others are not affected")
    for field in fields(Limits):
        setting = f"{field.name}: {_yaml(getattr(limits, field.name))}"
        lines.append(f"    {setting:<32}# {_LIMITS[field.name]}")
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
