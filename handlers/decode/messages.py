"""What the server and a decoding process tell each other: small typed messages, and how they travel on the pipe.

    server -> process    StartJob, SlotFreed
    process -> server    Ready, then for each job: WindowsCounted, WindowDone (any number), JobDone or JobFailed

A message is JSON behind a length of four bytes, never a pickle. The decoding process reads untrusted input, so the
server believes nothing that it says: `parse_from_process` checks the size, the kind and every field of a message, and
raises MalformedMessage for whatever an honest process does not send.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Never, get_args

from handlers.errors import REQUEST_ERRORS, RequestError
from handlers.video.packet_plan import MismatchReason
from handlers.video.sampling import Sampling, VideoReport

MAX_MESSAGE_BYTES = 64 * 1024
MAX_TEXT_CHARS = 1000
_MAX_WARNINGS = 16
_MAX_COUNT = 2**31
_MAX_SECONDS = 1e12
_LENGTH = struct.Struct("!I")


class MalformedMessage(Exception):
    """A decoding process said something that no honest one says."""


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
    """The process has warmed up and given up what it does not need."""


@dataclass(frozen=True, slots=True)
class WindowsCounted:
    """How many windows the video will be looked at in; said once, before the first of them."""

    num_windows: int


@dataclass(frozen=True, slots=True)
class WindowDone:
    """The views of a window are in a slot. Seconds."""

    index: int
    start_sec: float
    end_sec: float
    slot: int


@dataclass(frozen=True, slots=True)
class JobDone:
    """Every window has been delivered."""

    report: VideoReport


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The job ended with a request's error; `error` is the name of its class."""

    error: str
    text: str

    @classmethod
    def of(cls, error: RequestError) -> JobFailed:
        return cls(error.type, printable(error.message))

    def to_error(self) -> RequestError:
        return REQUEST_ERRORS[self.error](self.text)


ToProcess = StartJob | SlotFreed
FromProcess = Ready | WindowsCounted | WindowDone | JobDone | JobFailed


def printable(text: str) -> str:
    """The text as one line that fits into a message."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT_CHARS])


def encode(message: ToProcess | FromProcess) -> bytes:
    """The message as it travels: a length in four bytes, then JSON."""
    body = json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()
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


# What a process says, checked ---------------------------------------------------------------------------------------


def parse_from_process(body: bytes) -> FromProcess:
    """The message in this body; raises MalformedMessage unless every field is what an honest process sends."""
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage("not JSON") from error
    if not isinstance(content, dict):
        raise MalformedMessage("not an object")
    kind = content.pop("kind", None)
    reader = _Fields(content)
    message: FromProcess
    if kind == Ready.__name__:
        message = Ready()
    elif kind == WindowsCounted.__name__:
        message = WindowsCounted(reader.integer("num_windows"))
    elif kind == WindowDone.__name__:
        message = WindowDone(
            reader.integer("index"), reader.number("start_sec"), reader.number("end_sec"), reader.integer("slot")
        )
    elif kind == JobDone.__name__:
        message = JobDone(_report(reader.mapping("report")))
    elif kind == JobFailed.__name__:
        message = JobFailed(reader.text("error"), reader.text("text"))
        if message.error not in REQUEST_ERRORS:
            raise MalformedMessage("an unknown error")
    else:
        raise MalformedMessage("an unknown kind of message")
    reader.check_all_read()
    return message


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _report(content: dict[str, Any]) -> VideoReport:
    reader = _Fields(content)
    report = VideoReport(
        duration_sec=reader.optional_number("duration_sec"),
        width=reader.integer("width"),
        height=reader.integer("height"),
        fps=reader.optional_number("fps"),
        codec=reader.text("codec"),
        frames_decoded=reader.integer("frames_decoded"),
        decode_ms=reader.number("decode_ms"),
        transform_ms=reader.number("transform_ms"),
        plan_fallback=reader.optional_choice("plan_fallback", get_args(MismatchReason)),
        warnings=reader.texts("warnings"),
    )
    assert {field.name for field in fields(VideoReport)} == reader.names, "a field of the report is not read"
    reader.check_all_read()
    return report


class _Fields:
    """The fields of one JSON object, each taken out once and checked. Numbers are finite and not negative."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self.names: set[str] = set()

    def _take(self, name: str) -> object:
        self.names.add(name)
        if name not in self._content:
            raise MalformedMessage(f"{name} is missing")
        return self._content.pop(name)

    def check_all_read(self) -> None:
        if self._content:
            raise MalformedMessage("a field that is not known")

    def integer(self, name: str) -> int:
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_COUNT:
            raise MalformedMessage(f"{name} is no count")
        return value

    def number(self, name: str) -> float:
        value = self._take(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise MalformedMessage(f"{name} is no number")
        if not 0 <= value <= _MAX_SECONDS or not math.isfinite(value):
            raise MalformedMessage(f"{name} is out of range")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        if self._content.get(name, 0) is None:
            self._take(name)
            return None
        return self.number(name)

    def text(self, name: str) -> str:
        return _checked_text(self._take(name))

    def optional_choice(self, name: str, choices: Sequence[str]) -> str | None:
        value = self._take(name)
        if value is not None and value not in choices:
            raise MalformedMessage(f"{name} is not known")
        return next((choice for choice in choices if choice == value), None)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name)
        if not isinstance(value, list) or len(value) > _MAX_WARNINGS:
            raise MalformedMessage(f"{name} is no short list")
        return tuple(_checked_text(entry) for entry in value)

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._take(name)
        if not isinstance(value, dict):
            raise MalformedMessage(f"{name} is no object")
        return value


def _checked_text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or not value.isprintable():
        raise MalformedMessage("text that is too long or cannot be printed")
    return value
