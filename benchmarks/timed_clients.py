"""Clients that ask a TorchServe and take the time: HTTP with a kept connection, gRPC with a kept channel."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from serving.server import Server
from video_action_client.grpc_messages import CLASSES, INFERENCE_SERVICE

Protocols = Literal["http", "grpc"]
_TIMEOUT_SEC = 300.0
_GRPC_LIMIT = 256 * 2**20  # bytes; the default of 4 MB is for answers, which are small, but costs nothing to raise


@dataclass(frozen=True, slots=True)
class Reply:
    """One request's time, and the JSON it was answered with, or why it failed."""

    milliseconds: float
    answer: Any = None
    error: str | None = None

    @property
    def labels(self) -> list[str]:
        """The labels, best first, of an answer in TorchServe's own format."""
        return list(self.answer) if isinstance(self.answer, dict) else []


class Client(Protocol):
    """One caller: asks, waits, asks again. Not for several threads."""

    def ask(self, model: str, video: bytes, options: Mapping[str, str] | None = None) -> Reply: ...

    def close(self) -> None: ...


class HttpClient:
    """`POST /predictions/MODEL` with the video's bytes as the body and options as headers."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.ports.inference, timeout=_TIMEOUT_SEC)
        self._headers = {"Content-Type": "application/octet-stream", **server.headers("inference")}

    def ask(self, model: str, video: bytes, options: Mapping[str, str] | None = None) -> Reply:
        headers = self._headers | {f"X-{name.replace('_', '-')}": value for name, value in (options or {}).items()}
        started = time.perf_counter()
        try:
            self._connection.request("POST", f"/predictions/{model}", body=video, headers=headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Reply(_since(started), error=f"{type(error).__name__}: {error}")
        elapsed = _since(started)
        if response.status != 200:
            return Reply(elapsed, error=f"HTTP {response.status}: {body[:200].decode(errors='replace')}")
        return Reply(elapsed, json.loads(body))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GrpcClient:
    """`Predictions` with the video under `data`."""

    def __init__(self, server: Server) -> None:
        import grpc

        self._grpc = grpc
        limits = [("grpc.max_send_message_length", _GRPC_LIMIT), ("grpc.max_receive_message_length", _GRPC_LIMIT)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_inference_port}", options=limits)
        self._predict: Callable[..., Any] = self._channel.unary_unary(
            f"/{INFERENCE_SERVICE}/Predictions",
            request_serializer=CLASSES["PredictionsRequest"].SerializeToString,
            response_deserializer=CLASSES["PredictionResponse"].FromString,
        )
        self._metadata = [("authorization", server.headers("inference")["Authorization"])]

    def ask(self, model: str, video: bytes, options: Mapping[str, str] | None = None) -> Reply:
        values = {"data": video, **{name: value.encode() for name, value in (options or {}).items()}}
        started = time.perf_counter()
        try:
            request = CLASSES["PredictionsRequest"](model_name=model, input=values)
            content = self._predict(request, metadata=self._metadata, timeout=_TIMEOUT_SEC).prediction
        except self._grpc.RpcError as error:
            return Reply(_since(started), error=f"gRPC {error.code().name}: {error.details()}")
        elapsed = _since(started)
        answer = json.loads(content)
        # gRPC knows no status per item: an error is an answer with a code.
        if isinstance(answer, dict) and "code" in answer and "message" in answer:
            return Reply(elapsed, error=f"{answer['code']}: {answer['message']}")
        return Reply(elapsed, answer)

    def close(self) -> None:
        self._channel.close()


def connect(server: Server, protocol: str) -> Client:
    return GrpcClient(server) if protocol == "grpc" else HttpClient(server)


def read_video(path: Path) -> bytes:
    return path.read_bytes()


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
