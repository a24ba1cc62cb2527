"""What the clients return: frozen values, the same over HTTP and gRPC. Times are seconds, or ms by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import InvalidAnswer

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself only since Python 3.11

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """One class with its probability, 0 to 1."""

    label: str
    score: float
    class_id: int

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(str(entry["label"]), float(entry["score"]), int(entry["class_id"]))


@dataclass(frozen=True, slots=True)
class Clip:
    """One time span `[start_sec, end_sec)` that the model looked at, and its labels, highest score first."""

    start_sec: float
    end_sec: float
    predictions: tuple[ScoredLabel, ...]

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(float(entry["start_sec"]), float(entry["end_sec"]), _labels(entry))


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring windows with the same top label; `score` is its mean score in them."""

    start_sec: float
    end_sec: float
    label: str
    score: float

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(float(entry["start_sec"]), float(entry["end_sec"]), str(entry["label"]), float(entry["score"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What the decoder learnt about the file; None where the container does not say. `warnings` are sentences.

    `plan_fallback`: why every frame had to be decoded instead of only those that were wanted, else None.
    """

    duration_sec: float | None
    width: int
    height: int
    fps: float | None
    codec: str
    frames_decoded: int
    plan_fallback: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(
            duration_sec=_number(entry["duration_sec"]),
            width=int(entry["width"]),
            height=int(entry["height"]),
            fps=_number(entry["fps"]),
            codec=str(entry["codec"]),
            frames_decoded=int(entry["frames_decoded"]),
            plan_fallback=None if entry.get("plan_fallback") is None else str(entry["plan_fallback"]),
            warnings=tuple(str(warning) for warning in entry.get("warnings", ())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSampling:
    """The sampling that was in force, the model's own values and the defaults filled in."""

    num_frames: int
    sampling_rate: int
    clip_duration_sec: float
    start_sec: float
    end_sec: float | None
    num_clips: int
    num_crops: int
    stride_sec: float | None
    average: str

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(
            num_frames=int(entry["num_frames"]),
            sampling_rate=int(entry["sampling_rate"]),
            clip_duration_sec=float(entry["clip_duration_sec"]),
            start_sec=float(entry["start_sec"]),
            end_sec=_number(entry["end_sec"]),
            num_clips=int(entry["num_clips"]),
            num_crops=int(entry["num_crops"]),
            stride_sec=_number(entry["stride_sec"]),
            average=str(entry["average"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the server's time went, milliseconds."""

    decode_ms: float
    transform_ms: float
    inference_ms: float
    total_ms: float

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        names = ("decode", "transform", "inference", "total")
        return cls(**{f"{name}_ms": float(entry[name]) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer to one video: its labels, highest score first, with the clips, the sampling and the timing.

    `clips` are the windows behind the averaged `predictions`, those of the timeline where it has one. `answer` is
    the server's whole answer as it came.
    """

    model: str
    version: str
    predictions: tuple[ScoredLabel, ...]
    clips: tuple[Clip, ...]
    video: VideoInfo
    sampling: EffectiveSampling
    timing: Timing
    answer: Json = field(repr=False, compare=False)
    weights: str | None = None
    """Kind of the model's weights: published, checkpoint, bundled or random; None where an older archive answered."""

    @property
    def top(self) -> ScoredLabel:
        """The best label. Raises IndexError where no label reached the threshold."""
        return self.predictions[0]

    def as_dict(self) -> dict[str, float]:
        """Label -> score, highest first: the server's format `dict`."""
        return {each.label: each.score for each in self.predictions}

    @classmethod
    def from_json(cls, answer: object) -> Self:
        """Raises InvalidAnswer if that is no answer in the format `full`."""
        try:
            entry = _mapping(answer)
            common = _common(entry)
            clips = entry["timeline" if "timeline" in entry else "clips"]
            return cls(**common, clips=tuple(Clip.from_json(each) for each in clips))
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(answer, error) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The answer to one video looked at through a sliding window.

    `windows` are in order of time and may overlap; `segments` are neighbouring windows merged by top label;
    `predictions` are the averages over all windows. `answer` is the server's whole answer as it came.
    """

    model: str
    version: str
    predictions: tuple[ScoredLabel, ...]
    windows: tuple[Clip, ...]
    segments: tuple[Segment, ...]
    video: VideoInfo
    sampling: EffectiveSampling
    timing: Timing
    answer: Json = field(repr=False, compare=False)
    weights: str | None = None
    """Kind of the model's weights: published, checkpoint, bundled or random; None where an older archive answered."""

    @property
    def top(self) -> ScoredLabel:
        """The best label. Raises IndexError where no label reached the threshold."""
        return self.predictions[0]

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The windows, under the name that they have in a Prediction."""
        return self.windows

    @classmethod
    def from_json(cls, answer: object) -> Self:
        """Raises InvalidAnswer if that is no answer with a timeline."""
        try:
            entry = _mapping(answer)
            windows = tuple(Clip.from_json(each) for each in entry["timeline"])
            return cls(
                **_common(entry),
                windows=windows,
                segments=tuple(Segment.from_json(each) for each in entry["segments"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(answer, error) from None


@dataclass(frozen=True, slots=True)
class EmbeddedClip:
    """One time span `[start_sec, end_sec)` that the model looked at, and its features."""

    start_sec: float
    end_sec: float
    vector: tuple[float, ...]

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(float(entry["start_sec"]), float(entry["end_sec"]), _vector(entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """A video's features, float32 numbers: what goes into the model's last layer, averaged over its views.

    `clips` are the windows behind the average `vector`, those of the timeline where it has one. `answer` is the
    server's whole answer as it came.
    """

    model: str
    version: str
    vector: tuple[float, ...]
    clips: tuple[EmbeddedClip, ...]
    video: VideoInfo
    sampling: EffectiveSampling
    timing: Timing
    answer: Json = field(repr=False, compare=False)
    weights: str | None = None
    """Kind of the model's weights: published, checkpoint, bundled or random."""

    @property
    def length(self) -> int:
        """How many numbers `vector` has, the same for all videos of a model."""
        return len(self.vector)

    @classmethod
    def from_json(cls, answer: object) -> Self:
        """Raises InvalidAnswer if that is no embedding in the format `full`."""
        try:
            entry = _mapping(answer)
            clips = entry["timeline" if "timeline" in entry else "clips"]
            return cls(
                **_named(entry), vector=_vector(entry), clips=tuple(EmbeddedClip.from_json(each) for each in clips)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(answer, error) from None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker process; `status` is READY once it can take requests."""

    id: str
    status: str
    pid: int
    gpu: bool

    @classmethod
    def from_json(cls, entry: Json) -> Self:
        return cls(str(entry["id"]), str(entry["status"]), int(entry["pid"]), bool(entry["gpu"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One version of a served model. `metadata` is its handler's description, None where it was not asked for.

    `pending_requests` wait in the queue, which takes `remaining_capacity` more before the server answers busy.
    """

    name: str
    version: str
    archive: str
    default: bool
    workers: tuple[WorkerInfo, ...]
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    response_timeout_sec: int
    pending_requests: int
    remaining_capacity: int
    metadata: Json | None = None

    @property
    def ready(self) -> bool:
        """Whether at least one worker can take a request."""
        return any(worker.status == "READY" for worker in self.workers)

    @classmethod
    def from_json(cls, entry: Json, *, default: bool) -> Self:
        """Raises InvalidAnswer if that is no description of a model."""
        try:
            queue = entry.get("jobQueueStatus", {})
            return cls(
                name=str(entry["modelName"]),
                version=str(entry["modelVersion"]),
                archive=str(entry["modelUrl"]),
                default=default,
                workers=tuple(WorkerInfo.from_json(each) for each in entry["workers"]),
                min_workers=int(entry["minWorkers"]),
                max_workers=int(entry["maxWorkers"]),
                batch_size=int(entry["batchSize"]),
                max_batch_delay_ms=int(entry["maxBatchDelay"]),
                response_timeout_sec=int(entry["responseTimeout"]),
                pending_requests=int(queue.get("pendingRequests", 0)),
                remaining_capacity=int(queue.get("remainingCapacity", 0)),
                metadata=entry.get("customizedMetadata"),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _invalid(entry, error) from None


def _common(entry: Json) -> dict[str, Any]:
    """The fields that predictions and timelines share."""
    return {**_named(entry), "predictions": _labels(entry)}


def _named(entry: Json) -> dict[str, Any]:
    """The fields that all answers share."""
    return {
        "model": str(entry["model"]),
        "version": str(entry["version"]),
        "video": VideoInfo.from_json(entry["video"]),
        "sampling": EffectiveSampling.from_json(entry["sampling"]),
        "timing": Timing.from_json(entry["timing_ms"]),
        "answer": entry,
        "weights": None if entry.get("weights") is None else str(entry["weights"]),
    }


def _labels(entry: Json) -> tuple[ScoredLabel, ...]:
    """Empty where no label reached the threshold."""
    return tuple(ScoredLabel.from_json(each) for each in entry["predictions"])


def _vector(entry: Json) -> tuple[float, ...]:
    vector = tuple(float(number) for number in entry["embedding"])
    if len(vector) != int(entry["length"]):
        raise ValueError(f"an embedding of {len(vector)} numbers, its length is said to be {entry['length']}")
    return vector


def _mapping(value: object) -> Json:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _number(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number or null, got {value!r}")
    return float(value)


def _invalid(answer: object, error: Exception) -> InvalidAnswer:
    what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
    shown = repr(answer)
    shown = shown if len(shown) <= 120 else shown[:120] + "..."
    return InvalidAnswer(f"the answer is not one of this project's handlers: {what}, in {shown}")
