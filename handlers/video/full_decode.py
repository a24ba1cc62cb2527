"""Decoding everything, twice: once for each frame's timestamp, once for the frames that are picked.

For videos whose packets do not determine which frames come out: raw streams, missing or repeated timestamps, damage. It
holds one RGB frame at a time, as decoding by plan does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import Any

from handlers.errors import UndecodableVideo
from handlers.video.clip_events import ClipDone, ClipsPlanned, Event, PickedFrame
from handlers.video.packet_plan import places_of
from handlers.video.refusals import WARNINGS, refused
from handlers.video.wanted_windows import WantedWindows

_REORDER_FRAMES = 32  # more than any codec here may delay a frame: H.264 and HEVC allow 16


class FullDecode:
    """Two passes over every frame from the first window to the last."""

    def __init__(self, wanted: WantedWindows) -> None:
        self._wanted, self._file = wanted, wanted.file

    def events(self, *, may_be_empty: bool) -> Iterator[Event]:
        """The same events as decoding by plan gives.

        `may_be_empty`: other windows of this request had frames, so that it is no error if these have none. Otherwise
        that is an EmptyClip, or an UndecodableVideo where no frame at all could be decoded.
        """
        stamps = self._output_stamps()
        clips = self._wanted.plan(sorted({stamp for stamp in stamps if stamp is not None}))
        if not clips:
            if not may_be_empty:
                self._raise_empty(stamps)
            return
        yield ClipsPlanned(clips)
        places = places_of(clips)
        last_output = {stamp: number for number, stamp in enumerate(stamps)}  # of equal stamps the last one wins
        # Where stamps contradict the order of output, the pick with the largest stamp is not the one that comes last.
        complete_at = [max(last_output[pts] for pts in clip.picks) for clip in clips]
        order = sorted(range(len(clips)), key=complete_at.__getitem__)
        for number, frame in enumerate(self._decode_all()):
            stamp = stamps[number] if number < len(stamps) else None
            if stamp in places and last_output[stamp] == number:
                yield PickedFrame(partial(self._file.picture, frame), stamp, tuple(places[stamp]))
            while order and complete_at[order[0]] <= number:
                yield ClipDone(order.pop(0))
            if not order:
                return
        raise refused("unstable")

    def _raise_empty(self, stamps: list[int | None]) -> None:
        if not stamps and self._wanted.seek_target() is None:
            raise refused("no_frame")
        windows = self._wanted.windows
        start, end = float(windows[0][1].start_sec), float(windows[-1][1].end_sec)
        raise refused("empty_part", start=start, end=end)

    def _output_stamps(self) -> list[int | None]:
        """Each output frame's timestamp, in output order, until the windows' end; made up from the rate if missing."""
        file, limits, (first, end) = self._file, self._wanted.limits, self._wanted.bounds()
        most_inside = limits.max_frames_per_window * len(self._wanted.windows)
        if self._wanted.spec.temporal == "whole_video":
            most_inside = limits.max_packets
        step = Fraction(1) / (file.frame_rate * file.time_base)
        stamps: list[int | None] = []
        inside = past_end = 0
        for number, frame in enumerate(self._decode_all()):
            if number >= limits.max_packets:
                raise refused("frames_before", allowed=limits.max_packets)
            stamp = file.origin + math.floor(number * step) if file.kind.elementary else frame.pts
            past_end += stamp is not None and stamp >= end
            inside += stamp is None or stamp >= first
            if inside > most_inside:
                raise refused("frames_inside", allowed=most_inside)
            if past_end > (_REORDER_FRAMES if file.stamps_may_follow_decoding else 0):
                break
            stamps.append(stamp)
        known = [stamp for stamp in stamps if stamp is not None]
        if file.stamps_may_follow_decoding and known != sorted(known):
            dealt: list[int | None] = [*sorted(known)]
            return dealt  # keep the decoder's order, and assign the packets' sorted stamps to it
        return stamps

    def _decode_all(self) -> Iterator[Any]:
        """Every frame from the seek point on; a decode error ends the video there and leaves a warning."""
        packets = self._file.packets(self._wanted.seek_target())
        self._file.reset_decoder()
        try:
            for packet in packets:
                yield from self._file.decode(packet)
            yield from self._file.decode(None)
        except UndecodableVideo:
            self._file.warn(WARNINGS["damaged"])
