"""The contender `floor`: the least work that leads to the answer, with nothing that makes it a service.

libav decodes only the packets that the wanted frames need, on one thread, and makes only those frames RGB; which
frames are wanted is known beforehand. Then one bare OpenVINO call on an input that is there already. No transform, no
checks, no limits, no process of its own.
"""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from benchmarks.baselines.contender import BareOpenVino, Run, Stopwatch
from handlers.model.archive_info import ArchiveInfo
from handlers.specs import get_spec
from handlers.video.transforms import subsample_indices


class Floor:
    """Decoding and model of one clip at 0 seconds."""

    def __init__(self, model_dir: Path) -> None:
        self._spec = get_spec(ArchiveInfo.read(model_dir).spec)
        self._model = BareOpenVino(model_dir)
        rng = np.random.default_rng(0)
        self._inputs = [rng.standard_normal(shape, dtype=np.float32) for shape in self._model.shapes]
        self._reformatter = VideoReformatter()
        self._wanted: set[int] = set()
        self._last_packet = 0

    def prepare(self, video: bytes) -> None:
        """Which timestamps are wanted, and after how many packets the last of them has been read."""
        with av.open(io.BytesIO(video), "r") as container:
            stream = container.streams.video[0]
            packets = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
            time_base = stream.time_base
        assert time_base is not None
        end = self._spec.clip_duration_sec / time_base
        clip_pts = sorted(pts for pts in packets if 0 <= pts < end)
        self._wanted = {clip_pts[index] for index in subsample_indices(len(clip_pts), self._spec.num_frames)}
        self._last_packet = max(index for index, pts in enumerate(packets) if pts in self._wanted)

    def run(self, video: bytes) -> Run:
        watch = Stopwatch()
        with watch.stage("decode"):
            self._decode(video)
        with watch.stage("model"):
            self._model.logits(self._inputs)
        return watch.run()

    def _decode(self, video: bytes) -> int:
        """How many wanted frames became RGB."""
        made = 0
        with av.open(io.BytesIO(video), "r") as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            context.thread_type, context.thread_count = "NONE", 1
            for index, packet in enumerate(container.demux(stream)):
                is_last = index == self._last_packet
                context.skip_frame = "DEFAULT" if packet.pts in self._wanted else "NONREF"
                for frame in [*context.decode(packet), *(context.decode(None) if is_last else ())]:
                    if frame.pts in self._wanted:
                        self._reformatter.reformat(frame, format="rgb24", threads=1)
                        made += 1
                if is_last:
                    break
        if made != len(self._wanted):
            raise RuntimeError(f"the floor decoded {made} of {len(self._wanted)} wanted frames")
        return made

    def describe(self) -> dict[str, str]:
        return {"runtime": f"openvino {self._model.version}", "precision": "float32", "decoder": "libav, one thread"}

    def close(self) -> None:
        """Nothing to give back."""
