"""The metrics of metrics.yaml, written through TorchServe's own cache. Names, units and dimensions are that file's."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes

from handlers.batch import failures_logged
from handlers.errors import RequestError
from handlers.request.answer import VideoScores

TOTAL_BUCKETS_SEC = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
"""Upper bounds of VideoTotalTime's buckets, up to the default of `responseTimeout`.

TorchServe's histograms end at 10 s and cannot be told otherwise, so this one is made of counters under the names that
a histogram has in Prometheus.
"""


_FLUSH_SEC = 1.0
"""How long the total times are gathered: their fifteen lines for each video would take a worker a millisecond."""


class VideoMetrics:
    """Writes one model's metrics. A metric that cannot be written is logged and fails nothing."""

    def __init__(self, cache: Any, model: str, version: str) -> None:
        self._cache, self._model, self._version = cache, model, version
        self._lock = threading.Lock()
        self._gathered: Counter[tuple[str, str]] = Counter()  # by name and bucket

    def under_way(self, requests: int) -> None:
        """How many requests of the model workers have when one begins."""
        self._observe("VideoRequestsUnderWay", requests)

    def received(self, num_bytes: int) -> None:
        """The videos of one row."""
        self._count("VideoBytesReceived", num_bytes)

    def answered(self, scores: VideoScores) -> None:
        """One video that was answered."""
        with failures_logged("the metrics of a video"):
            self._observe("VideoDecodeTime", _seconds(scores.report.decode_ms))
            self._observe("VideoTransformTime", _seconds(scores.report.transform_ms))
            self._observe("VideoInferenceTime", _seconds(scores.inference_ms))
            self._observe_total(_seconds(scores.total_ms))
            self._count("VideoFramesDecoded", scores.report.frames_decoded)
            if scores.report.plan_fallback is not None:
                self._count("VideoPlanFallbacks", 1, Reason=scores.report.plan_fallback)

    def failed(self, failures: Sequence[RequestError]) -> None:
        """One line of metrics per type, however many videos of a body failed."""
        for error_type, count in Counter(failure.type for failure in failures).items():
            self._count("VideoRequestErrors", count, ErrorType=error_type)

    def restarted(self, totals: Mapping[str, int], *, counted: Mapping[str, int]) -> Mapping[str, int]:
        """Decoding processes replaced so far, by reason, of which `counted` have been; returns what has been now."""
        for reason, total in totals.items():
            if total > counted.get(reason, 0):
                self._count("VideoDecoderRestarts", total - counted.get(reason, 0), Reason=reason)
        return dict(totals)

    def flush(self) -> None:
        """Write the total times that have been gathered."""
        with self._lock:
            gathered, self._gathered = self._gathered, Counter()
        for (name, bucket), value in gathered.items():
            self._count(name, value, **({"le": bucket} if bucket else {}))

    def _observe_total(self, seconds: float) -> None:
        """Gathered, and written by another thread a second later, so that no request waits for it."""
        buckets = [str(bound) for bound in TOTAL_BUCKETS_SEC if seconds <= bound]
        with self._lock:
            if not self._gathered:
                timer = threading.Timer(_FLUSH_SEC, self.flush)
                timer.daemon = True
                timer.start()
            self._gathered.update(("VideoTotalTime_bucket", bucket) for bucket in (*buckets, "+Inf"))
            self._gathered["VideoTotalTime_sum", ""] += seconds  # type: ignore[assignment]  # a counter may hold floats
            self._gathered["VideoTotalTime_count", ""] += 1

    def _observe(self, name: str, value: float) -> None:
        self._add(name, value, MetricTypes.HISTOGRAM, {})

    def _count(self, name: str, value: float, **labels: str) -> None:
        self._add(name, value, MetricTypes.COUNTER, labels)

    def _add(self, name: str, value: float, kind: MetricTypes, labels: Mapping[str, str]) -> None:
        # All dimensions, in the declared order: TorchServe matches values to names by position.
        named = {"ModelName": self._model, "ModelVersion": self._version, "Level": "Model", **labels}
        dimensions = [Dimension(label, text) for label, text in named.items()]
        with failures_logged("a metric"):
            # The unit is that of the file; the one named here counts for metrics that it does not have.
            self._cache.add_metric(name, value, "count", dimensions=dimensions, metric_type=kind)


def _seconds(milliseconds: float) -> float:
    return round(milliseconds / 1e3, 6)
