"""Every error of the clients, in one tree.

    ClientError                       base of all
    |-- ConnectionFailed              no server at the address, or the connection was lost
    |-- RequestTimeout                no answer in time
    |-- KeyUnavailable                the key file is missing or unreadable, or cannot be renewed
    |-- UnreadableVideo               the file to be sent cannot be read
    |-- SourceFailed                  a live source cannot be opened, or was lost for good
    |-- InvalidAnswer                 the server answered with something else than this client expects
    `-- ApiError                      the server refused; `status` and `type` are those of its answer
        |-- RequestError              the model's handler refused this one video
        |   |-- InvalidOption    400
        |   |-- MissingVideo     400
        |   |-- InvalidEncoding  400
        |   |-- VideoTooLarge    413
        |   |-- UnsupportedVideo 415
        |   |-- UndecodableVideo 422
        |   |-- EmptyClip        422
        |   |-- VideoTooLong     422
        |   |-- FrameTooLarge    422
        |   |-- InternalError    503
        |   |-- DecodeTimeout    504
        |   `-- TimeLimitExceeded 504 `RequestTimeout` on the wire
        `-- ServingError              TorchServe itself refused, before or instead of the handler
            |-- InvalidKey       400  the key is missing, wrong or expired
            |-- BadRequest       400
            |-- ModelNotFound    404  the model, its version or its archive
            |-- Conflict         409  that version is registered already
            |-- ServerBusy       503  no worker, or its queue is full
            `-- PredictionFailed 503  the worker failed or died

The same exception is raised for the same refusal over HTTP and over gRPC.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar


class ClientError(Exception):
    """Base of everything the clients raise on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConnectionFailed(ClientError):
    """No answer came. `sent` is False when it is certain that the request never reached the server."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class RequestTimeout(ClientError):
    """The server did not answer in time; it may still be working on the request."""


class KeyUnavailable(ClientError):
    """The key file is missing or unreadable, or its keys cannot be renewed."""


class UnreadableVideo(ClientError):
    """The file to be sent does not exist or cannot be read."""


class SourceFailed(ClientError):
    """A live source cannot be opened or read, was lost for good, or cannot be watched here."""


class InvalidAnswer(ClientError):
    """The server's answer is not in the form that this client knows."""


class ApiError(ClientError):
    """The server refused. `status` is the HTTP status, `type` the wire name of the error.

    `request_id` is the server's id of the request, under which its log has it; None over gRPC, which carries none.
    """

    default_status: ClassVar[int] = 500
    request_id: str | None = None

    def __init__(self, message: str, *, status: int | None = None, type: str | None = None) -> None:
        super().__init__(message)
        self.status = self.default_status if status is None else status
        self.type = type or self.__class__.__name__


class RequestError(ApiError):
    """The model's handler refused this one video."""


class InvalidOption(RequestError):
    default_status = 400


class MissingVideo(RequestError):
    default_status = 400


class InvalidEncoding(RequestError):
    default_status = 400


class VideoTooLarge(RequestError):
    default_status = 413


class UnsupportedVideo(RequestError):
    default_status = 415


class UndecodableVideo(RequestError):
    default_status = 422


class EmptyClip(RequestError):
    default_status = 422


class VideoTooLong(RequestError):
    default_status = 422


class FrameTooLarge(RequestError):
    default_status = 422


class InternalError(RequestError):
    default_status = 503


class DecodeTimeout(RequestError):
    default_status = 504


class TimeLimitExceeded(RequestError):
    """The server gave the request up at its own limit: `RequestTimeout` on the wire, which is the client's own here."""

    default_status = 504


class ServingError(ApiError):
    """TorchServe itself refused."""


class InvalidKey(ServingError):
    default_status = 400


class BadRequest(ServingError):
    default_status = 400


class ModelNotFound(ServingError):
    default_status = 404


class Conflict(ServingError):
    default_status = 409


class ServerBusy(ServingError):
    default_status = 503


class PredictionFailed(ServingError):
    default_status = 503


REQUEST_ERRORS: Mapping[str, type[RequestError]] = {
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
    )
} | {"RequestTimeout": TimeLimitExceeded}
"""Wire type -> class, for the errors that the handlers raise."""

SERVING_ERRORS: Mapping[str, type[ServingError]] = {
    "InvalidKeyException": InvalidKey,
    "BadRequestException": BadRequest,
    "InvalidModelVersionException": BadRequest,
    "ModelNotFoundException": ModelNotFound,
    "ModelVersionNotFoundException": ModelNotFound,
    "ConflictStatusException": Conflict,
    "ServiceUnavailableException": ServerBusy,
    "InternalServerException": PredictionFailed,
}
"""Wire type -> class, for TorchServe 0.12's own exceptions. What is not listed becomes a ServingError."""


ERROR_KEYS = {"code", "type", "message"}
"""The keys of a refusal's body, all of them."""

# A full queue, in the words of gRPC, which has no type of its own for it.
_BUSY_WORDS = "has no worker to serve"
# TorchServe says the same of a full queue and of a model without workers, and advises to add workers.
_BUSY_HINT = (
    "the model's queue is full, or none of its workers runs: try again in a few seconds, with fewer requests at a time."
)


def api_error(status: int | None, type: str, message: str) -> ApiError:
    """The exception for a refusal; the status, where the transport carries none, is the one of the type."""
    if type in REQUEST_ERRORS:
        return REQUEST_ERRORS[type](message, status=status, type=type)
    cls = SERVING_ERRORS.get(type, ServingError)
    if cls is PredictionFailed and _BUSY_WORDS in message:
        cls = ServerBusy
    if cls is ServerBusy and _BUSY_WORDS in message:
        message = f"{_BUSY_HINT} TorchServe's words: {message}"
    return cls(message, status=status, type=type)


def error_in(body: bytes, *, status: int | None = None) -> ApiError | None:
    """The refusal that a body holds, None if it is an answer: `{"code", "type", "message"}` and nothing else."""
    if len(body) > 65536 or not body.lstrip().startswith(b"{"):
        return None
    try:
        parsed: Any = json.loads(body)
    except ValueError:
        return None
    if not isinstance(parsed, dict) or set(parsed) != ERROR_KEYS:
        return None
    code = parsed["code"] if isinstance(parsed["code"], int) else status
    return api_error(code, str(parsed["type"]), str(parsed["message"]))
