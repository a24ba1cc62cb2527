"""gRPC calls that the model does not serve, or that a client gives up: the next prediction is always answered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from serving.server import TorchServe
from tests.support.grpc_stubs import load_stubs
from tests.support.traffic import Client, variant

pytestmark = pytest.mark.e2e

MODEL = "sequenced"


class Calls:
    """Calls to the model by a gRPC client of its own."""

    def __init__(self, server: TorchServe, video: bytes) -> None:
        self._stubs = load_stubs()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.grpc_inference_port}")
        self._stub = self._stubs.inference_grpc.InferenceAPIsServiceStub(self.channel)
        self._metadata = (("authorization", server.headers()["Authorization"]),)
        self._video = video

    def request(self, *, sequence_id: str | None = None, **fields: bytes) -> Any:
        named = {} if sequence_id is None else {"sequence_id": sequence_id}
        return self._stubs.inference.PredictionsRequest(
            model_name=MODEL, input={"data": self._video, **fields}, **named
        )

    def sequence(self, *messages: Any, open_sec: float = 0.0) -> Any:
        """A StreamPredictions2 call under way; the client keeps it open for so long after its last message."""

        def sent() -> Iterator[Any]:
            yield from messages
            time.sleep(open_sec)

        return self._stub.StreamPredictions2(sent(), metadata=self._metadata, timeout=20)

    def stream(self) -> Any:
        return self._stub.StreamPredictions(self.request(), metadata=self._metadata, timeout=20)

    def unary(self) -> Any:
        return self._stub.Predictions.future(self.request(), metadata=self._metadata, timeout=20)


def ended(call: Any) -> list[Any]:
    """The call's answers; it must end, in whatever way, before its own timeout."""
    answers = []
    with contextlib.suppress(grpc.RpcError):
        answers.extend(call)
    assert call.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    return answers


def test_sequences_and_cancelled_calls_leave_the_model_serving(
    server: TorchServe, x3d_xs_archive: Any, h264_video: bytes
) -> None:
    server.register(variant(x3d_xs_archive, MODEL).name)
    client = Client(server, MODEL)
    expected = client.post(h264_video)
    pids = server.worker_pids(MODEL)
    # A channel of its own for each: the frontend resets the connection of a sequence that it cannot serve.
    for kind in ("sequences", "cancelled sequences", "streams", "unary"):
        calls = Calls(server, h264_video)
        try:
            _make(calls, kind)
        finally:
            calls.channel.close()
        assert client.post(h264_video).body == expected.body, f"no answer after {kind}"
    answers = client.post_all([h264_video] * 100, threads=4)
    assert {(answer.status, answer.body) for answer in answers} == {(200, expected.body)}
    assert server.worker_pids(MODEL) == pids
    server.unregister(MODEL)


def _make(calls: Calls, kind: str) -> None:
    if kind == "sequences":
        flags = {"ts_request_sequence_start": b"true", "ts_request_sequence_end": b"true"}
        for messages in (
            [calls.request(sequence_id="a")],
            [calls.request()],
            [calls.request(sequence_id="")],
            [calls.request(sequence_id="b", **flags)],
            [calls.request(sequence_id="c"), calls.request(sequence_id="c"), calls.request(sequence_id="d")],
        ):
            ended(calls.sequence(*messages))
            ended(calls.sequence(*messages, open_sec=0.3))
        at_once = [calls.sequence(calls.request(sequence_id=f"{number}")) for number in range(10)]
        for call in at_once:
            ended(call)
    elif kind == "cancelled sequences":
        for delay in (0.0, 0.02, 0.1):
            call = calls.sequence(calls.request(sequence_id="e"), open_sec=0.3)
            time.sleep(delay)
            call.cancel()
    elif kind == "streams":
        assert len(ended(calls.stream())) == 1
        for delay in (0.0, 0.02, 0.1):
            call = calls.stream()
            time.sleep(delay)
            call.cancel()
    else:
        for delay in (0.0, 0.02, 0.1):
            pending = [calls.unary() for _ in range(4)]
            time.sleep(delay)
            for call in pending:
                call.cancel()
