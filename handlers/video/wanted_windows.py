"""The wanted windows of one open video, in its timestamps: where to seek, where to end, which frames."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.video.packet_plan import PlannedClip, plan_clips, window_bounds
from handlers.video.refusals import refused
from handlers.video.sampling import Window
from handlers.video.temporal import clip_indices, stated_rate
from handlers.video.video_file import VideoFile

_SEEK_MARGIN = 1024  # timestamps; EncodedVideo seeks this far before the window


@dataclass(frozen=True, slots=True)
class WantedWindows:
    """Windows by their index in the request, and the video that they are of."""

    file: VideoFile
    spec: ModelSpec
    limits: Limits
    windows: tuple[tuple[int, Window], ...]

    def without(self, done: set[int]) -> WantedWindows:
        """Those whose index is not among these."""
        left = tuple((index, window) for index, window in self.windows if index not in done)
        return WantedWindows(self.file, self.spec, self.limits, left)

    def bounds(self) -> tuple[int, int]:
        """First and end timestamp of all windows together, `[first, end)`."""
        file = self.file
        bounds = [window_bounds(window, file.time_base, file.origin) for _, window in self.windows]
        return min(first for first, _ in bounds), max(end for _, end in bounds)

    def seek_target(self) -> int | None:
        """Where EncodedVideo would seek to; None: from the start, for lack of an index or because it is the start."""
        target = max(self.bounds()[0] - _SEEK_MARGIN, 0)
        return target if self.file.kind.seekable and target > self.file.origin else None

    def plan(self, shown: list[int]) -> tuple[PlannedClip, ...]:
        """The clips over these frames, by their sorted distinct timestamps; windows without a frame are left out.

        Raises VideoTooLong for a window of more frames than are allowed.
        """
        file, most = self.file, self.limits.max_frames_per_window
        fps = stated_rate(file.frame_rate, shown, file.time_base)
        clips = plan_clips(
            self.windows,
            shown,
            time_base=file.time_base,
            origin=file.origin,
            pick=lambda frames: clip_indices(self.spec, frames, fps),
        )
        if self.spec.temporal == "whole_video":
            return tuple(clips)  # bounded by the limits on a whole video
        for clip in clips:
            frames = bisect_left(shown, clip.end) - bisect_left(shown, clip.first)
            if frames > most:
                raise refused("frames_in_clip", frames=frames, allowed=most)
        return tuple(clips)
