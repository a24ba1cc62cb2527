"""The smallest video that every model answers: for the prediction that shows that a worker still works."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np

NUM_FRAMES, SIDE, FPS = 8, 64, 8
"""One second, so that a whole clip of any model starts inside it; some KB, some milliseconds of decoding."""


def tiny_video() -> bytes:
    """An H.264 file in mp4: a bright bar moves over a grey square."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        video: Any = output.add_stream("libx264", rate=FPS)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        for index in range(NUM_FRAMES):
            picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
            picture[:, index * 8 : index * 8 + 8] = 220
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(video.encode(None))
    return file.getvalue()
