"""View scores -> aggregated probabilities -> top-k -> JSON. Or the views' features -> their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handlers.errors import InternalError
from handlers.request.explanation import Explanation, explanation_entry
from handlers.request.option_table import Average
from handlers.request.options import RequestOptions
from handlers.specs import Activation, Combine, ModelSpec
from handlers.video.sampling import VideoReport, Window

Probabilities = NDArray[np.float64]
"""(num_classes,) float64. With softmax they sum to 1; with sigmoid each class has its own, whatever the others have."""


class ViewRules(Protocol):
    """How a model's logits become probabilities, and those of several views one. A ModelSpec has them."""

    @property
    def activation(self) -> Activation: ...

    @property
    def combine(self) -> Combine: ...


@dataclass(frozen=True, slots=True)
class WindowScores:
    """One window's logits, (num_crops, num_classes) float32, before any softmax or sigmoid.

    `features`: (num_crops, length) float32, what goes into the model's last layer, where the request asks for it.
    """

    window: Window
    logits: NDArray[np.float32]
    features: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class VideoScores:
    """All windows of one video, in order, with what the decoder reported, and the model's own rules. Milliseconds.

    `explanation` is there if it was asked for.
    """

    windows: tuple[WindowScores, ...]
    report: VideoReport
    inference_ms: float
    total_ms: float
    activation: Activation = "softmax"
    combine: Combine = "mean"
    explanation: Explanation | None = None


def aggregate(scores: VideoScores, average: Average) -> Probabilities:
    """One probability per class from every view (windows x crops), all views with equal weight.

    `prob`: the mean of each view's softmax. `score`: the softmax of the mean logits. As MMAction2's `average_clips`.
    A model of sigmoid has sigmoid in its place. One that combines its views by their maximum takes each class's highest
    probability in any view, whatever `average` says (PySlowFast's ENSEMBLE_METHOD max).
    """
    return _average(np.concatenate([window.logits for window in scores.windows]), average, scores)


def _average(logits: NDArray[np.float32], average: Average, rules: ViewRules) -> Probabilities:
    """(views, num_classes) -> (num_classes,). Raises InternalError when the model gave no finite numbers."""
    if not np.isfinite(logits).all():
        raise InternalError("the model gave scores that are not finite numbers")
    exact = logits.astype(np.float64)
    activate = _sigmoid if rules.activation == "sigmoid" else _softmax
    if rules.combine == "max":
        highest: Probabilities = activate(exact).max(axis=0)
        return highest
    if average == "score":
        exact = exact.mean(axis=0, keepdims=True)
    probabilities: Probabilities = activate(exact).mean(axis=0)
    return probabilities


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """As half of 1 + tanh(x / 2), which no logit overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis, in float64, so that many classes still sum to 1."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def top_classes(probabilities: Probabilities, top_k: int) -> list[int]:
    """Class ids, highest score first; equal scores in the order of their ids."""
    return [int(index) for index in np.argsort(-probabilities, kind="stable")[:top_k]]


def render(
    scores: VideoScores,
    options: RequestOptions,
    labels: Sequence[str],
    *,
    model: str,
    version: str,
    spec: ModelSpec,
    weights: str | None = None,
    request_id: str | None = None,
) -> dict[str, Any] | list[dict[str, Any]]:
    """The answer to one request, ready for JSON, in the format and of the output that it asks for.

    `weights` is the kind of the archive's weights, so that an answer of random ones can be told; `request_id` the
    client's own. None leaves either out.
    """
    result = result_entry(scores, options, labels)
    if options.explain is not None:
        result = {**_explanation(scores, options, labels, spec), **(result if options.format == "full" else {})}
        if options.format != "full":
            return result
    elif options.output == "embedding":
        if options.format != "full":
            return result if options.format == "dict" else [result]
    elif options.format == "dict":
        return {entry["label"]: entry["score"] for entry in result["predictions"]}
    elif options.format == "list":
        return list(result["predictions"])
    windows = [window_entry(window, options, labels, scores) for window in scores.windows]
    answer = named(model=model, version=version, weights=weights, request_id=request_id)
    answer.update(result)
    if options.sampling.stride_sec is None:
        answer["clips"] = windows
    else:
        answer["timeline"] = windows
        if options.output == "scores":
            answer["segments"] = merge_segments(windows)
    answer["video"] = video_entry(scores.report)
    answer["sampling"] = sampling_entry(len(scores.windows), scores.report.duration_sec, options, spec)
    answer["timing_ms"] = timing_entry(scores)
    return answer


def _explanation(
    scores: VideoScores, options: RequestOptions, labels: Sequence[str], spec: ModelSpec
) -> dict[str, Any]:
    if scores.explanation is None or options.explain is None:
        raise InternalError("the model gave no explanation")
    class_id = scores.explanation.class_id
    return explanation_entry(
        scores.explanation,
        scores.report,
        spec,
        label=labels[class_id],
        score=float(aggregate(scores, options.average)[class_id]),
        image=options.explain.image,
    )


def named(**names: str | None) -> dict[str, Any]:
    """What the answer is of: the names that are known."""
    return {key: name for key, name in names.items() if name is not None}


def result_entry(scores: VideoScores, options: RequestOptions, labels: Sequence[str]) -> dict[str, Any]:
    """What was asked of the video as a whole: its best classes, or its features."""
    if options.output == "embedding":
        return _embedding_entry(scores.windows)
    return {"predictions": ranked(aggregate(scores, options.average), options, labels)}


def _embedding_entry(windows: Sequence[WindowScores]) -> dict[str, Any]:
    """The mean of all views' features, as float32 numbers in their shortest form, and how many there are."""
    features = [window.features for window in windows if window.features is not None]
    if len(features) < len(windows):
        raise InternalError("the model gave no features")
    mean = np.concatenate(features).astype(np.float64).mean(axis=0).astype(np.float32)
    if not np.isfinite(mean).all():
        raise InternalError("the model gave features that are not finite numbers")
    return {"embedding": [float(str(number)) for number in mean], "length": len(mean)}


def timing_entry(scores: VideoScores) -> dict[str, float]:
    """Milliseconds of each step."""
    return {
        "decode": _rounded_ms(scores.report.decode_ms),
        "transform": _rounded_ms(scores.report.transform_ms),
        "inference": _rounded_ms(scores.inference_ms),
        "total": _rounded_ms(scores.total_ms),
    }


def ranked(probabilities: Probabilities, options: RequestOptions, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The best classes, highest score first."""
    return [
        {"label": labels[index], "score": float(probabilities[index]), "class_id": index}
        for index in top_classes(probabilities, options.top_k)
        if probabilities[index] >= options.threshold
    ]


def window_entry(
    window: WindowScores, options: RequestOptions, labels: Sequence[str], rules: ViewRules
) -> dict[str, Any]:
    """One window's times and its own predictions or features."""
    times = {"start_sec": float(window.window.start_sec), "end_sec": float(window.window.end_sec)}
    if options.output == "embedding":
        return {**times, **_embedding_entry([window])}
    return {**times, "predictions": ranked(_average(window.logits, options.average, rules), options, labels)}


def merge_segments(timeline: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring windows with the same top label as one segment, from the first one's start to the last one's end.

    `score` is the mean of that label's score in them. Segments overlap where their windows do. A window without any
    label above the threshold belongs to no segment, and ends the one before it.
    """
    merger = SegmentMerger()
    segments = [closed for window in timeline if (closed := merger.add(window)) is not None]
    last = merger.open
    return segments if last is None else [*segments, last]


class SegmentMerger:
    """Merges windows as they come, in order; see `merge_segments`. `open` is the segment that may still grow."""

    def __init__(self) -> None:
        self.open: dict[str, Any] | None = None
        self._members: list[float] = []

    def add(self, window: dict[str, Any]) -> dict[str, Any] | None:
        """The segment that this window closes, if it does."""
        closed = None
        if not window["predictions"]:
            closed, self.open = self.open, None
            return closed
        top = window["predictions"][0]
        if self.open is None or self.open["label"] != top["label"]:
            closed = self.open
            self.open = {"start_sec": window["start_sec"], "end_sec": 0.0, "label": top["label"], "score": 0.0}
            self._members = []
        self._members.append(top["score"])
        self.open.update(end_sec=window["end_sec"], score=sum(self._members) / len(self._members))
        return closed


def video_entry(report: VideoReport) -> dict[str, Any]:
    """What the decoder learnt; its times are under `timing_ms`."""
    content = report.to_json()
    del content["decode_ms"], content["transform_ms"]
    content["warnings"] = list(report.warnings)
    return content


def sampling_entry(
    num_windows: int, duration_sec: float | None, options: RequestOptions, spec: ModelSpec
) -> dict[str, Any]:
    """The values that were in force, defaults and the video's own end filled in."""
    sampling = options.sampling
    ends = [end for end in (sampling.end_sec, duration_sec) if end is not None]
    return {
        "num_frames": spec.num_frames,
        "sampling_rate": spec.sampling_rate,
        "clip_duration_sec": spec.clip_duration_sec,
        "start_sec": sampling.start_sec,
        "end_sec": min(ends) if ends else None,
        "num_clips": num_windows,
        "num_crops": sampling.num_crops,
        "stride_sec": sampling.stride_sec,
        "average": options.average,
    }


def _rounded_ms(value: float) -> float:
    return round(float(value), 3)
