"""One call's rows on their way through the handler, and whose failure is whose. Without TorchServe."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handlers.errors import InternalError, RequestError
from handlers.pending import PendingVideo
from handlers.request.answer import VideoScores
from handlers.request.options import VideoRequest
from handlers.request.streaming import AnswerLines
from handlers.request.wire import Envelope, Reply

logger = logging.getLogger(__name__)

Outcome = tuple[VideoRequest | RequestError, VideoScores | RequestError]
"""A video's request, or why there is none, and its scores, or why there are none."""


@dataclass(slots=True)
class Batch:
    """A row is an envelope of videos, already has its reply, or gets none (None).

    `requests`, `pending` and `scores` hold the videos of all envelopes, in order. `lines` has the answers that are
    streamed, by the number of their row.
    """

    rows: list[Envelope | Reply | None]
    requests: list[VideoRequest | RequestError]
    pending: Sequence[PendingVideo | RequestError]
    scores: Sequence[VideoScores | RequestError] = ()
    lines: dict[int, AnswerLines] = field(default_factory=dict)

    def stream(self, lines_of: Callable[[int, VideoRequest], AnswerLines]) -> None:
        """Let the rows that ask for it be answered while their windows are computed. `lines_of(row, request)`."""
        first = 0
        for index, row in enumerate(self.rows):
            if not isinstance(row, Envelope):
                continue
            video = self.pending[first]
            first += len(row.requests)
            if isinstance(video, PendingVideo) and video.request.options.stream:
                self.lines[index] = lines_of(index, video.request)
                video.on_scores = _advancing(self.lines[index])

    def outcomes(self) -> Iterator[tuple[int, Envelope | Reply | None, list[Outcome]]]:
        """Each row with its number and the outcomes of its videos."""
        videos = iter(zip(self.requests, self.scores, strict=True))
        for index, row in enumerate(self.rows):
            yield index, row, [next(videos) for _ in row.requests] if isinstance(row, Envelope) else []


def _advancing(lines: AnswerLines) -> Callable[[PendingVideo], None]:
    def advance(video: PendingVideo) -> None:
        if video.job.opened is not None and video.job.num_windows is not None:
            lines.advance(video.job.opened, video.job.num_windows, video.scores)

    return advance


def is_sequence(headers: Mapping[str, object]) -> bool:
    """Whether a row came by gRPC's StreamPredictions2, recognised by the only headers that such a row has.

    Whatever the answer, TorchServe 0.12's frontend cannot send it: that call serves models with `sequenceBatching`
    alone, and an answer for another one ends the frontend's thread for this worker for good. The frontend ends the call
    itself, with the status UNKNOWN.
    """
    names = [name for name, value in headers.items() if isinstance(value, str)]
    return bool(names) and all(name.startswith("ts_request_sequence") for name in names)


def failure_of(error: Exception) -> RequestError:
    """The error that the client gets. One that is not its own gets a generic message; the log gets type and line only,
    because values may be user data."""
    if isinstance(error, RequestError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
    logger.error("a request failed unexpectedly: %s in %s", type(error).__name__, where)
    return InternalError("the server failed on this request; try again")


@contextmanager
def failures_logged(what: str) -> Iterator[None]:
    """Logs a failure to write metrics or a reply's status, which must not fail the request."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  as above
        logger.error("%s was not written: %s", what, type(error).__name__)
