"""One worker: batches of files -> outcomes, with the next batch decoding while the model has this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any, Protocol

from bulk.files import VideoFile
from bulk.outcomes import AmbiguousFile, MissingFile, Outcome, ScoringOptions, UnreadableFile, outcome_of
from handlers.errors import MissingVideo, RequestError, VideoTooLarge
from handlers.request.answer import VideoScores
from handlers.request.options import VideoRequest

BATCHES_IN_FLIGHT = 2
"""Batches whose decoding has begun: the one that the model has, and the next, so that the decoders never wait for a
batch to end."""


class Classifier(Protocol):
    """What is used of handlers.pipeline.VideoClassifier."""

    def prepare(self, requests: Sequence[VideoRequest | RequestError]) -> list[Any]: ...

    def score(self, pending: list[Any]) -> list[VideoScores | RequestError]: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Videos that go through the model together; `number` is its place in the run."""

    number: int
    files: tuple[VideoFile, ...]


@dataclass(frozen=True, slots=True)
class LoadedBatch:
    """A batch with its videos' bytes, or the reasons why there are none."""

    batch: Batch
    payloads: tuple[bytes | RequestError, ...]


@dataclass(frozen=True, slots=True)
class FinishedBatch:
    """Outcomes in the order of the batch's files; `made_by` says what computed them (bulk.environment)."""

    number: int
    outcomes: tuple[Outcome, ...]
    made_by: Mapping[str, Any] = field(default_factory=dict)


def make_batches(files: Sequence[VideoFile], size: int) -> list[Batch]:
    """The files in order, `size` at a time."""
    if size < 1:
        raise ValueError(f"the batch size must be at least 1, got {size}")
    return [Batch(start // size, tuple(files[start : start + size])) for start in range(0, len(files), size)]


def load_batch(batch: Batch, max_video_bytes: int) -> LoadedBatch:
    return LoadedBatch(batch, tuple(read_video(file, max_video_bytes) for file in batch.files))


def read_video(file: VideoFile, max_video_bytes: int) -> bytes | RequestError:
    """The file's bytes; a reason, as a value, when it cannot be read or is larger than a request may be."""
    if file.problem is not None:
        return AmbiguousFile(file.problem)
    try:
        return _read_uri(file.path, max_video_bytes) if "://" in file.path else _read_path(file.path, max_video_bytes)
    except RequestError as error:
        return error
    except FileNotFoundError:
        is_link = "://" not in file.path and Path(file.path).is_symlink()
        return MissingFile("this is a link to a file that does not exist" if is_link else "the file does not exist")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, an unknown URI scheme
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return UnreadableFile(f"the file cannot be read: {reason}")


def classify_batches(
    classifier: Classifier, batches: Iterable[LoadedBatch], options: ScoringOptions
) -> Iterator[FinishedBatch]:
    """Finished batches in order; `batches` is pulled ahead of them, so that decoding and the model overlap."""
    in_flight: deque[tuple[LoadedBatch, list[Any]]] = deque()
    for loaded in batches:
        in_flight.append((loaded, _prepare(classifier, loaded, options)))
        if len(in_flight) >= BATCHES_IN_FLIGHT:
            yield _score(classifier, *in_flight.popleft(), options)
    while in_flight:
        yield _score(classifier, *in_flight.popleft(), options)


def _prepare(classifier: Classifier, loaded: LoadedBatch, options: ScoringOptions) -> list[Any]:
    wanted = options.request_options()
    return classifier.prepare(
        [item if isinstance(item, RequestError) else VideoRequest(item, wanted) for item in loaded.payloads]
    )


def _score(classifier: Classifier, loaded: LoadedBatch, pending: list[Any], options: ScoringOptions) -> FinishedBatch:
    results = classifier.score(pending)
    outcomes = [
        outcome_of(file.name, result, options) for file, result in zip(loaded.batch.files, results, strict=True)
    ]
    return FinishedBatch(loaded.batch.number, tuple(outcomes))


def _read_path(path: str, max_video_bytes: int) -> bytes:
    status = Path(path).stat()
    if not S_ISREG(status.st_mode):
        raise UnreadableFile("this is not a regular file")
    _check_not_empty(status.st_size)
    _check_size(status.st_size, max_video_bytes)
    return Path(path).read_bytes()


def _read_uri(uri: str, max_video_bytes: int) -> bytes:
    """s3://, gs://, hdfs://, file://: whatever pyarrow reads."""
    try:
        from pyarrow import fs
    except ImportError:
        raise UnreadableFile("reading URIs needs pyarrow: pip install -r requirements/ray.txt") from None
    filesystem, path = fs.FileSystem.from_uri(uri)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError
    if info.type != fs.FileType.File:
        raise UnreadableFile("this is not a regular file")
    _check_not_empty(info.size)
    _check_size(info.size, max_video_bytes)
    with filesystem.open_input_file(path) as file:
        return bytes(file.read())


def _check_not_empty(size: int) -> None:
    """The server's error type for an empty body."""
    if not size:
        raise MissingVideo("the file is empty")


def _check_size(size: int, max_video_bytes: int) -> None:
    """Before reading: a file of fifty gigabytes is refused without being loaded."""
    if size > max_video_bytes:
        raise VideoTooLarge(f"the file has {size} bytes; allowed are {max_video_bytes} (limits.max_video_bytes)")
