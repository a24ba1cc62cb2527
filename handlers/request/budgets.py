"""What the videos of one body may cost together: time, views of the model, predictions in the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from handlers.errors import InvalidOption, RequestTimeout
from handlers.limits import Limits
from handlers.request.options import RequestOptions
from handlers.video.sampling import Sampling

_EMBEDDING = 128
"""As how many predictions an embedding counts: 1,000 to 2,300 numbers of about 11 characters are as long as these."""
_EXPLAINED_VIEW = 128
"""Likewise each view of an explanation: 144 numbers of about 5 characters for x3d_xs, 4,600 for SlowFast."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One video's options and how many windows it is known to have; with a stride that number grows as it is read."""

    options: RequestOptions
    num_windows: int

    @property
    def views(self) -> int:
        return self.num_windows * self.options.sampling.num_crops

    @property
    def predictions(self) -> int:
        """Entries with a label in the answer. Only the format `full` holds those of each window."""
        if self.options.explain is not None:
            return _EXPLAINED_VIEW * self.views + self.options.top_k * self.num_windows
        each = _EMBEDDING if self.options.output == "embedding" else self.options.top_k
        return each * (self.num_windows if self.options.format == "full" else 1)


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """What is left to one request, shared by its videos. `deadline` is a reading of `time.monotonic()`, seconds.

    `planned_views` are those that its options ask for; a video with a stride, whose windows are not known before it is
    read, counts as all that is allowed.
    """

    limits: Limits
    deadline: float
    planned_views: int

    def timeout(self) -> RequestTimeout:
        return RequestTimeout(
            f"the request took longer than the {self.limits.request_timeout_sec:g} s that are allowed"
        )


def planned_windows(sampling: Sampling) -> int:
    """The windows that a video has at least, before anything of it was read."""
    return 1 if sampling.stride_sec is not None else sampling.num_clips


def planned_views(options: Iterable[RequestOptions], limits: Limits) -> int:
    """The views of one body as `Budget.planned_views` counts them."""
    return sum(
        limits.max_views if each.sampling.stride_sec is not None else each.sampling.num_clips * each.sampling.num_crops
        for each in options
    )


def check_demand(demands: Iterable[Demand], limits: Limits) -> None:
    """Raises InvalidOption when the videos of one body together ask for more than is allowed."""
    demands = list(demands)
    for what, asked, allowed in (
        ("views", sum(demand.views for demand in demands), limits.max_views),
        ("predictions", sum(demand.predictions for demand in demands), limits.max_predictions),
    ):
        if asked > allowed:
            raise InvalidOption(f"this body asks for {asked} {what} in all; at most {allowed} are allowed")
