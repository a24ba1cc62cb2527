"""The gRPC client. The only module that imports grpc."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from .base import BaseClient
from .errors import (
    ClientError,
    Conflict,
    ConnectionFailed,
    InvalidKey,
    InvalidOption,
    RequestTimeout,
    ServingError,
    api_error,
    error_in,
)
from .grpc_messages import CLASSES, INFERENCE_SERVICE, MANAGEMENT_SERVICE
from .http_client import checked_url
from .keys import KEY_FILE, KeyRing
from .retry import Retry
from .source import Source

DEFAULT_TARGET = "127.0.0.1:7070"
_MANAGEMENT_PORT = 7071
_HTTP_MANAGEMENT_PORT = 8081
_CONNECT_TIMEOUT_SEC = 10.0
_MANAGEMENT_TIMEOUT_SEC = 600.0
_CHANNEL_OPTIONS = [
    # No limit of our own on a video's size: the server's max_request_size decides.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # As the HTTP client: straight to the address, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    # gRPC refuses calls at once until it tries to connect again, by default after one second and up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcVideoClient(BaseClient):
    """Talks gRPC to TorchServe: the same methods, answers and exceptions as `VideoClient`.

    `url` and `management_url` are `host:port` of the two gRPC services; `management_url` is the same host's port 7071
    unless given. Renewing keys needs TorchServe's HTTP management address, `http_management_url`: gRPC has no call for
    it. Keys are found as `VideoClient` finds them. A video travels as one message: it is read into memory, and the
    server's max_request_size bounds it.
    """

    def __init__(
        self,
        url: str = DEFAULT_TARGET,
        management_url: str | None = None,
        *,
        http_management_url: str | None = None,
        token: str | None = None,
        management_token: str | None = None,
        key_file: str | Path | None = None,
        default_key_file: str | Path = KEY_FILE,
        timeout_sec: float = 120.0,
        retry: Retry | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        host = _host(url)
        self.url, self.management_url = url, management_url or f"{host}:{_MANAGEMENT_PORT}"
        _host(self.management_url)
        renew_url = checked_url(http_management_url or f"http://{host}:{_HTTP_MANAGEMENT_PORT}")
        keys = KeyRing(
            token=token,
            management_token=management_token,
            key_file=key_file,
            default_key_file=default_key_file,
            addresses={"inference": self.url, "management": self.management_url},
            renew_url=renew_url,
        )
        super().__init__(keys, retry or Retry())
        self._timeout_sec = timeout_sec
        self._channels = [_channel(target, credentials) for target in (self.url, self.management_url)]

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def _predict(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> bytes:
        fields = {"data": source.read(), **{name: value.encode() for name, value in options.items()}}
        request = CLASSES["PredictionsRequest"](model_name=model, model_version=version or "", input=fields)
        answer = self._unary("Predictions", request, "PredictionResponse", key, timeout_sec=self._timeout_sec)
        body: bytes = answer.prediction
        error = error_in(body)  # gRPC has no status for one item: a refusal comes as an answer
        if error is not None:
            raise error
        return body

    def _explain(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> bytes:
        raise InvalidOption("explanations are answered over HTTP alone; use VideoClient")

    def _ping(self, key: str | None) -> None:
        self._unary("Ping", empty_pb2.Empty(), "TorchServeHealthResponse", key, timeout_sec=_CONNECT_TIMEOUT_SEC)

    def _list(self, key: str | None, page_token: str | None) -> str:
        # Without a limit TorchServe 0.12 answers an empty page over gRPC.
        return self._management("ListModels", "ListModelsRequest", key, limit=100, next_page_token=int(page_token or 0))

    def _describe(self, key: str | None, model: str, version: str | None, customized: bool) -> str:
        fields: dict[str, str | bool] = {"model_name": model, "model_version": version or "", "customized": customized}
        return self._management("DescribeModel", "DescribeModelRequest", key, **fields)

    def _register(self, key: str | None, settings: Mapping[str, str | int]) -> str:
        _refuse_zero("workers", settings.get("initial_workers"))
        try:
            return self._management("RegisterModel", "RegisterModelRequest", key, **settings, synchronous=True)
        except ServingError as error:
            if error.type == "UNKNOWN":  # the one exception that TorchServe 0.12 does not translate for gRPC
                message = f"{settings['url']} was refused: most likely that version is registered already"
                raise Conflict(message, type="ConflictStatusException") from None
            raise

    def _set_default(self, key: str | None, model: str, version: str) -> str:
        return self._management("SetDefault", "SetDefaultRequest", key, model_name=model, model_version=version)

    def _scale(self, key: str | None, model: str, version: str | None, min_workers: int, max_workers: int) -> str:
        _refuse_zero("min_workers", min_workers)
        fields = {"model_name": model, "model_version": version or ""}
        workers = {"min_worker": min_workers, "max_worker": max_workers}
        return self._management("ScaleWorker", "ScaleWorkerRequest", key, **fields, **workers, synchronous=True)

    def _unregister(self, key: str | None, model: str, version: str | None) -> str:
        fields = {"model_name": model, "model_version": version or ""}
        return self._management("UnregisterModel", "UnregisterModelRequest", key, **fields)

    def _management(self, rpc: str, message: str, key: str | None, **fields: str | int | bool) -> str:
        request = CLASSES[message](**fields)
        text: str = self._unary(rpc, request, "ManagementResponse", key, timeout_sec=_MANAGEMENT_TIMEOUT_SEC).msg
        return text

    def _unary(self, rpc: str, request: Any, answer: str, key: str | None, *, timeout_sec: float) -> Any:
        """One call, once. Every error of grpc becomes one of this package here."""
        manages = answer == "ManagementResponse"
        service, target = (MANAGEMENT_SERVICE, self.management_url) if manages else (INFERENCE_SERVICE, self.url)
        method = self._channels[manages].unary_unary(
            f"/{service}/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=CLASSES[answer].FromString,
        )
        metadata = [("authorization", f"Bearer {key}")] if key else []
        try:
            return method(request, metadata=metadata, timeout=timeout_sec)
        except grpc.RpcError as error:
            raise _translated(error, target, timeout_sec) from None


def _channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    return grpc.secure_channel(target, credentials, options=_CHANNEL_OPTIONS)


def _host(target: str) -> str:
    host, colon, port = target.rpartition(":")
    if not colon or not host or not port.isdigit() or "/" in target:
        raise ValueError(f"a gRPC address must look like {DEFAULT_TARGET}, got {target!r}")
    return host


def _refuse_zero(name: str, value: object) -> None:
    if value == 0:
        raise ValueError(f"{name} cannot be 0 over gRPC, where TorchServe takes it for not given; use the HTTP client")


# TorchServe puts its exception's class on the last line: `org.pytorch.serve....Name`, or `Name.()`.
_EXCEPTION_LINE = re.compile(r"(?:[\w$]+\.)*(\w+)(?:\.\(\))?")


def _translated(error: grpc.RpcError, target: str, timeout_sec: float) -> ClientError:
    """The exception for a failed call: TorchServe's own by its name, the transport's by its status code."""
    code, details = error.code(), error.details() or ""
    message, _, last_line = details.rpartition("\n")
    named = _EXCEPTION_LINE.fullmatch(last_line)
    if message and named is not None:
        return api_error(None, named[1], message)
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return InvalidKey(details, type="InvalidKeyException")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return RequestTimeout(f"{target} did not answer within {timeout_sec:g} s")
    if code == grpc.StatusCode.UNAVAILABLE and "failed to connect" in details.lower():
        return ConnectionFailed(f"nothing answers at {target}; is the server running?", sent=False)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ConnectionFailed(f"the connection to {target} was lost: {details}", sent=True)
    return ServingError(f"{target} answered {code.name}: {details or 'with no explanation'}", type=code.name)
