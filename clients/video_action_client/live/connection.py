"""One connection to a source: encoded pictures as they come, and small files made of them. The only module that
imports av, when a source is opened: av is in the extra `video-action-client[watch]`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..errors import SourceFailed
from .cutter import LivePacket
from .parameters import ParameterSets, is_annex_b
from .source import LiveSource, without_password

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself only since Python 3.11

_WITH_SETS = ("h264", "hevc")
_BARE = ("rawvideo", "wrapped_avframe")
"""Pictures that are not encoded, as some capture devices give them; they are encoded here, once, as JPEG."""
_JPEG_PIXELS, _USUAL_RATE = "yuvj420p", 30
_JPEG_QUALITY = (2, 4)  # FFmpeg's scale: 2 is nearly without loss, 31 is the worst
# What the server's decoder takes whatever its settings (docs/protocol.md), and MPEG-1 and 2, which only `wide` has.
_CODECS = (*_WITH_SETS, "vp8", "vp9", "av1", "mpeg4", "mjpeg", "mpeg1video", "mpeg2video")
_TS_CODECS = ("mpeg1video", "mpeg2video")
_WEBM_CODECS = ("vp8", "vp9", "av1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One packet as it came. Timestamps count in `Connection.time_base`; None where the source gives none."""

    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    head: bytes
    new_parameters: object | None


class Connection:
    """An open source. Every error of av becomes a SourceFailed here; use it in one thread."""

    def __init__(self, source: LiveSource, *, timeout_sec: float) -> None:
        self._av = _av()
        self._source = source
        self._timeout_sec = timeout_sec
        self._container = self._opened(timeout_sec)
        try:
            self._stream = self._picked()
        except SourceFailed:
            self._container.close()
            raise
        context = self._stream.codec_context
        self.codec = str(self._stream.codec.canonical_name)
        self._head = bytes(context.extradata or b"")
        self._annex_b = self.codec in _WITH_SETS and is_annex_b(self._head)
        self._sets = ParameterSets(self.codec, self._head) if self._annex_b else None
        self._parameters: object | None = None
        self._jpeg = self._jpeg_encoder() if self.codec in _BARE else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    @property
    def time_base(self) -> Fraction:
        """Seconds per timestamp."""
        return Fraction(self._stream.time_base)

    @property
    def recorded_sec(self) -> float | None:
        """How long the recording is, None for what is live: a live source does not know."""
        duration = self._container.duration
        return duration / self._av.time_base if duration is not None and duration > 0 else None

    def packets(self) -> Iterator[Encoded]:
        """Until the source ends. Raises SourceFailed when it cannot be read any more."""
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    yield self._encoded(packet) if self._jpeg is None else self._as_jpeg(packet)
        except (self._av.FFmpegError, OSError) as error:
            if not isinstance(error, self._av.EOFError):
                raise SourceFailed(f"{self._source.shown} cannot be read: {self._words(error)}") from None

    def file_of(self, packets: Sequence[LivePacket]) -> bytes:
        """A video file of these packets, copied as they are; the first is a key frame, whose picture is at 0 s.

        The container is the one in which the codec's packets and the source's timestamps need no change: MPEG-TS for
        H.264 and HEVC with start codes, as RTSP and MPEG-TS carry them on a clock of 90 kHz, else MP4, which keeps any
        time base, or Matroska.
        """
        file = io.BytesIO()
        try:
            self._write(file, packets)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise SourceFailed(f"a clip of {self._source.shown} cannot be written: {self._words(error)}") from None
        return file.getvalue()

    def _write(self, file: io.BytesIO, packets: Sequence[LivePacket]) -> None:
        with self._av.open(file, "w", format=self._container_format()) as output:
            if self._jpeg is not None:
                stream = output.add_stream("mjpeg", rate=self._jpeg.framerate)
                stream.width, stream.height, stream.pix_fmt = self._jpeg.width, self._jpeg.height, _JPEG_PIXELS
            else:  # opaque: without looking for an encoder, which av has not for every codec
                stream = output.add_stream_from_template(self._stream, opaque=True)
            stream.time_base = self._stream.time_base
            before: LivePacket | None = None
            for packet, dts in zip(packets, _decoding_times(packets), strict=True):
                output.mux(self._written(packet, dts, packets[0], before, stream))
                before = packet

    def _opened(self, timeout_sec: float) -> Any:
        """The container, with the source's options, or the next ones where a device refuses them."""
        refusal = ""
        for options in (self._source.options, *self._source.other_options):
            try:
                return self._av.open(
                    self._source.address,
                    format=self._source.format,
                    options=dict(options),
                    timeout=(timeout_sec, timeout_sec),
                )
            except (self._av.FFmpegError, OSError, ValueError) as error:
                refusal = refusal or self._words(error)
        raise SourceFailed(f"{self._source.shown} cannot be opened: {refusal}")

    def _picked(self) -> Any:
        streams = [each for each in self._container.streams.video if each.codec_context is not None]
        if not streams:
            raise SourceFailed(f"{self._source.shown} has no video stream that can be read")
        stream = streams[0]
        is_device = self._source.format is not None
        if stream.codec.canonical_name not in (*_CODECS, *(_BARE if is_device else ())):
            allowed = ", ".join(_CODECS)
            raise SourceFailed(f"{self._source.shown} sends {stream.codec.canonical_name}; allowed are {allowed}")
        return stream

    def _encoded(self, packet: Any) -> Encoded:
        data, head = bytes(packet), b""
        if packet.has_sidedata("new_extradata"):
            self._parameters = packet.get_sidedata("new_extradata")
        if packet.is_keyframe and self._sets is not None:
            head = self._sets.note(data)
        return Encoded(
            data=data,
            pts=packet.pts,
            dts=packet.dts,
            duration=packet.duration or 0,
            is_key=bool(packet.is_keyframe),
            head=head,
            new_parameters=None if self._annex_b else self._parameters,
        )

    def _jpeg_encoder(self) -> Any:
        given = self._stream.codec_context
        encoder = self._av.CodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt = given.width, given.height, _JPEG_PIXELS
        encoder.time_base = self._stream.time_base
        encoder.framerate = self._stream.average_rate or _USUAL_RATE
        encoder.qmin, encoder.qmax = _JPEG_QUALITY
        return encoder

    def _as_jpeg(self, packet: Any) -> Encoded:
        assert self._jpeg is not None
        (frame,) = packet.decode()
        picture = frame.reformat(format=_JPEG_PIXELS, dst_color_range="JPEG")
        picture.pts, picture.pict_type = frame.pts, 0
        (encoded,) = self._jpeg.encode(picture)
        return Encoded(
            data=bytes(encoded),
            pts=packet.pts,
            dts=packet.pts,
            duration=packet.duration or 0,
            is_key=True,
            head=b"",
            new_parameters=None,
        )

    def _container_format(self) -> str:
        if self._annex_b or self.codec in _TS_CODECS:
            return "mpegts"
        if self.codec == "vp8" or (self.codec in _WEBM_CODECS and "matroska" in self._container.format.name):
            return "matroska"
        return "mp4"

    def _written(self, packet: LivePacket, dts: int, first: LivePacket, before: LivePacket | None, stream: Any) -> Any:
        written = self._av.Packet(packet.data if before is not None else packet.head + packet.data)
        written.stream = stream
        written.time_base = self.time_base
        written.pts, written.dts = packet.pts - first.pts, dts - first.pts
        written.duration = packet.duration
        written.is_keyframe = packet.is_key
        known = None if before is None else before.new_parameters
        if packet.new_parameters is not None and packet.new_parameters is not known:
            written.set_sidedata(packet.new_parameters)
        return written

    def _words(self, error: Exception) -> str:
        """What FFmpeg says, without the address, in which a password may be."""
        if isinstance(error, self._av.error.ExitError):  # how av ends a call that takes longer than it may
            return f"nothing came for {self._timeout_sec:g} s"
        return without_password(str(getattr(error, "strerror", None) or error))


def still() -> bytes:
    """A video of one grey picture, to ask a model what it is like."""
    av, file = _av(), io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        frame = av.VideoFrame(64, 64, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    return file.getvalue()


def _decoding_times(packets: Sequence[LivePacket]) -> list[int]:
    """For each packet a time not later than its picture's, growing: the presentation times in order, moved forward.

    What the source itself says may be missing, or be of no use after a jump.
    """
    in_order: list[int] = []
    for time in sorted(each.pts for each in packets):
        in_order.append(max(time, in_order[-1] + 1) if in_order else time)
    ahead = max(time - each.pts for time, each in zip(in_order, packets, strict=True))
    return [time - ahead for time in in_order]


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise SourceFailed(
            "watching a source needs PyAV, which is not installed: pip install 'video-action-client[watch]'"
        ) from None
    return av
