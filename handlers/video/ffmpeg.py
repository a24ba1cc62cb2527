"""FFmpeg's libraries as one process has them: their errors, their log, their memory, and the file that they read.

With `video_file` and `picture` the only module that imports av.
"""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame

from handlers.limits import Limits
from handlers.video.refusals import refused

_PADDING_BYTES = 2**20


class FFmpegLog:
    """FFmpeg's log from now on: what PyAV does not pass on in another way, such as that damage was concealed."""

    def __init__(self) -> None:
        self._capture = av.logging.Capture(local=False)
        self._lines: list[tuple[int, str, str]] = self._capture.__enter__()
        av.logging.set_level(av.logging.INFO)

    def any_of(self, codec: str) -> bool:
        """Whether this decoder said anything since the last call."""
        said = any(name == codec for _, name, _ in self._lines)
        self._lines.clear()
        return said

    def close(self) -> None:
        av.logging.set_level(None)
        self._capture.__exit__(None, None, None)


class ReadOnlyFile:
    """A nameless file over a buffer, without copying it; FFmpeg sees no name, so it cannot guess from one."""

    def __init__(self, payload: bytes | memoryview) -> None:
        self._view, self._at = memoryview(payload), 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size < 0 else min(self._at + size, len(self._view))
        data = bytes(self._view[self._at : end])
        self._at = max(self._at, end)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._at, len(self._view))[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at


@contextmanager
def av_errors() -> Iterator[None]:
    """The one border where FFmpeg's errors become RequestErrors.

    Only what FFmpeg itself reports is the video's fault. A plain ValueError or OSError is a defect of this package or
    of PyAV, and passes.
    """
    try:
        yield
    except MemoryError as error:
        raise refused("memory") from error
    except av.error.FFmpegError as error:
        raise refused("ffmpeg", errno=abs(error.errno or 0)) from error


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of the frame's display matrix, row by row, or None where it has none.

    Reading a frame's side data fails in PyAV 18 as soon as one entry has a type that is newer than PyAV, such as the
    view number of a spatial video. `_accept_new_side_data` lets such entries pass.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else tuple(int(value) for value in np.frombuffer(bytes(data), dtype="<i4"))


def _accept_new_side_data(kind: type[SideDataType], value: object) -> SideDataType | None:
    """Enum's own hook for a value that it does not know: a nameless member instead of a ValueError."""
    if not isinstance(value, int):
        return None
    member: Any = object.__new__(kind)
    member._name_, member._value_ = f"TYPE_{value}", value
    accepted: SideDataType = member
    return accepted


SideDataType._missing_ = classmethod(_accept_new_side_data)  # type: ignore[assignment]


def cap_allocations(limits: Limits) -> bool:
    """Bound each allocation inside FFmpeg (`av_max_alloc`); False where its libavutil cannot be found.

    A lying index then fails while it is read instead of taking gigabytes: nothing else can stop it, because the table
    is allocated inside `av.open`. Pictures still fit: 4 bytes per pixel cover every allowed format and RGBA, but
    for what rows are padded with.
    """
    ceiling = max(limits.max_alloc_mb * 2**20, 4 * limits.max_frame_pixels + _PADDING_BYTES)
    for library in _libavutil():
        try:
            ctypes.CDLL(str(library)).av_max_alloc(ctypes.c_size_t(ceiling))
        except (OSError, AttributeError):
            continue
        return True
    return False


def import_lazy_parts() -> None:
    """Import what PyAV otherwise imports while it decodes, when no file may be opened any more."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in ("av.datasets", "av.__main__"):
            importlib.import_module(module.name)


def _libavutil() -> list[Path]:
    root = Path(av.__file__).parent
    patterns = ("../av.libs/libavutil*", ".dylibs/libavutil*")
    return [path for pattern in patterns for path in root.glob(pattern)]
