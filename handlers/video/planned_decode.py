"""Decoding by plan: only the packets that the wanted frames need, and a check that the decoder kept to the plan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from handlers.errors import UndecodableVideo
from handlers.video.clip_events import ClipDone, ClipsPlanned, Event, PickedFrame
from handlers.video.h264 import NonReferenceTest, non_reference_test
from handlers.video.packet_plan import PacketTable, PlanCheck, PlanMismatch, PlannedClip
from handlers.video.refusals import refused
from handlers.video.video_file import VideoFile
from handlers.video.wanted_windows import WantedWindows

_INTRA_ONLY = frozenset({"mjpeg", "ffv1", "rawvideo", "gif", "prores", "dnxhd"})
_MOST_KEPT_BYTES = 16 * 2**20  # of packets held between planning and decoding


class PlannedDecode:
    """One pass over a video whose packets determine which frames will come out."""

    def __init__(self, wanted: WantedWindows) -> None:
        self._wanted, self._file = wanted, wanted.file

    def events(self) -> Iterator[Event]:
        """The wanted frames as they come out of the decoder, between the plan and a mark at each finished clip.

        Raises PlanMismatch where packets do not determine the frames, or other frames come out. Clips that were done
        before are correct.
        """
        file, seek_to = self._file, self._wanted.seek_target()
        if file.kind.elementary:
            raise PlanMismatch("raw_stream")
        if file.stamps_follow_decoding:
            raise PlanMismatch("avi_with_b_frames")
        table, kept = scan_packets(file, self._wanted.bounds()[1], seek_to=seek_to)
        table.check_plannable()
        if file.kind.demuxer == "gif" and len(table.pts) < 2:
            raise refused("still_image")
        clips = self._wanted.plan(table.shown())
        if not clips:
            raise PlanMismatch("empty_window")
        yield ClipsPlanned(clips)
        packets = iter(kept) if kept is not None else file.packets(seek_to)
        yield from self._decode_ranges(packets, table, clips)

    def _decode_ranges(
        self, packets: Iterator[Any], table: PacketTable, clips: tuple[PlannedClip, ...]
    ) -> Iterator[Event]:
        """Decode each range of packets that is needed and pass over the others."""
        check = PlanCheck(table, clips)
        order = sorted(range(len(clips)), key=lambda position: clips[position].end)
        read = 0
        for wanted in table.intervals(set(check.places), trust_keys=self._trusts_keys(table)):
            for frame in self._decode_range(packets, read, wanted, table, check):
                pts = check.came_out(frame.pts)
                while order and clips[order[0]].end <= pts:
                    yield _checked(check, order.pop(0))
                if pts in check.places:
                    yield PickedFrame(partial(self._file.picture, frame), pts, tuple(check.places[pts]))
            read = wanted.stop
            reached = max(table.pts[wanted.start : wanted.stop])
            while order and clips[order[0]].picks[-1] <= reached:
                yield _checked(check, order.pop(0))
        if order:
            raise PlanMismatch("missing_frame")

    def _decode_range(
        self, packets: Iterator[Any], read: int, wanted: range, table: PacketTable, check: PlanCheck
    ) -> Iterator[Any]:
        """Frames of the packets in that index range, drained; `read` packets were taken before."""
        is_unreferenced = self._unreferenced_test()
        for index in range(read, wanted.stop):
            packet = next(packets, None)
            if packet is None or packet.pts != table.pts[index]:
                raise PlanMismatch("packets_changed")
            if index < wanted.start:
                continue
            if packet.pts not in check.places and is_unreferenced is not None and is_unreferenced(packet):
                continue
            # After a jump, pictures shown before the key frame lack what they refer to: they are not to be expected.
            is_leading = wanted.start > 0 and packet.pts < table.pts[wanted.start]
            if not is_leading and not table.is_discarded[index]:
                check.went_in(packet.pts)
            yield from self._decode(packet)
        yield from self._decode(None)
        self._file.reset_decoder()

    def _decode(self, packet: Any) -> list[Any]:
        try:
            frames = self._file.decode(packet)
        except UndecodableVideo as error:
            raise PlanMismatch("decode_error") from error
        if self._file.is_doubtful:
            raise PlanMismatch("damage_concealed")
        return frames

    def _trusts_keys(self, table: PacketTable) -> bool:
        """Whether key frame marks say where decoding can begin; with prediction, not every frame is a key frame."""
        return self._file.kind.seekable and (self._file.codec in _INTRA_ONLY or not all(table.is_key))

    def _unreferenced_test(self) -> NonReferenceTest | None:
        """A test for packets whose frame no other refers to, or None where that cannot be known for sure."""
        if not self._file.kind.seekable or self._file.codec != "h264":
            return None
        return non_reference_test(self._file.extradata)


def scan_packets(
    file: VideoFile, end: int | None, *, seek_to: int | None = None
) -> tuple[PacketTable, list[Any] | None]:
    """Timestamps of the packets up to `end`, and the packets themselves while they are few enough to keep.

    Decoding times only grow, and no frame is shown before it is decoded, so the first past `end` is the last.
    """
    table = PacketTable()
    kept: list[Any] | None = []
    kept_bytes = 0
    for number, packet in enumerate(file.packets(seek_to)):
        if number % 256 == 0:
            file.check_deadline()
        if end is not None and packet.dts is not None and packet.dts >= end:
            break
        table.add(packet.pts, is_key=packet.is_keyframe, is_discarded=packet.is_discard)
        if kept is not None:
            kept.append(packet)
            kept_bytes += packet.size
            if kept_bytes > _MOST_KEPT_BYTES:
                kept = None  # they are read a second time instead
    return table, kept


def _checked(check: PlanCheck, position: int) -> ClipDone:
    check.check_complete(position)
    return ClipDone(position)
