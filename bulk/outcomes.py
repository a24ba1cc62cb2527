"""One video's outcome, scores or an error, as a value that JSON and Arrow can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from handlers.errors import InvalidOption, RequestError
from handlers.request.answer import VideoScores, aggregate
from handlers.request.option_table import Average
from handlers.request.options import RequestOptions
from handlers.video.sampling import Sampling

AverageClips = Literal["prob", "score", "none"]


class MissingFile(RequestError):
    status = HTTPStatus.NOT_FOUND


class UnreadableFile(RequestError):
    """There, but not a regular file, or the disk or the permissions say no."""

    status = HTTPStatus.FORBIDDEN


class AmbiguousFile(RequestError):
    """The list's entry fits more than one file."""

    status = HTTPStatus.CONFLICT


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """What is asked of every video.

    `average` joins the views' scores as the server does, `none` keeps every view's own. `top_k` None keeps all classes.
    `by_views` also joins the views that a smaller number of clips and crops would have been; `logits` keeps what the
    model gave for each view.
    """

    sampling: Sampling = field(default_factory=Sampling)
    average: AverageClips = "prob"
    top_k: int | None = None
    by_views: bool = False
    logits: bool = False

    def request_options(self) -> RequestOptions:
        return RequestOptions(sampling=self.sampling, average="prob" if self.average == "none" else self.average)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sample:
    """Probabilities of one video, or of one of its views; highest first, ties by class id."""

    class_ids: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What was learnt about the video. Seconds, pixels, milliseconds."""

    duration_sec: float | None
    width: int
    height: int
    fps: float | None
    codec: str
    frames_decoded: int
    clips: int
    warnings: tuple[str, ...]
    decode_ms: float
    transform_ms: float
    inference_ms: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there are no scores: the error's type as on the wire, and its sentence."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Either `samples` and `facts`, or `failure`. One sample, or one per view with `average` none.

    `by_views` has a sample for some of the views, by name, as `10x1`; `logits` are (views, classes) before softmax or
    sigmoid, clips in order of time, crops within. Both are empty unless asked for.
    """

    video: str
    samples: tuple[Sample, ...] = ()
    facts: Facts | None = None
    failure: Failure | None = None
    by_views: Mapping[str, Sample] = field(default_factory=dict)
    logits: tuple[tuple[float, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Outcome:
        facts, failure = content["facts"], content["failure"]
        return cls(
            video=content["video"],
            samples=tuple(Sample(tuple(item["class_ids"]), tuple(item["scores"])) for item in content["samples"]),
            facts=None if facts is None else Facts(**{**facts, "warnings": tuple(facts["warnings"])}),
            failure=None if failure is None else Failure(**failure),
            by_views={
                name: Sample(tuple(item["class_ids"]), tuple(item["scores"]))
                for name, item in content["by_views"].items()
            },
            logits=tuple(tuple(view) for view in content["logits"]),
        )


def outcome_of(video: str, result: VideoScores | RequestError, options: ScoringOptions) -> Outcome:
    """The outcome of one result of the pipeline."""
    if isinstance(result, RequestError):
        return Outcome(video, failure=Failure(result.type, result.message))
    try:
        views = _probabilities(result, options.average)
    except RequestError as error:  # scores that are not numbers
        return Outcome(video, failure=Failure(error.type, error.message))
    return Outcome(
        video,
        samples=tuple(_sample(probabilities, options.top_k) for probabilities in views),
        facts=_facts(result),
        by_views=_by_views(result, options) if options.by_views else {},
        logits=_logits(result) if options.logits else (),
    )


def parse_views(text: str) -> Sampling:
    """`10x3`: clips x crops of one video. Raises InvalidOption."""
    clips, _, crops = text.lower().partition("x")
    if not (clips.isascii() and clips.isdigit() and int(clips) >= 1 and crops in ("1", "3")):
        raise InvalidOption(f"views must be CLIPSxCROPS with 1 or 3 crops, as in 1x1, 10x1 or 10x3; got {text!r}")
    return Sampling(num_clips=int(clips), num_crops=int(crops))


def _probabilities(scores: VideoScores, average: AverageClips) -> list[NDArray[np.float64]]:
    """One (num_classes,) array, or one per view: clips in order of time, crops within."""
    if average != "none":
        return [aggregate(scores, average)]
    return [
        aggregate(replace(scores, windows=(replace(window, logits=window.logits[crop : crop + 1]),)), "prob")
        for window in scores.windows
        for crop in range(len(window.logits))
    ]


def _by_views(scores: VideoScores, options: ScoringOptions) -> dict[str, Sample]:
    """The first clip's centre crop, and every clip's, joined as the options say; all views, too, where the options
    join none. The centre is the middle one of three crops."""
    average: Average = "prob" if options.average == "none" else options.average
    crops = len(scores.windows[0].logits)
    centre = tuple(replace(window, logits=window.logits[crops // 2 : crops // 2 + 1]) for window in scores.windows)
    parts = {"1x1": centre[:1], f"{len(centre)}x1": centre}
    all_views = f"{len(centre)}x{crops}"
    parts.pop(all_views, None)
    if options.average == "none":
        parts[all_views] = scores.windows
    return {
        name: _sample(aggregate(replace(scores, windows=windows), average), options.top_k)
        for name, windows in parts.items()
    }


def _logits(scores: VideoScores) -> tuple[tuple[float, ...], ...]:
    views = np.concatenate([window.logits for window in scores.windows])
    return tuple(tuple(float(value) for value in view) for view in views)


def _sample(probabilities: NDArray[np.float64], top_k: int | None) -> Sample:
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return Sample(tuple(int(index) for index in order), tuple(_short(probabilities[index]) for index in order))


def _short(value: float) -> float:
    """The shortest decimal that is the same float32: half the digits, nothing lost that the model knows."""
    return float(str(np.float32(value)))


def _facts(scores: VideoScores) -> Facts:
    report = scores.report
    return Facts(
        duration_sec=report.duration_sec,
        width=report.width,
        height=report.height,
        fps=report.fps,
        codec=report.codec,
        frames_decoded=report.frames_decoded,
        clips=len(scores.windows),
        warnings=tuple(report.warnings),
        decode_ms=round(report.decode_ms, 3),
        transform_ms=round(report.transform_ms, 3),
        inference_ms=round(scores.inference_ms, 3),
    )
