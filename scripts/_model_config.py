"""The text of an archive's model-config.yaml: every setting, its unit and its default, ready to be edited."""

from __future__ import annotations

import re
from dataclasses import fields

from handlers.limits import Limits
from handlers.specs import Head

_LIMIT_COMMENTS = {
    "max_video_bytes": "bytes of the uploaded file",
    "max_frame_pixels": "width x height of a decoded frame, pixels",
    "max_video_sec": "duration of the video, seconds",
    "max_windows": "windows (clips) of one request",
    "max_streams": "streams in the container",
    "max_packets": "packets of the video stream that may be read",
    "max_frames_per_window": "frames in one window; bounds absurd frame rates",
    "decode_timeout_sec": "wall time of decoding one request, seconds",
    "decode_memory_mb": "memory for decoding one request, MiB",
    "max_alloc_mb": "largest single allocation inside FFmpeg, MiB",
    "probe_bytes": "how far to read to find out what streams there are, bytes",
}

_TEMPLATE = """\
# Settings of the model {name}. TorchServe reads the first block, the handler the second; both when the model loads.
minWorkers: 1          # worker processes; one uses all cores (`threads`) and batches requests
maxWorkers: 1
batchSize: 8           # most requests that go through the model together
maxBatchDelay: 1       # milliseconds to wait for a batch to fill; more delays every lone request by as much
responseTimeout: 120   # seconds until a worker that does not answer is replaced
startupTimeout: 120    # seconds a worker may take to load

handler:
  spec: {spec}
  head: {head}                  # pytorchvideo | mmaction2 | pyslowfast: what these weights were trained with
  decoder: sampled              # sampled: only the wanted frames (default) | encoded_video: the documented recipe
  autorotate: true              # turn frames as the file's rotation says (default true)
  isolation: process            # process: decode in a child with limits (default) | none: in the worker
  decode_processes: 0           # decoding processes; 0 (default): one per core
  runtime: {runtime:<21} # auto (default): the fastest here | eager | compile | openvino
  precision: {precision:<19} # float32 (default, exact) | bfloat16 | float16
  threads: 0                    # threads of the model; 0 (default): all cores
  limits:                       # over one of these, a request is refused; its neighbours are not affected
{limits}
"""


def model_config(*, name: str, spec: str, head: Head, runtime: str, precision: str) -> str:
    """The YAML text; values are plain names, so nothing needs quoting."""
    defaults = Limits()
    limits = [
        f"    {field.name + ':':<23}{getattr(defaults, field.name)!r:<12} # {_LIMIT_COMMENTS[field.name]}"
        for field in fields(Limits)
    ]
    text = _TEMPLATE.format(
        name=name, spec=spec, head=head, runtime=runtime, precision=precision, limits="\n".join(limits)
    )
    return re.sub(r" +\n", "\n", text)
