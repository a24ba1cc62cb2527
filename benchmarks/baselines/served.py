"""The contender `ours`: the pipeline that TorchServe's worker runs, without TorchServe."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.baselines.contender import Run, top_five
from handlers.errors import RequestError
from handlers.pipeline import VideoClassifier
from handlers.request.options import RequestOptions, VideoRequest


class Served:
    """`VideoClassifier` with the archive's own settings. `total` holds what no stage does: the way to the decoder."""

    def __init__(self, model_dir: Path) -> None:
        self._classifier = VideoClassifier.from_directory(model_dir)
        self._classifier.warm_up()

    def prepare(self, video: bytes) -> None:
        """Nothing is known beforehand."""

    def run(self, video: bytes) -> Run:
        started = time.perf_counter()
        scores = self._classifier.classify([VideoRequest(video, RequestOptions())])[0]
        total_ms = (time.perf_counter() - started) * 1e3
        if isinstance(scores, RequestError):
            raise scores
        stages = {
            "decode": scores.report.decode_ms,
            "transform": scores.report.transform_ms,
            "model": scores.inference_ms,
        }
        return Run(stages, total_ms, top_five(scores.windows[0].logits[0]))

    def describe(self) -> dict[str, str]:
        about = self._classifier.describe()
        return {key: str(about[key]) for key in ("runtime", "precision", "threads", "decoder", "isolation")}

    def close(self) -> None:
        self._classifier.close()
