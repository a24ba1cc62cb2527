"""Videos on their way through decoder and model, and the end of those whose request costs more than it may."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from handlers.decode.service import DecodeJob, DecodeService
from handlers.errors import InvalidOption, RequestError
from handlers.evidence import Evidence
from handlers.request.answer import WindowScores
from handlers.request.budgets import Budget, Demand, check_demand, planned_windows
from handlers.request.options import VideoRequest


@dataclass(slots=True)
class PendingVideo:
    """A video that is being decoded, and the scores of the windows that came so far.

    `budget` is shared by the videos of one request; None means no limit on what they cost together. `on_scores` is
    called whenever another window has its scores. `evidence` is there if an explanation is asked for.
    """

    request: VideoRequest
    job: DecodeJob
    started: float
    budget: Budget | None = None
    on_scores: Callable[[PendingVideo], None] | None = None
    evidence: Evidence | None = None
    scores: dict[int, WindowScores] = field(default_factory=dict)
    failure: RequestError | None = None
    inference_sec: float = 0.0
    windows_taken: int = 0
    views_begun: int = 0
    _windows_checked: int = 0
    _views_under_way: int = 0
    _since: float = 0.0

    def model_begins(self) -> None:
        """One of its views goes into the model; what several views take at the same time counts once."""
        self.views_begun += 1
        if self._views_under_way == 0:
            self._since = time.perf_counter()
        self._views_under_way += 1

    def model_ends(self, at: float) -> None:
        """One of its views came out, `at` that reading of the performance counter."""
        self._views_under_way -= 1
        if self._views_under_way == 0:
            self.inference_sec += at - self._since

    def add_scores(self, index: int, scores: WindowScores) -> None:
        """The scores of the window with that index."""
        self.scores[index] = scores
        if self.on_scores is not None and self.failure is None:
            self.on_scores(self)

    @property
    def ended(self) -> bool:
        """Whether no more views will come."""
        return self.job.ended or self.failure is not None

    @property
    def is_complete(self) -> bool:
        """Whether its outcome is known: a failure, or the scores of every window."""
        if self.failure is not None or self.job.error is not None:
            return True
        all_scored = len(self.scores) == self.windows_taken and not self.job.deliveries
        return self.job.report is not None and all_scored

    @property
    def demand(self) -> Demand:
        """What it is known to ask for, by its options, the decoder's count and the windows that came."""
        counts = (planned_windows(self.request.options.sampling), self.job.num_windows or 0, self.windows_taken)
        return Demand(self.request.options, max(counts))

    def has_grown(self) -> bool:
        """Whether more windows are known than at the last call."""
        windows = self.demand.num_windows
        grown, self._windows_checked = windows > self._windows_checked, windows
        return grown

    @property
    def may_bring_more(self) -> bool:
        """Whether views may come beyond those of one window."""
        sampling = self.request.options.sampling
        return not self.ended and (sampling.num_clips > 1 or sampling.stride_sec is not None)


def enforce_budgets(videos: Sequence[PendingVideo], decoder: DecodeService) -> None:
    """End the requests that ask for too much or have run out of time: all videos of such a request fail.

    The later a video was submitted, the sooner it is cancelled: one that waits for a decoder would otherwise be handed
    to the decoder that another one has just left.
    """
    over = _over_budget(videos)
    for video in reversed(videos) if over else ():
        if video.budget in over:
            end(video, over[video.budget], decoder)


def _over_budget(videos: Sequence[PendingVideo]) -> dict[Budget | None, RequestError]:
    """The budgets that are exceeded, with the error that their videos get."""
    now = time.monotonic()
    late = {video.budget for video in videos if video.budget and now >= video.budget.deadline and not video.is_complete}
    over: dict[Budget | None, RequestError] = {budget: budget.timeout() for budget in late}
    for budget in {video.budget for video in videos if video.budget and video.has_grown()} - late:
        try:
            check_demand((video.demand for video in videos if video.budget is budget), budget.limits)
        except InvalidOption as error:
            over[budget] = error
    return over


def time_left(videos: Sequence[PendingVideo]) -> float | None:
    """Seconds until the first deadline of a video that is not complete; None where there is none."""
    deadlines = [video.budget.deadline for video in videos if video.budget and not video.is_complete]
    return max(min(deadlines) - time.monotonic(), 0.0) if deadlines else None


def end(video: PendingVideo, failure: RequestError, decoder: DecodeService) -> None:
    """Fail a video with the first error that it met, and stop its decoding."""
    if video.failure is None:
        video.failure = failure
        decoder.cancel(video.job)
