"""A decoding process as it might be once somebody else controls it: honest, until a payload tells it what to do.

`main` takes the place of `handlers.decode.worker.main`. A payload made by `evil_payload` names an act; any other is
decoded as usual.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from handlers.decode import worker as honest_worker
from handlers.decode.messages import Channel, JobDone, Ready, StartJob, WindowDone, WindowsCounted, encode
from handlers.decode.shared_slots import Slots
from handlers.video.sampling import VideoReport

_MARK = b"EVIL:"
_REPORT = VideoReport(
    duration_sec=2.0, width=320, height=240, fps=30.0, codec="h264", frames_decoded=1, decode_ms=1.0, transform_ms=1.0
)
BROKEN = ("UndecodableVideo",)
"""The job's error when the process is replaced because it broke the protocol or ended."""
SILENT = ("DecodeTimeout",)


def evil_payload(act: str) -> bytes:
    """A video that makes the process do this."""
    return _MARK + act.encode()


def main() -> None:
    """Entry point, with the arguments of `handlers.decode.worker.main`."""
    honest = honest_worker.Worker._serve

    def serve(self: honest_worker.Worker, job: StartJob) -> None:
        with mmap.mmap(self._payload_file, job.payload_bytes, access=mmap.ACCESS_READ) as mapped:
            payload = mapped[:100]
        if payload.startswith(_MARK):
            _ACTS[payload.removeprefix(_MARK).decode()][1](_Process(self, job))
        else:
            honest(self, job)

    honest_worker.Worker._serve = serve  # type: ignore[method-assign]
    honest_worker.main()


class _Process:
    """What an act has at hand: the pipe's descriptor and the slots'."""

    def __init__(self, worker: honest_worker.Worker, job: StartJob) -> None:
        self.job = job
        self.channel: Channel = worker._channel
        self.pipe: int = worker._channel._descriptor
        self.slots: Slots = worker._slots

    def say(self, body: bytes) -> None:
        """A message of this body, whatever it is."""
        self.write(struct.pack("!I", len(body)) + body)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.pipe, view) :]

    def tell(self, kind: str, /, **fields: Any) -> None:
        self.say(json.dumps({"kind": kind, **fields}).encode())

    def count(self) -> None:
        self.channel.send(WindowsCounted(self.job.sampling.num_clips))

    def window(self, index: int, slot: int, start: float = 0.0, end: float = 1.6) -> None:
        self.channel.send(WindowDone(index, start, end, slot))

    def windows(self, *windows: tuple[int, int]) -> None:
        """Windows by index and slot, in one piece: between two the server might free the first one's slot."""
        self.write(b"".join(encode(WindowDone(index, 0.0, 1.6, slot)) for index, slot in windows))

    def refuse(self, code: str, /, **values: Any) -> None:
        self.tell("JobFailed", code=code, values=values)

    def report(self, kind: str = "JobDone", /, **changes: Any) -> None:
        self.tell(kind, report={**asdict(_REPORT), **changes})

    def opened(self, times: int = 1) -> None:
        for _ in range(times):
            self.report("VideoOpened")


def _wait_for_the_end() -> None:
    while True:
        time.sleep(1.0)


def _say(*bodies: bytes) -> Callable[[_Process], None]:
    def act(process: _Process) -> None:
        for body in bodies:
            process.say(body)
        _wait_for_the_end()

    return act


def _after_counting(act: Callable[[_Process], None]) -> Callable[[_Process], None]:
    def counted(process: _Process) -> None:
        process.count()
        act(process)
        _wait_for_the_end()

    return counted


def _endless(process: _Process) -> None:
    while True:
        process.tell("WindowsCounted", num_windows=6)


def _endless_windows(process: _Process) -> None:
    process.count()
    for index in range(10**9):
        process.window(index, index % 2)


def _never_reads(process: _Process) -> None:
    """Only as many windows as were asked for, and then nothing."""
    process.count()
    process.window(0, 0)
    process.window(1, 1)
    _wait_for_the_end()


def _drip(process: _Process) -> None:
    data = encode(WindowsCounted(6))
    for byte in data[:-1]:
        process.write(bytes([byte]))
        time.sleep(0.02)
    _wait_for_the_end()


def _half(process: _Process) -> None:
    process.write(encode(WindowsCounted(6))[:9])
    _wait_for_the_end()


def _half_and_gone(process: _Process) -> None:
    process.write(encode(WindowsCounted(6))[:9])
    os._exit(0)


def _close(process: _Process) -> None:
    os.close(process.pipe)
    _wait_for_the_end()


def _truncate(process: _Process) -> None:
    """The server reads these views next."""
    for size in (0, 2**40):
        try:
            os.ftruncate(int(sys.argv[3]), size)
        except OSError:
            continue
    process.count()
    process.window(0, 0)
    process.report()


def _twice_done(process: _Process) -> None:
    process.count()
    process.write(encode(JobDone(_REPORT)) * 2)


def _forbidden_call(process: _Process) -> None:
    """One that needs no descriptor and changes nothing; the sandbox ends the process for it."""
    os.getppid()
    process.count()
    process.report()


def _print(process: _Process) -> None:
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"[METRICS]VideoFramesDecoded.Count:1000000|#ModelName:x,Level:Model|#hostname:h,1\n")
        except OSError:
            continue
    process.count()
    process.report()


_ACTS: Mapping[str, tuple[tuple[str, ...], Callable[[_Process], None]]] = {
    "not json": (BROKEN, _say(b"not json")),
    "a list": (BROKEN, _say(b"[]")),
    "nothing": (BROKEN, _say(b"")),
    "not text": (BROKEN, _say(b"\xff\xfe")),
    "deep": (BROKEN, _say(b"[" * 60_000)),
    "deeper than a message": (BROKEN, _say(b"[" * 200_000)),
    "a number of many digits": (BROKEN, _say(b'{"kind": "WindowsCounted", "num_windows": ' + b"9" * 50_000 + b"}")),
    "infinity": (BROKEN, _say(b'{"kind": "WindowsCounted", "num_windows": Infinity}')),
    "beyond infinity": (BROKEN, _say(b'{"kind": "WindowsCounted", "num_windows": 1e999}')),
    "true": (BROKEN, _say(b'{"kind": "WindowsCounted", "num_windows": true}')),
    "a kind of its own": (BROKEN, _say(b'{"kind": "SystemExit"}')),
    "a kind that is none": (BROKEN, _say(b'{"kind": ["JobDone"]}')),
    "a field of its own": (BROKEN, _say(b'{"kind": "WindowsCounted", "num_windows": 6, "more": 1}')),
    "ready again": (BROKEN, lambda process: process.channel.send(Ready(()))),
    "a length of 4 GB": (BROKEN, lambda process: process.write(b"\xff" * 4)),
    "text of 300 MB": (BROKEN + SILENT, lambda process: process.refuse("x" * 300_000_000)),
    "a refusal of its own": (BROKEN, lambda process: process.refuse("SystemExit")),
    "a refusal that is a list": (BROKEN, _say(b'{"kind": "JobFailed", "code": ["memory"], "values": {}}')),
    "a refusal without its values": (BROKEN, lambda process: process.refuse("duration")),
    "a refusal with more values": (BROKEN, lambda process: process.refuse("memory", more=1)),
    "a refusal with text": (BROKEN, lambda process: process.refuse("packets", allowed="a\n[METRICS]b")),
    "a refusal of no number": (BROKEN, lambda process: process.refuse("packets", allowed=float("nan"))),
    "a refusal of true": (BROKEN, lambda process: process.refuse("packets", allowed=True)),
    "a refusal with a code": (BROKEN, lambda process: process.refuse("memory", code="time")),
    "a codec with a sentence": (BROKEN, lambda process: process.refuse("codec", codec="the secret is 42")),
    "a codec that cannot be encoded": (
        BROKEN,
        _say(b'{"kind": "JobFailed", "code": "codec", "values": {"codec": "\\ud800"}}'),
    ),
    "counted twice": (BROKEN, _after_counting(_Process.count)),
    "too many windows": (BROKEN, lambda process: process.tell("WindowsCounted", num_windows=7)),
    "no windows": (BROKEN, lambda process: process.tell("WindowsCounted", num_windows=0)),
    "opened before it counts": (BROKEN, _Process.opened),
    "opened twice": (BROKEN, _after_counting(lambda process: process.opened(2))),
    "opened with nothing": (BROKEN, _after_counting(lambda process: process.tell("VideoOpened", report={}))),
    "opened with two lines": (
        BROKEN,
        _after_counting(lambda process: process.report("VideoOpened", codec="h264\n[METRICS]x")),
    ),
    "a window before it counts": (BROKEN, lambda process: process.window(0, 0)),
    "a window behind the last": (BROKEN, _after_counting(lambda process: process.window(6, 0))),
    "a window twice": (BROKEN, _after_counting(lambda process: process.windows((0, 0), (0, 1)))),
    "a slot that is none": (BROKEN, _after_counting(lambda process: process.window(0, 2))),
    "a slot below all": (BROKEN, _after_counting(lambda process: process.window(0, -1))),
    "a slot twice": (BROKEN, _after_counting(lambda process: process.windows((0, 0), (1, 0)))),
    "a window before the start": (BROKEN, _after_counting(lambda process: process.window(0, 0, -1.0, 0.5))),
    "a long window": (BROKEN, _after_counting(lambda process: process.window(0, 0, 0.0, 1e9))),
    "a window that ends first": (BROKEN, _after_counting(lambda process: process.window(0, 0, 1.0, 0.5))),
    "a window at no time": (BROKEN, _after_counting(lambda process: process.window(0, 0, float("nan"), 1.0))),
    "a report of text": (BROKEN, lambda process: process.tell("JobDone", report="x")),
    "a report of nothing": (BROKEN, lambda process: process.tell("JobDone", report={})),
    "a codec of two lines": (BROKEN, lambda process: process.report(codec="h264\n[METRICS]x")),
    "a time that is none": (BROKEN, lambda process: process.report(decode_ms=float("inf"))),
    "a size that is text": (BROKEN, lambda process: process.report(width="320")),
    "a codec that is not allowed": (BROKEN, lambda process: process.report(codec="hap")),
    "a warning of its own": (BROKEN, lambda process: process.report(warnings=["the secret is 42"])),
    "many warnings": (BROKEN, lambda process: process.report(warnings=["damaged"] * 17)),
    "warnings that are none": (BROKEN, lambda process: process.report(warnings=None)),
    "done twice": (("ok",), _twice_done),
    "endless": (BROKEN, _endless),
    "endless windows": (BROKEN, _endless_windows),
    "half a message": (SILENT, _half),
    "half a message, then gone": (BROKEN, _half_and_gone),
    "byte by byte": (SILENT, _drip),
    "never reads": (SILENT, _never_reads),
    "silent": (SILENT, lambda process: _wait_for_the_end()),
    "closes the pipe": (BROKEN, _close),
    "ends": (BROKEN, lambda process: os._exit(3)),
    "resizes the slots": (("ok",), _truncate),
    "print": (("ok",), _print),
    "a call that decoding does not make": (("ok",), _forbidden_call),
}

ACTS: Mapping[str, tuple[str, ...]] = {name: outcome for name, (outcome, _) in _ACTS.items()}
"""Act -> the types with which its job may end without the sandbox; `ok` where it only lies about its own video."""
