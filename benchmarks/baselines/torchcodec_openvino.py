"""The contender `torchcodec`: torchcodec, torchvision and OpenVINO put together as well as their documentation allows.

torchcodec seeks approximately, which is exact for these videos of constant frame rate and spares it a scan, and decodes
the picked frames alone; torchvision resizes them as uint8; OpenVINO runs the same converted model. FFmpeg threads: one,
or as many as FFmpeg likes, whichever is faster on the video, tried before the measurement.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2 import functional

from benchmarks.baselines.contender import BareOpenVino, ContenderAbsent, Run, Stopwatch, top_five
from handlers.model.archive_info import ArchiveInfo
from handlers.specs import get_spec
from handlers.video.transforms import scaled_size, slow_indices, subsample_indices

_TRIES = 3


class TorchcodecOpenVino:
    """Decode, resize, crop, normalise, infer."""

    def __init__(self, model_dir: Path) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError, OSError) as error:
            raise ContenderAbsent(f"torchcodec does not load: {_first_line(error)}") from error
        self._decoder: Any = VideoDecoder
        self._spec = get_spec(ArchiveInfo.read(model_dir).spec)
        self._model = BareOpenVino(model_dir)
        self._threads = 1

    def prepare(self, video: bytes) -> None:
        """Picks the number of FFmpeg threads."""
        self._threads = min((1, 0), key=lambda threads: self._decode_sec(video, threads))

    def run(self, video: bytes) -> Run:
        watch = Stopwatch()
        with watch.stage("decode"):
            clip = self._decode(video, self._threads)
        with watch.stage("transform"):
            views = self._transform(clip)
        with watch.stage("model"):
            logits = self._model.logits([view.numpy() for view in views])
        return watch.run(top_five(logits))

    def _decode_sec(self, video: bytes, threads: int) -> float:
        times = []
        for _ in range(_TRIES):
            started = time.perf_counter()
            self._decode(video, threads)
            times.append(time.perf_counter() - started)
        return min(times)

    def _decode(self, video: bytes, threads: int) -> torch.Tensor:
        """The picked frames, (T, 3, H, W) uint8."""
        try:
            decoder = self._decoder(video, seek_mode="approximate", num_ffmpeg_threads=threads)
        except RuntimeError as error:
            raise ContenderAbsent(f"torchcodec does not work: {_first_line(error)}") from error
        in_window = int(-(-self._spec.clip_duration_sec * decoder.metadata.average_fps // 1))
        in_window = min(in_window, decoder.metadata.num_frames)
        frames: torch.Tensor = decoder.get_frames_at(subsample_indices(in_window, self._spec.num_frames).tolist()).data
        return frames

    def _transform(self, clip: torch.Tensor) -> list[torch.Tensor]:
        """(1, 3, T, S, S) float32 per pathway."""
        spec = self._spec
        size = list(scaled_size(clip.shape[2], clip.shape[3], spec.short_side))
        small = functional.center_crop(functional.resize(clip, size, antialias=False), [spec.crop_size] * 2)
        scaled = small.float().mul_(1 / (255 * spec.std[0])).sub_(spec.mean[0] / spec.std[0])
        view = scaled.transpose(0, 1)[None].contiguous()
        if spec.alpha is None:
            return [view]
        return [view[:, :, torch.from_numpy(slow_indices(spec.num_frames, spec.alpha))].contiguous(), view]

    def describe(self) -> dict[str, str]:
        import torchcodec

        return {
            "runtime": f"openvino {self._model.version}",
            "precision": "float32",
            "decoder": f"torchcodec {torchcodec.__version__}, FFmpeg threads {self._threads or 'auto'}",
        }

    def close(self) -> None:
        """Nothing to give back."""


def _first_line(error: BaseException) -> str:
    """The first sentence of a message that may be very long."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
