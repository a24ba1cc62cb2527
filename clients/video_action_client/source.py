"""The video to be sent: a path, bytes or an open file, readable again for each attempt."""

from __future__ import annotations

import mimetypes
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .errors import UnreadableVideo

Video = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""What `classify` takes: a path, the bytes of a video file, or a file opened in binary mode."""

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "asf", "avi", "divx", "f4v", "flv", "gif", "ivf", "m1v", "m2ts", "m2v", "m4v", "mjpeg", "mjpg"),
        *("mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "ogg", "ogm", "ogv", "ts", "vob", "webm", "wmv"),
        *("y4m",),
    )
)
"""Which files of a folder are taken for videos. A file that is named itself is sent whatever its name."""

_BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes that can be sent several times. Files are streamed from disk, never read whole for HTTP.

    An open file is sent from its position to its end; one that cannot seek, such as a pipe, is read into memory.
    """

    content: Path | bytes | IO[bytes]
    start: int = 0
    name: str = ""

    @classmethod
    def of(cls, video: Video) -> Source:
        """Raises UnreadableVideo where a path names no readable file, TypeError for anything else."""
        if isinstance(video, bytes | bytearray | memoryview):
            return cls(bytes(video))
        if isinstance(video, str | os.PathLike):
            path = Path(video)
            if not path.is_file():
                missing = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
                what = "is a folder" if path.is_dir() else missing
                raise UnreadableVideo(f"{path} {what}; a video file is needed")
            return cls(path, name=path.name)
        if hasattr(video, "read"):
            name = Path(video.name).name if isinstance(getattr(video, "name", None), str) else ""
            return cls(video, video.tell(), name) if video.seekable() else cls(video.read(), name=name)
        raise TypeError(f"video must be a path, bytes or a binary file, got {type(video).__name__}")

    @property
    def content_type(self) -> str:
        """Always explicit: without one TorchServe takes the body for a form.

        Only video and image types are guessed from the name: TorchServe itself would parse JSON and decode text.
        """
        guessed = mimetypes.guess_type(self.name)[0] or _BINARY
        return guessed if guessed.startswith(("video/", "image/")) else _BINARY

    def stream(self) -> AbstractContextManager[IO[bytes] | bytes]:
        """The bytes, from the beginning: a binary file where they come from one. Closes what it opened itself."""
        if isinstance(self.content, bytes):
            return nullcontext(self.content)
        if isinstance(self.content, Path):
            try:
                return self.content.open("rb")
            except OSError as error:
                raise UnreadableVideo(f"{self.content} cannot be read: {error.strerror}") from None
        self.content.seek(self.start)
        return nullcontext(self.content)

    def size(self) -> int:
        """Bytes that `stream` yields."""
        if isinstance(self.content, bytes):
            return len(self.content)
        if isinstance(self.content, Path):
            return self.content.stat().st_size
        end = self.content.seek(0, os.SEEK_END)
        self.content.seek(self.start)
        return end - self.start

    def read(self) -> bytes:
        """The whole content, for transports that cannot stream."""
        with self.stream() as content:
            return content if isinstance(content, bytes) else content.read()
