"""The messages between the server and a decoding process, and how they travel on the pipe.

    server -> process    StartJob, SlotFreed
    process -> server    Ready, then for each job: WindowsCounted, VideoOpened, WindowDone (any number), JobDone or
                         JobFailed

A message is JSON behind a length of four bytes, never a pickle. The decoding process reads untrusted input, so the
server does not trust its messages: `parse_from_process` checks the size, the kind and every field of a message, and
raises MalformedMessage for whatever an honest process does not send.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Never, get_args

from handlers.decode.fields import Fields, MalformedMessage
from handlers.decode.sandbox import LAYERS
from handlers.errors import RequestError
from handlers.video.codecs import WIDE
from handlers.video.packet_plan import MismatchReason
from handlers.video.refusals import REFUSALS, WARNINGS, UnknownRefusal, Values, refusal_of, refused
from handlers.video.sampling import Sampling, VideoReport

MAX_MESSAGE_BYTES = 64 * 1024
_CODECS = (*WIDE.decoders, "av1")
_CODE_OF_WARNING = {sentence: code for code, sentence in WARNINGS.items()}
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class StartJob:
    """Decode the `payload_bytes` bytes of the payload file with so many FFmpeg threads.

    `free_slots` are the slots that hold no views of an earlier job.
    """

    payload_bytes: int
    threads: int
    free_slots: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class SlotFreed:
    """The views in this slot have been read."""

    slot: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The process has warmed up and given up what it does not need; the layers of its sandbox that hold."""

    sandbox: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WindowsCounted:
    """How many windows the job has; sent once, before the first of them."""

    num_windows: int


@dataclass(frozen=True, slots=True)
class VideoOpened:
    """What is known of the video when its first window is done; sent once, before that window. Counts are so far."""

    report: VideoReport


@dataclass(frozen=True, slots=True)
class WindowDone:
    """The views of a window are in a slot. Seconds; `frame_times` are those of its frames if the job asks for them."""

    index: int
    start_sec: float
    end_sec: float
    slot: int
    frame_times: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class JobDone:
    """Every window has been delivered."""

    report: VideoReport


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job ended with a refusal of `handlers.video.refusals`: its code and its values, no text."""

    code: str
    values: Values

    @classmethod
    def of(cls, error: RequestError) -> JobFailed:
        return cls(*refusal_of(error))

    def to_error(self) -> RequestError:
        return refused(self.code, **self.values)


ToProcess = StartJob | SlotFreed
FromProcess = Ready | WindowsCounted | VideoOpened | WindowDone | JobDone | JobFailed


def encode(message: ToProcess | FromProcess) -> bytes:
    """The message as it travels: a length in four bytes, then JSON."""
    content = asdict(message)
    if isinstance(message, VideoOpened | JobDone):
        content["report"]["warnings"] = [_CODE_OF_WARNING[sentence] for sentence in message.report.warnings]
    body = json.dumps({"kind": type(message).__name__, **content}).encode()
    return _LENGTH.pack(len(body)) + body


class MessageBuffer:
    """Bytes as they arrive -> the bodies of whole messages. Holds at most one unfinished message."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are whole now; raises MalformedMessage for one that is too long."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > MAX_MESSAGE_BYTES:
                raise MalformedMessage(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield body

    @property
    def is_empty(self) -> bool:
        return not self._data


class Channel:
    """The decoding process's end of the pipe: blocking, and only `read` and `write` on one descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = MessageBuffer()
        self._bodies: list[bytes] = []

    def send(self, message: FromProcess) -> None:
        data = memoryview(encode(message))
        while data:
            data = data[os.write(self._descriptor, data) :]

    def receive(self) -> ToProcess:
        """The next message; raises EOFError when the server has gone."""
        while not self._bodies:
            data = os.read(self._descriptor, MAX_MESSAGE_BYTES)
            if not data:
                raise EOFError
            self._bodies += self._buffer.feed(data)
        content = json.loads(self._bodies.pop(0))
        if content.pop("kind") == SlotFreed.__name__:
            return SlotFreed(**content)
        slots = tuple(content.pop("free_slots"))
        return StartJob(free_slots=slots, sampling=Sampling(**content.pop("sampling")), **content)


# Messages from a process, checked -------------------------------------------------------------------------------------


def parse_from_process(body: bytes) -> FromProcess:
    """The message in this body; raises MalformedMessage unless every field is what an honest process sends."""
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage("not JSON") from error
    if not isinstance(content, dict):
        raise MalformedMessage("not an object")
    kind = content.pop("kind", None)
    reader = Fields(content)
    message: FromProcess
    if kind == Ready.__name__:
        message = Ready(reader.choices("sandbox", LAYERS))
    elif kind == WindowsCounted.__name__:
        message = WindowsCounted(reader.integer("num_windows"))
    elif kind == WindowDone.__name__:
        message = WindowDone(
            reader.integer("index"),
            reader.number("start_sec"),
            reader.number("end_sec"),
            reader.integer("slot"),
            reader.numbers("frame_times"),
        )
    elif kind == VideoOpened.__name__:
        message = VideoOpened(_report(reader.mapping("report")))
    elif kind == JobDone.__name__:
        message = JobDone(_report(reader.mapping("report")))
    elif kind == JobFailed.__name__:
        message = JobFailed(reader.choice("code", tuple(REFUSALS)), reader.mapping("values"))
        try:
            message.to_error()
        except (UnknownRefusal, TypeError) as error:
            raise MalformedMessage("a refusal that is none") from error
    else:
        raise MalformedMessage("an unknown kind of message")
    reader.check_all_read()
    return message


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _report(content: dict[str, Any]) -> VideoReport:
    reader = Fields(content)
    report = VideoReport(
        duration_sec=reader.optional_number("duration_sec"),
        width=reader.integer("width"),
        height=reader.integer("height"),
        fps=reader.optional_number("fps"),
        codec=reader.choice("codec", _CODECS),
        frames_decoded=reader.integer("frames_decoded"),
        decode_ms=reader.number("decode_ms"),
        transform_ms=reader.number("transform_ms"),
        plan_fallback=reader.optional_choice("plan_fallback", get_args(MismatchReason)),
        warnings=tuple(WARNINGS[code] for code in reader.choices("warnings", tuple(WARNINGS))),
    )
    assert {field.name for field in fields(VideoReport)} == reader.names, "a field of the report is not read"
    reader.check_all_read()
    return report
