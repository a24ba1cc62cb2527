"""A job in a decoding process: checks the messages about it against the job that was given."""

from __future__ import annotations

from handlers.decode.fields import MalformedMessage
from handlers.decode.messages import JobDone, JobFailed, VideoOpened, WindowDone, WindowsCounted
from handlers.decode.service import DecodeJob, Delivery
from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.video.refusals import REFUSALS, WARNINGS

_GRACE_SEC = 1.0  # the process ends its job itself at the deadline; past this it is taken to hang
_WINDOW_GRACE_SEC = 0.05  # likewise for each window: a freed slot takes a moment to be noticed on busy cores
_TIME_SLACK_SEC = 1e-6  # of a window's times, which were rounded to floats
_ERROR_FALLBACKS = frozenset({"decode_error", "damage_concealed"})  # of packet_plan.MismatchReason


def met_error(end: JobDone | JobFailed) -> bool:
    """Whether FFmpeg failed in the middle of its work on this job; our own checks stop before anything is damaged."""
    if isinstance(end, JobFailed):
        return REFUSALS[end.code].is_of_ffmpeg
    return WARNINGS["damaged"] in end.report.warnings or end.report.plan_fallback in _ERROR_FALLBACKS


class RunningJob:
    """What is known of one job, and how much longer its process may take until its next message.

    Each method raises MalformedMessage for a message that an honest process does not send.
    """

    def __init__(self, job: DecodeJob, spec: ModelSpec, limits: Limits) -> None:
        self.job, self._limits = job, limits
        # A model of whole videos gets windows of any length, but for a timeline.
        any_length = spec.temporal == "whole_video" and job.sampling.stride_sec is None
        self._clip_sec = limits.max_video_sec if any_length else spec.clip_duration_sec
        self._num_times = spec.num_frames if job.sampling.frame_times else 0
        self._seen: set[int] = set()
        self.waited_sec = 0.0

    @property
    def patience_sec(self) -> float:
        """Seconds of waiting that are left. Windows add a little; the process itself counts its working time."""
        graces = _GRACE_SEC + _WINDOW_GRACE_SEC * len(self._seen)
        return self._limits.decode_timeout_sec + graces - self.waited_sec

    def counted(self, message: WindowsCounted) -> None:
        asked, count = self.job.sampling, message.num_windows
        if self.job.num_windows is not None:
            raise MalformedMessage("the windows were counted before")
        if not 1 <= count <= self._limits.max_windows or (asked.stride_sec is None and count != asked.num_clips):
            raise MalformedMessage(f"{count} windows were not asked for")
        self.job.num_windows = count

    def opened(self, message: VideoOpened) -> None:
        if self.job.opened is not None or self.job.num_windows is None:
            raise MalformedMessage("the video was opened before, or its windows were not counted")
        self.job.opened = message.report

    def delivered(self, message: WindowDone, delivery: Delivery) -> None:
        count = self.job.num_windows
        if count is None or message.index >= count or message.index in self._seen:
            raise MalformedMessage("a window that was not asked for")
        if not self._is_inside(message.start_sec, message.end_sec):
            raise MalformedMessage("a window outside of the part that was asked for")
        if len(message.frame_times) != self._num_times:
            raise MalformedMessage(f"{len(message.frame_times)} times of frames were not asked for")
        self._seen.add(message.index)
        self.job.deliveries.append(delivery)

    def _is_inside(self, start_sec: float, end_sec: float) -> bool:
        """Whether a window lies in the part that was asked for, and is no longer than a clip."""
        asked = self.job.sampling
        latest = start_sec + self._clip_sec
        if asked.end_sec is not None:
            latest = min(latest, asked.end_sec)
        return (
            asked.start_sec - _TIME_SLACK_SEC <= start_sec <= end_sec + _TIME_SLACK_SEC <= latest + _TIME_SLACK_SEC * 2
        )
