"""The decoding process: takes jobs from a pipe, puts views into shared memory. Runs apart from the server on purpose.

It reads untrusted input, so it holds nothing confidential: no environment, no torch, no model; it can open no file and
no socket, it writes to nothing but the pipe and the slots, and its memory has a ceiling. Where the kernel permits,
`handlers.decode.sandbox` enforces this against code inside the process as well.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handlers.decode import sandbox
from handlers.decode.messages import (
    Channel,
    JobDone,
    JobFailed,
    Ready,
    SlotFreed,
    StartJob,
    VideoOpened,
    WindowDone,
    WindowsCounted,
)
from handlers.decode.shared_slots import Slots
from handlers.errors import RequestError
from handlers.limits import Limits
from handlers.specs import ModelSpec
from handlers.specs.spec_json import spec_from_json
from handlers.video.codecs import Formats, formats_of
from handlers.video.ffmpeg import cap_allocations, import_lazy_parts
from handlers.video.refusals import refused
from handlers.video.sampling import Sampling
from handlers.video.view_reader import VideoReader

_PR_SET_PDEATHSIG = 1
_JOBS_BETWEEN_TRIMS = 32
_DESCRIPTORS = 64  # where the system does not tell how many are open
_MAPPINGS = 1  # the payload: Python keeps a descriptor of its own for it
_IDLE_BYTES = 256 * 2**20  # where the system does not tell how much memory is in use
# The kernel takes a core limit of one byte as "none" also where cores go to a program, which ignores a limit of 0:
# core(5), "Piping core dumps to a program", and fs/coredump.c.
_NO_CORE = (1, 1)


class Worker:
    """One process's loop over its jobs."""

    def __init__(
        self,
        channel: Channel,
        payload_file: int,
        slots: Slots,
        spec: ModelSpec,
        limits: Limits,
        *,
        autorotate: bool,
        formats: Formats,
    ) -> None:
        self._channel, self._payload_file, self._slots = channel, payload_file, slots
        self._spec, self._limits, self._autorotate = spec, limits, autorotate
        self._formats = formats
        self._free: list[int] = []

    def run(self) -> None:
        """Until the server has gone."""
        jobs = 0
        while True:
            try:
                message = self._channel.receive()
            except EOFError:
                return
            if isinstance(message, SlotFreed):
                continue  # of an earlier job; the next job says which slots are free
            self._serve(message)
            jobs += 1
            if jobs % _JOBS_BETWEEN_TRIMS == 0:
                _give_back_memory()

    def _serve(self, job: StartJob) -> None:
        self._free = list(job.free_slots)
        size = job.payload_bytes
        mapped = mmap.mmap(self._payload_file, size, access=mmap.ACCESS_READ) if size else None
        payload = memoryview(mapped if mapped is not None else b"")
        answer: JobDone | JobFailed
        try:
            answer = self._decode(payload, job)
        except RequestError as error:
            answer = JobFailed.of(error)
        except MemoryError:
            answer = JobFailed.of(refused("memory"))
        except Exception:  # noqa: BLE001  whatever untrusted bytes provoke is that request's failure
            answer = JobFailed.of(refused("unexpected"))
        payload.release()
        gc.collect()  # pictures in reference cycles would count against the memory of the jobs to come
        if mapped is not None:
            mapped.close()
        self._channel.send(answer)

    def _decode(self, payload: memoryview, job: StartJob) -> JobDone:
        given: list[tuple[NDArray[np.float32], int]] = []

        def allocate(shape: tuple[int, ...]) -> NDArray[np.float32]:
            slot = self._take_slot()
            views = self._slots.views(slot, shape[0])
            given.append((views, slot))
            return views

        reader = VideoReader(
            payload,
            self._spec,
            self._limits,
            autorotate=self._autorotate,
            allocate=allocate,
            threads=job.threads,
            overlap=job.threads > 1,
            formats=self._formats,
        )
        try:
            self._channel.send(WindowsCounted(reader.count_windows(job.sampling)))
            is_first = True
            for done in reader.windows(job.sampling):
                if is_first:
                    self._channel.send(VideoOpened(reader.report()))
                    is_first = False
                # The reader gives back the very arrays that `allocate` gave it; so the array identifies its slot.
                at = next(at for at, (views, _) in enumerate(given) if views is done.views)
                _, slot = given.pop(at)
                window = done.window
                times = (float(window.start_sec), float(window.end_sec))
                self._channel.send(WindowDone(done.index, *times, slot, done.frame_times))
            return JobDone(reader.report())
        finally:
            reader.close()

    def _take_slot(self) -> int:
        """A free slot; waits for the server to free one where there is none."""
        while not self._free:
            message = self._channel.receive()
            assert isinstance(message, SlotFreed), "no job comes while another is under way"
            self._free.append(message.slot)
        return self._free.pop()


def main() -> None:
    """Entry point; arguments: the descriptors of pipe, payload and slots, then the settings as JSON."""
    pipe, payload_file, slots_file = (int(text) for text in sys.argv[1:4])
    settings = json.loads(sys.argv[4])
    spec, limits = spec_from_json(settings["spec"]), Limits(**settings["limits"])
    slots = Slots(slots_file, spec)
    _warm_up(spec, limits)
    _confine(limits, capped=bool(settings["capped"]))
    layers = sandbox.confine(pipe, pipe) if settings["sandbox"] else ()
    channel = Channel(pipe)
    channel.send(Ready(layers))
    autorotate, formats = bool(settings["autorotate"]), formats_of(settings["codecs"], layers)
    Worker(channel, payload_file, slots, spec, limits, autorotate=autorotate, formats=formats).run()


def _confine(limits: Limits, *, capped: bool) -> None:
    """Give up what decoding does not need, before the first untrusted byte is read."""
    gc.freeze()
    cap_allocations(limits)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, _NO_CORE)
    if capped:
        ceiling = _data_bytes() + limits.decode_memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    # The server's log takes lines that look like metrics for metrics. Standard output leads nowhere since the start;
    # until here errors went into the log.
    os.dup2(sys.stdout.fileno(), sys.stderr.fileno())
    _use_up_descriptors()


def _give_back_memory() -> None:
    """Frames of many sizes leave holes in glibc's heap, which grew by 50 MB in 2,400 jobs; this returns them."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _use_up_descriptors() -> None:
    """Leave free only what a job's mapping takes, so that nothing can be opened while untrusted bytes are decoded.

    The limit bounds a descriptor's number, not how many there are, so gaps below the highest one are filled.
    """
    descriptors = Path("/proc/self/fd")
    highest = max(int(entry.name) for entry in descriptors.iterdir()) if descriptors.is_dir() else _DESCRIPTORS
    while (filler := os.dup(0)) <= highest:
        pass
    os.close(filler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler + _MAPPINGS, filler + _MAPPINGS))


def _data_bytes() -> int:
    """Private writable memory of this process now, bytes; what RLIMIT_DATA counts (Linux 4.7 and newer)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return _IDLE_BYTES
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))


def _warm_up(spec: ModelSpec, limits: Limits) -> None:
    """Decode one frame and two broken files, so that every library that is loaded late is loaded by now."""
    import_lazy_parts()
    grey = b"YUV4MPEG2 W16 H16 F25:1 C420jpeg\nFRAME\n" + bytes([128]) * (16 * 16 * 3 // 2)
    for payload in (grey, grey[:60], b""):
        with suppress(RequestError):
            reader = VideoReader(payload, spec, limits, autorotate=True, allocate=lambda shape: np.empty(shape, "f4"))
            for _ in reader.windows(Sampling()):
                reader.report().to_json()
            reader.close()
