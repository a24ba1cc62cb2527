"""Every error of the package, in one tree.

    PackageError                      base of both branches
    |-- SetupError                    wrong configuration, archive or machine: refused at load or while packaging
    |   |-- UnknownSpec
    |   |-- InvalidConfig
    |   |-- InvalidLabels
    |   |-- InvalidCheckpoint
    |   `-- RuntimeUnavailable
    `-- RequestError                  one request failed; other requests of its batch are not affected
        |-- InvalidOption        400
        |-- MissingVideo         400
        |-- InvalidEncoding      400
        |-- VideoTooLarge        413
        |-- UnsupportedVideo     415
        |-- UndecodableVideo     422
        |-- EmptyClip            422
        |-- VideoTooLong         422
        |-- FrameTooLarge        422
        |-- InternalError        503
        |-- DecodeTimeout        504
        `-- RequestTimeout       504

The class name is the `type` on the wire; the HTTP status is a class attribute. A message says what is wrong, what was
got and what is allowed, and never holds a path of the server, a header's value or a traceback.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class PackageError(Exception):
    """Base of everything this package raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SetupError(PackageError):
    """The configuration, the archive or the machine is wrong; nothing can be served."""


class UnknownSpec(SetupError):
    """No spec has this name."""


class InvalidConfig(SetupError):
    """The `handler:` section of model-config.yaml holds an unknown key or a value that is not allowed."""


class InvalidLabels(SetupError):
    """The label file is unreadable, has duplicates, or does not have one label per class."""


class InvalidCheckpoint(SetupError):
    """The checkpoint's layout, keys or shapes do not fit the spec."""


class RuntimeUnavailable(SetupError):
    """The runtime, precision or device asked for cannot work here."""


class RequestError(PackageError):
    """One request failed. `status` is its HTTP status; the class name is its `type` on the wire."""

    status: ClassVar[HTTPStatus] = HTTPStatus.SERVICE_UNAVAILABLE
    refusal: tuple[str, dict[str, float | str]] | None = None
    """Code and values of a video's refusal (`handlers.video.refusals`); None for any other error."""

    @property
    def type(self) -> str:
        return type(self).__name__

    @property
    def when(self) -> str:
        """When this type of error is raised, in the class's own words: no value of the request is in them."""
        return (type(self).__doc__ or self.type).removeprefix("Raised when ").removesuffix(".")

    def body(self) -> dict[str, int | str]:
        """The JSON body of the answer, in TorchServe's own shape."""
        return {"code": int(self.status), "type": self.type, "message": self.message}


class InvalidOption(RequestError):
    """Raised when an option is unknown, malformed, out of bounds or excluded, or a body asks for too much."""

    status = HTTPStatus.BAD_REQUEST


class MissingVideo(RequestError):
    """Raised when the request holds no video, or an empty one."""

    status = HTTPStatus.BAD_REQUEST


class InvalidEncoding(RequestError):
    """Raised when JSON, base64, a tensor or a text of the body is malformed, or a form cannot hold a video."""

    status = HTTPStatus.BAD_REQUEST


class VideoTooLarge(RequestError):
    """Raised when the file has more bytes than `max_video_bytes`."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedVideo(RequestError):
    """Raised when the bytes are no video, or their container or codec is not on the list of those that are allowed."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UndecodableVideo(RequestError):
    """Raised when no frame can be decoded, or decoding exceeds a limit of memory or ends its process."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class EmptyClip(RequestError):
    """Raised when the part of the video that was asked for holds no frame."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class VideoTooLong(RequestError):
    """Raised when the video exceeds `max_video_sec`, `max_packets` or `max_frames_per_window`."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class FrameTooLarge(RequestError):
    """Raised when a frame has more pixels than `max_frame_pixels`."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class InternalError(RequestError):
    """Raised when the server itself is at fault; the same request may succeed later."""


class DecodeTimeout(RequestError):
    """Raised when decoding one video takes longer than `decode_timeout_sec`."""

    status = HTTPStatus.GATEWAY_TIMEOUT


class RequestTimeout(RequestError):
    """Raised when a whole request, its model time included, takes longer than `request_timeout_sec`."""

    status = HTTPStatus.GATEWAY_TIMEOUT


REQUEST_ERRORS: dict[str, type[RequestError]] = {
    cls.__name__: cls
    for cls in (
        InvalidOption,
        MissingVideo,
        InvalidEncoding,
        VideoTooLarge,
        UnsupportedVideo,
        UndecodableVideo,
        EmptyClip,
        VideoTooLong,
        FrameTooLarge,
        InternalError,
        DecodeTimeout,
        RequestTimeout,
    )
}
"""Wire type -> class, for crossing a process border and for clients' tests."""
