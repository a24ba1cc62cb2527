"""Bytes of a video -> packets -> frames, safely.

FFmpeg gets the format by name, cannot open other files, and may use only the codecs on a list. Which packets are
decoded, and which frames are wanted, is decided in `sampled_video`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame

from handlers.errors import UndecodableVideo
from handlers.limits import Limits
from handlers.video.codecs import UNCONFINED, Formats
from handlers.video.containers import Container, identify
from handlers.video.ffmpeg import FFmpegLog, ReadOnlyFile, av_errors
from handlers.video.picture import FrameConverter, Picture
from handlers.video.refusals import refused
from handlers.video.sampling import VideoReport

_FRAME_THREADED = frozenset({"h264", "hevc", "vp9"})  # their frames do not depend on the number of threads
_WORTH_THREADS = 640 * 480  # pixels of a frame; smaller ones are decoded sooner than threads are started

_FALLBACK_RATE = 25  # frames per second of a raw stream without that figure; FFmpeg assumes the same


class VideoFile:
    """One video, opened safely: its packets, its decoder, its frames as RGB.

    Raises RequestErrors only. Every loop over it is bounded by the limits and by the deadline. `threads` above 1 is
    for a process that decodes one video at a time: FFmpeg's log, which belongs to the process, is read then.
    """

    def __init__(
        self,
        payload: bytes | memoryview,
        limits: Limits,
        *,
        autorotate: bool = True,
        threads: int = 1,
        formats: Formats = UNCONFINED,
    ) -> None:
        self._payload, self._limits, self._formats = payload, limits, formats
        self._threads = threads
        self._complaints: FFmpegLog | None = None
        self._deadline = time.monotonic() + limits.decode_timeout_sec
        self.kind: Container = identify(payload, formats)
        self.frames_decoded = 0
        self.warnings: list[str] = []
        self._converter = FrameConverter(autorotate=autorotate)
        self._size: tuple[int, int] | None = None
        self._open()

    def close(self) -> None:
        if self._complaints is not None:
            self.reset_decoder()  # threads that still decode would wait for Python's lock to log, and closing for them
            self._complaints.close()
            self._complaints = None
        self._container.close()

    def use_one_thread(self) -> bool:
        """Begin anew with one thread; False where there never were more."""
        if self._complaints is None:
            return False
        self.close()
        self._threads = 1
        self._open()
        return True

    @property
    def is_doubtful(self) -> bool:
        """Whether several threads decode and FFmpeg complained: what it conceals depends on the number of threads."""
        return self._complaints is not None and self._complaints.any_of(self.codec)

    def extend_deadline(self, seconds: float) -> None:
        """Time that was spent waiting for others does not count as decoding."""
        self._deadline += seconds

    def check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise refused("time", allowed=self._limits.decode_timeout_sec)

    def warn(self, sentence: str) -> None:
        """Leave a sentence for the client."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    # Opening ----------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        limits = self._limits
        options = {
            "protocol_whitelist": "none",
            "format_whitelist": self.kind.demuxer,
            "codec_whitelist": ",".join(self._formats.decoders),
            "max_streams": str(limits.max_streams),
            "max_pixels": str(limits.max_frame_pixels),
            "probesize": str(limits.probe_bytes),
        }
        try:
            with av_errors():
                self._container: Any = av.open(
                    ReadOnlyFile(self._payload), format=self.kind.demuxer, options=options, metadata_errors="replace"
                )
        except UndecodableVideo as error:
            if isinstance(error.__cause__, MemoryError):  # FFmpeg's answer to too many streams, too
                raise refused("streams", allowed=limits.max_streams) from error
            raise
        self._is_fresh = True
        try:
            self._stream: Any = self._pick_stream()
        except BaseException:
            self._container.close()
            raise

    def _pick_stream(self) -> Any:
        streams = self._container.streams.video
        if not streams:
            raise refused("no_video_stream")
        stream = next((s for s in streams if not s.disposition & Disposition.attached_pic), None)
        if stream is None:
            raise refused("attached_picture")
        context = stream.codec_context
        if context is None or context.name not in self._formats.decoders:
            name = "unknown" if context is None else context.name
            raise refused("codec", codec=name, formats=self._formats.name)
        self._check_size(context.width, context.height)
        with av_errors():
            context.options = {**context.options, "max_pixels": str(self._limits.max_frame_pixels)}
            if (
                self._threads > 1
                and context.name in _FRAME_THREADED
                and context.width * context.height >= _WORTH_THREADS
            ):
                context.thread_type, context.thread_count = "FRAME", self._threads
                self._complaints = FFmpegLog()
            else:
                context.thread_type, context.thread_count = "NONE", 1
        for other in self._container.streams:
            if other is not stream:
                other.discard = Discard.all
        return stream

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_frame_pixels:
            raise refused("frame_size", width=width, height=height, allowed=self._limits.max_frame_pixels)

    # What the headers say ---------------------------------------------------------------------------------------------

    @property
    def time_base(self) -> Fraction:
        """Seconds per timestamp."""
        return Fraction(self._stream.time_base)

    @property
    def origin(self) -> int:
        """The timestamp that is second 0: the stream's start time."""
        return 0 if self.kind.elementary else int(self._stream.start_time or 0)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the decoder in use."""
        return str(self._stream.codec_context.name)

    @property
    def extradata(self) -> bytes | None:
        """The codec's own header, outside of the packets."""
        data: bytes | None = self._stream.codec_context.extradata
        return data

    @property
    def stamps_follow_decoding(self) -> bool:
        """AVI stores no presentation times: with B-frames its packets' stamps are those of the decoding order."""
        return bool(self.kind.demuxer == "avi" and self._stream.codec_context.has_b_frames)

    @property
    def stamps_may_follow_decoding(self) -> bool:
        """As above, or perhaps so: MXF stores presentation times in an index that not every program writes."""
        return self.stamps_follow_decoding or bool(
            self.kind.demuxer == "mxf" and self._stream.codec_context.has_b_frames
        )

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second that the header states or FFmpeg guessed."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return Fraction(rate) if rate else Fraction(_FALLBACK_RATE)

    def header_duration(self) -> Fraction | None:
        """Seconds that the stream's header states, as EncodedVideo computes them.

        EncodedVideo subtracts the start time from a duration that does not hold it; that is kept where it can be, but
        not where it makes the answer negative, nor for MPEG-TS, which the recipe cannot read from its start anyway.
        """
        ticks: int | None = self._stream.duration
        if ticks is None or ticks <= 0:
            return None
        from_start = (ticks - self.origin) * self.time_base
        return from_start if from_start > 0 and self.kind.demuxer != "mpegts" else ticks * self.time_base

    def container_duration(self) -> Fraction | None:
        """Seconds that the file as a whole states; a stream without a duration may have only that."""
        ticks: int | None = self._container.duration
        return Fraction(ticks, av.time_base) if ticks is not None and ticks > 0 else None

    # Packets and frames -----------------------------------------------------------------------------------------------

    def packets(self, seek_to: int | None) -> Iterator[Any]:
        """The stream's packets from the key frame before `seek_to`, or from the start; each call begins anew."""
        with av_errors():
            if seek_to is None and not self._is_fresh:
                self.close()
                self._open()
            elif seek_to is not None:
                self._container.seek(seek_to, any_frame=False, backward=True, stream=self._stream)
            self._is_fresh = False
            source = self._container.demux(self._stream)
        return self._read(source)

    def _read(self, source: Iterator[Any]) -> Iterator[Any]:
        for _ in range(self._limits.max_packets):
            with av_errors():
                packet = next(source, None)
            if packet is None:
                return
            if packet.size > 0:  # empty: a picture is shown once more (Theora), or the file ends
                yield packet
        raise refused("packets", allowed=self._limits.max_packets)

    def decode(self, packet: Any) -> list[VideoFrame]:
        """Frames that come out once this packet has gone in; None drains. Raises UndecodableVideo on damage."""
        self.check_deadline()
        with av_errors():
            frames: list[VideoFrame] = self._stream.codec_context.decode(packet)
        self.frames_decoded += len(frames)
        return frames

    def reset_decoder(self) -> None:
        """Forget what went in: before another key frame, or after draining."""
        self._stream.codec_context.flush_buffers()

    def picture(self, frame: VideoFrame) -> Picture:
        """The frame in the colours of PyAV's `to_rgb`; raises FrameTooLarge."""
        self._check_size(frame.width, frame.height)
        picture = self._converter.convert(frame)
        if self._size is None:
            self._size = picture.shown_size
        return picture

    def report(
        self, *, duration_sec: Fraction | None, decode_ms: float, transform_ms: float, plan_fallback: str | None = None
    ) -> VideoReport:
        """What was learnt about the video; call it when decoding has ended."""
        context = self._stream.codec_context
        width, height = self._size or (context.width, context.height)
        rate = self._stream.average_rate
        return VideoReport(
            duration_sec=None if duration_sec is None else float(duration_sec),
            width=width,
            height=height,
            fps=float(rate) if rate and rate > 0 else None,
            codec="av1" if context.name == "libdav1d" else context.name,
            frames_decoded=self.frames_decoded,
            decode_ms=decode_ms,
            transform_ms=transform_ms,
            plan_fallback=plan_fallback,
            warnings=tuple(self.warnings),
        )
