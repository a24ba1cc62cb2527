"""A loopback gRPC server that answers as scripted, as TorchServe 0.12 was seen to, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from video_action_client.grpc_messages import CLASSES, INFERENCE_SERVICE, MANAGEMENT_SERVICE

ANSWERS = {
    "Ping": ("Empty", "TorchServeHealthResponse"),
    "Predictions": ("PredictionsRequest", "PredictionResponse"),
    **{
        rpc: (f"{rpc}Request" if rpc != "ListModels" else "ListModelsRequest", "ManagementResponse")
        for rpc in ("DescribeModel", "ListModels", "RegisterModel", "ScaleWorker", "SetDefault", "UnregisterModel")
    },
}


@dataclass
class FakeGrpc:
    """`answer(rpc, request, key)` gives the answer's field, or raises `Refused`."""

    answer: Callable[[str, Any, str | None], Any] = lambda rpc, request, key: b"{}"
    asked: list[tuple[str, Any, str | None]] = field(default_factory=list)
    target: str = ""


class Refused(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


@contextmanager
def running_fake_grpc() -> Iterator[FakeGrpc]:
    fake = FakeGrpc()
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    for service in (INFERENCE_SERVICE, MANAGEMENT_SERVICE):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, _handlers(fake))])
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(None).wait()


def _handlers(fake: FakeGrpc) -> dict[str, Any]:
    def handler(rpc: str, request_name: str, answer_name: str) -> Any:
        def answer(request: Any, context: Any) -> Any:
            key = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ") or None
            fake.asked.append((rpc, request, key))
            try:
                value = fake.answer(rpc, request, key)
            except Refused as refusal:
                context.abort(refusal.code, refusal.details)
            name = {"PredictionResponse": "prediction", "ManagementResponse": "msg"}.get(answer_name, "health")
            return CLASSES[answer_name](**{name: value})

        parse = (lambda data: data) if request_name == "Empty" else CLASSES[request_name].FromString
        return grpc.unary_unary_rpc_method_handler(answer, parse, lambda message: message.SerializeToString())

    return {rpc: handler(rpc, *names) for rpc, names in ANSWERS.items()}
