"""The metrics of metrics.yaml, written through TorchServe's own cache. Names, units and dimensions are that file's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

from handlers.batch import failures_logged
from handlers.errors import RequestError
from handlers.request.answer import VideoScores


class VideoMetrics:
    """Writes one model's metrics. A metric that cannot be written is logged and fails nothing."""

    def __init__(self, cache: Any, model: str) -> None:
        self._cache, self._model = cache, model

    def received(self, num_bytes: int) -> None:
        """The videos of one row."""
        self._count("VideoBytesReceived", num_bytes, "bytes")

    def answered(self, scores: VideoScores) -> None:
        """One video that was answered."""
        with failures_logged("the metrics of a video"):
            for name, milliseconds in (
                ("VideoDecodeTime", scores.report.decode_ms),
                ("VideoTransformTime", scores.report.transform_ms),
                ("VideoInferenceTime", scores.inference_ms),
                ("VideoTotalTime", scores.total_ms),
            ):
                self._add(name, round(milliseconds / 1e3, 6), "s", MetricTypes.HISTOGRAM)
            self._count("VideoFramesDecoded", scores.report.frames_decoded, "count")
            if scores.report.plan_fallback is not None:
                self._count("VideoPlanFallbacks", 1, "count", label=Dimension("Reason", scores.report.plan_fallback))

    def failed(self, failures: Sequence[RequestError]) -> None:
        """One line of metrics per type, however many videos of a body failed."""
        for error_type, count in Counter(failure.type for failure in failures).items():
            self._count("VideoRequestErrors", count, "count", label=Dimension("ErrorType", error_type))

    def _count(self, name: str, value: int, unit: str, *, label: Dimension | None = None) -> None:
        self._add(name, value, unit, MetricTypes.COUNTER, label=label)

    def _add(self, name: str, value: float, unit: str, kind: MetricTypes, *, label: Dimension | None = None) -> None:
        # All dimensions, in the declared order: TorchServe matches values to names by position.
        dimensions = [Dimension("ModelName", self._model), Dimension("Level", "Model")]
        if label is not None:
            dimensions.append(label)
        with failures_logged("a metric"):
            self._cache.add_metric(name, value, unit, dimensions=dimensions, metric_type=kind)
