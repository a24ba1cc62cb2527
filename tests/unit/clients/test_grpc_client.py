"""The gRPC client against a gRPC server that answers as TorchServe 0.12 was seen to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support import grpc_stubs
from tests.support.fake_grpc import ANSWERS, FakeGrpc, Refused
from tests.support.fake_server import FakeServer, KeyFile
from video_action_client import ClientError, GrpcVideoClient
from video_action_client.errors import (
    BadRequest,
    Conflict,
    ConnectionFailed,
    EmptyClip,
    InvalidKey,
    ModelNotFound,
    PredictionFailed,
    RequestTimeout,
    ServerBusy,
    ServingError,
)
from video_action_client.grpc_messages import CLASSES, INFERENCE_SERVICE, MANAGEMENT_SERVICE, MESSAGES
from video_action_client.retry import Retry

FAST = Retry(attempts=3, first_delay_sec=0.01)


def client_of(fake: FakeGrpc, **settings: Any) -> GrpcVideoClient:
    return GrpcVideoClient(fake.target, fake.target, **{"token": "t", "retry": FAST, **settings})


def raises(code: grpc.StatusCode, details: str) -> Callable[[str, Any, str | None], Any]:
    def answer(rpc: str, request: Any, key: str | None) -> Any:
        raise Refused(code, details)

    return answer


def test_the_messages_are_torchserves() -> None:
    """Names, numbers and types of every field, against stubs generated from the installed TorchServe's own protos."""
    try:
        stubs = grpc_stubs.load_stubs()
    except grpc_stubs.StubsUnavailable as error:
        pytest.skip(str(error))
    theirs = {"inference": stubs.inference, "management": stubs.management}
    for package, messages in MESSAGES.items():
        module = theirs[package.rpartition(".")[2]]
        for name, fields in messages.items():
            descriptor = getattr(module, name).DESCRIPTOR
            assert descriptor.full_name == f"{package}.{name}"
            ours = CLASSES[name].DESCRIPTOR
            for field_name in fields:
                mine, its = ours.fields_by_name[field_name], descriptor.fields_by_name[field_name]
                assert (mine.number, mine.type, mine.is_repeated) == (its.number, its.type, its.is_repeated)
    services = {INFERENCE_SERVICE: stubs.inference, MANAGEMENT_SERVICE: stubs.management}
    known = {rpc for service, module in services.items() for rpc in _rpcs(module, service)}
    assert set(ANSWERS) <= known


def _rpcs(module: Any, service: str) -> list[str]:
    return [method.name for method in module.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods]


def test_a_message_is_read_by_the_generated_stubs_and_back() -> None:
    try:
        stubs = grpc_stubs.load_stubs()
    except grpc_stubs.StubsUnavailable as error:
        pytest.skip(str(error))
    ours = CLASSES["PredictionsRequest"](model_name="m", model_version="2", input={"data": b"\x00\xff", "top_k": b"3"})
    theirs = stubs.inference.PredictionsRequest.FromString(ours.SerializeToString())
    assert (theirs.model_name, theirs.model_version) == ("m", "2")
    assert dict(theirs.input) == {"data": b"\x00\xff", "top_k": b"3"}
    assert CLASSES["PredictionsRequest"].FromString(theirs.SerializeToString()) == ours


def test_sends_a_video_with_its_options_and_key(
    fake_grpc: FakeGrpc, full_answer: dict[str, Any], tmp_path: Path
) -> None:
    fake_grpc.answer = lambda rpc, request, key: json.dumps(full_answer).encode()
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"v" * 8_000_000)  # above gRPC's default limit of 4 MiB
    with client_of(fake_grpc) as client:
        prediction = client.classify(path, model="m", version="2.0", top_k=3, start_sec=0.5)
        timeline = client.timeline(b"v", model="m", stride_sec=0.5)
    assert prediction.top.label == "pan left"
    assert len(timeline.segments) == 2
    rpc, request, key = fake_grpc.asked[0]
    assert (rpc, request.model_name, request.model_version, key) == ("Predictions", "m", "2.0", "t")
    expected = {"data": b"v" * 8_000_000, "top_k": b"3", "start_sec": b"0.5", "format": b"full"}
    assert dict(request.input) == expected


def test_an_error_body_is_raised_although_the_call_succeeds(fake_grpc: FakeGrpc) -> None:
    body = {"code": 422, "type": "EmptyClip", "message": "no frame"}
    fake_grpc.answer = lambda rpc, request, key: json.dumps(body).encode()
    with client_of(fake_grpc) as client, pytest.raises(EmptyClip, match="no frame") as raised:
        client.classify(b"v", model="m")
    assert (raised.value.status, raised.value.type) == (422, "EmptyClip")


@pytest.mark.parametrize(
    ("code", "details", "expected", "type"),
    [
        # What TorchServe 0.12 was seen to answer, word for word.
        ("INTERNAL", "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException", ModelNotFound, None),
        (
            "INTERNAL",
            "Model version: 3.0 does not exist for model: m\n"
            "org.pytorch.serve.archive.model.ModelVersionNotFoundException",
            ModelNotFound,
            "ModelVersionNotFoundException",
        ),
        ("UNAVAILABLE", "Prediction failed\norg.pytorch.serve.http.InternalServerException", PredictionFailed, None),
        ("INTERNAL", "Parameter model_name is required.\nBadRequestException.()", BadRequest, "BadRequestException"),
        ("PERMISSION_DENIED", "Token Authorization failed.", InvalidKey, "InvalidKeyException"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", RequestTimeout, None),
        ("UNIMPLEMENTED", "Method not found", ServingError, "UNIMPLEMENTED"),
    ],
)
def test_a_failed_call_becomes_the_exception_of_its_kind(
    fake_grpc: FakeGrpc, code: str, details: str, expected: type[ClientError], type: str | None
) -> None:
    fake_grpc.answer = raises(grpc.StatusCode[code], details)
    with client_of(fake_grpc) as client, pytest.raises(expected) as raised:
        client.classify(b"v", model="m")
    if type is not None:
        assert getattr(raised.value, "type", None) == type
    if isinstance(raised.value, ModelNotFound | BadRequest):
        assert raised.value.message == details.partition("\n")[0]
    assert len(fake_grpc.asked) == 1


def test_a_full_queue_is_asked_again(fake_grpc: FakeGrpc) -> None:
    words = 'Model "m" has no worker to serve inference request.'
    fake_grpc.answer = raises(grpc.StatusCode.INTERNAL, f"{words}\nInternalServerException.()")
    with client_of(fake_grpc) as client, pytest.raises(ServerBusy):
        client.classify(b"v", model="m")
    assert len(fake_grpc.asked) == FAST.attempts


def test_nothing_at_the_address() -> None:
    client = GrpcVideoClient("127.0.0.1:9", "127.0.0.1:9", token="t", retry=FAST)
    with client, pytest.raises(ConnectionFailed, match=r"nothing answers at 127\.0\.0\.1:9") as raised:
        client.classify(b"v", model="m")
    assert not raised.value.sent


def test_an_expired_key_is_renewed_over_http(
    fake_grpc: FakeGrpc, fake: FakeServer, full_answer: dict[str, Any], write_keys: KeyFile
) -> None:
    path = write_keys(inference="old", management="old-m")

    def renew(asked: Any) -> tuple[int, Any]:
        write_keys(inference="new", management="old-m")
        return 200, b"\n"

    def answer(rpc: str, request: Any, key: str | None) -> bytes:
        if key != "new":
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, "Token Authorization failed.")
        return json.dumps(full_answer).encode()

    fake.answer, fake_grpc.answer = renew, answer
    with client_of(fake_grpc, token=None, key_file=path, http_management_url=fake.url) as client:
        client.classify(b"v", model="m")
    assert [key for _, _, key in fake_grpc.asked] == ["old", "new"]
    assert [(asked.path, asked.key) for asked in fake.asked] == [("/token?type=inference", "api-key")]


def test_management_calls_say_what_torchserve_takes(fake_grpc: FakeGrpc) -> None:
    fake_grpc.answer = lambda rpc, request, key: "done"
    with client_of(fake_grpc) as client:
        assert client.register("m.mar", model="n", workers=2, batch_size=4) == "done"
        assert client.set_default("m", "2.0") == "done"
        assert client.scale("m", min_workers=1, max_workers=3) == "done"
        assert client.unregister("m", "1.0", drain_sec=0) == "done"
    register, default, scale, unregister = (request for _, request, _ in fake_grpc.asked)
    assert (register.url, register.model_name, register.initial_workers, register.batch_size) == ("m.mar", "n", 2, 4)
    assert register.synchronous
    assert (default.model_name, default.model_version) == ("m", "2.0")
    assert (scale.min_worker, scale.max_worker, scale.synchronous) == (1, 3, True)
    assert (unregister.model_name, unregister.model_version) == ("m", "1.0")


def test_what_grpc_cannot_say_is_refused_before_it_is_sent(fake_grpc: FakeGrpc) -> None:
    with client_of(fake_grpc) as client:
        with pytest.raises(ValueError, match="cannot be 0 over gRPC"):
            client.scale("m", min_workers=0)
        with pytest.raises(ValueError, match="cannot be 0 over gRPC"):
            client.register("m.mar", workers=0)
    assert fake_grpc.asked == []


def test_a_version_that_is_registered_already(fake_grpc: FakeGrpc) -> None:
    fake_grpc.answer = raises(grpc.StatusCode.UNKNOWN, "")
    with client_of(fake_grpc) as client, pytest.raises(Conflict, match=r"m\.mar .*registered already"):
        client.register("m.mar")


def test_ready(fake_grpc: FakeGrpc) -> None:
    fake_grpc.answer = lambda rpc, request, key: '{"status": "Healthy"}'
    with client_of(fake_grpc) as client:
        assert client.ready()
    with GrpcVideoClient("127.0.0.1:9", token="t") as client:
        assert not client.ready(0.01)


@pytest.mark.parametrize("url", ["http://127.0.0.1:7070", "127.0.0.1", "", ":7070"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        GrpcVideoClient(url)


def test_the_other_addresses_are_on_the_same_host() -> None:
    client = GrpcVideoClient("gpu-7:7070")
    assert (client.url, client.management_url) == ("gpu-7:7070", "gpu-7:7071")
