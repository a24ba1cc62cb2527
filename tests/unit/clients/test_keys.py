"""Where keys may go: those of a key file that nobody named stay on this machine."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from scripts.demo import key_file_in_use
from serving import connection as repository_connection
from tests.support.fake_grpc import FakeGrpc, Refused
from tests.support.fake_server import Asked, FakeServer, KeyFile, described, refusal
from video_action_client import GrpcVideoClient, VideoClient
from video_action_client.commands import connection, models
from video_action_client.errors import InvalidKey, KeyUnavailable
from video_action_client.keys import is_loopback

REFUSED = refusal(400, "InvalidKeyException")
ELSEWHERE = "gpu-7.example"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """`elsewhere(url)`: the same server under a name that is not this machine's."""
    lookup = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **named: Any) -> Any:
        return lookup("127.0.0.1" if host == ELSEWHERE else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return lambda url: url.replace("127.0.0.1", ELSEWHERE)


@pytest.fixture
def default_keys(write_keys: KeyFile, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key file in the current folder."""
    path = write_keys(inference="local", management="local-m")
    monkeypatch.chdir(path.parent)
    return path


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080", True),
        ("https://LOCALHOST", True),
        ("http://[::1]:8080", True),
        ("http://127.9.8.7:8080/path", True),
        ("127.0.0.1:7070", True),
        ("localhost:7070", True),
        ("[::1]:7070", True),
        ("http://gpu-7:8080", False),
        ("gpu-7:7070", False),
        ("http://10.0.0.1:8080", False),
        ("http://0.0.0.0:8080", False),
        ("http://127.0.0.1.gpu-7.example", False),
        ("http://localhost.example:8080", False),
        ("http://127.0.0.1@gpu-7.example/", False),
        # Where two parsers differ, the one that connects decides: this goes to gpu-7.
        ("http://gpu-7.example\\@127.0.0.1/", False),
        ("ipv4:127.0.0.1:7070", False),
        ("http://", False),
    ],
)
def test_what_is_this_machine(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_the_default_key_file_is_for_this_machine(
    fake: FakeServer, default_keys: Path, elsewhere: Callable[[str], str]
) -> None:
    """Neither a key nor the key that renews it goes to another host, whose refusal says what to do."""
    fake.answer = lambda asked: (200, {"status": "Healthy"}) if asked.key == "local" else REFUSED
    with VideoClient(fake.url, fake.url) as client:
        assert client.ready()
    assert [asked.key for asked in fake.asked] == ["local"]
    fake.asked.clear()
    with VideoClient(elsewhere(fake.url), elsewhere(fake.url)) as client:
        with pytest.raises(InvalidKey, match=r"key_file\.json are sent to other machines only where .* as key_file$"):
            client.answer(b"v", model="m")
        with pytest.raises(InvalidKey, match="wants the management key"):
            client.models()
    assert [asked.key for asked in fake.asked] == [None, None]


def test_each_api_has_its_own_address(fake: FakeServer, default_keys: Path, elsewhere: Callable[[str], str]) -> None:
    """An inference address on this machine does not take the management key to another one."""
    fake.answer = lambda asked: REFUSED
    with VideoClient(fake.url, elsewhere(fake.url)) as client:
        with pytest.raises(InvalidKey, match="wants the management key"):
            client.models()
        with pytest.raises(KeyUnavailable, match=rf"not renewed at {elsewhere(fake.url)}, which is another machine"):
            client.answer(b"v", model="m")
    assert [(asked.path, asked.key) for asked in fake.asked] == [("/models", None), ("/predictions/m", "local")]


def test_a_named_key_file_goes_where_it_is_sent(
    fake: FakeServer, default_keys: Path, elsewhere: Callable[[str], str]
) -> None:
    def answer(asked: Asked) -> tuple[int, Any]:
        if asked.path.startswith("/token"):
            entries = json.loads(default_keys.read_text())
            entries["inference"]["key"] = "fresh"
            default_keys.write_text(json.dumps(entries))
            return 200, b"\n"
        return (200, {}) if asked.key == "fresh" else REFUSED

    fake.answer = answer
    with VideoClient(elsewhere(fake.url), elsewhere(fake.url), key_file=default_keys) as client:
        assert client.answer(b"v", model="m") == {}
    assert [asked.key for asked in fake.asked] == ["local", "api-key", "fresh"]


def test_a_token_goes_where_it_is_sent(fake: FakeServer, default_keys: Path, elsewhere: Callable[[str], str]) -> None:
    fake.answer = lambda asked: (200, {})
    with VideoClient(elsewhere(fake.url), token="mine") as client:
        client.answer(b"v", model="m")
    assert [asked.key for asked in fake.asked] == ["mine"]


def test_grpc_keeps_the_default_keys_here_too(fake_grpc: FakeGrpc, fake: FakeServer, default_keys: Path) -> None:
    def answer(rpc: str, request: Any, key: str | None) -> bytes:
        if key != "local":
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, "Token Authorization failed.")
        return b"{}"

    fake_grpc.answer = answer
    with GrpcVideoClient(fake_grpc.target, fake_grpc.target) as client:
        assert client.answer(b"v", model="m") == {}
    # gRPC's own spelling of an address: it reaches the server, and is none of those that count as this machine.
    other = f"ipv4:{fake_grpc.target}"
    with (
        GrpcVideoClient(other, other, http_management_url=fake.url) as client,
        pytest.raises(InvalidKey, match="are sent to other machines only where"),
    ):
        client.answer(b"v", model="m")
    assert [key for _, _, key in fake_grpc.asked] == ["local", None]
    assert fake.asked == []
    with GrpcVideoClient(other, other, key_file=default_keys) as client:
        assert client.answer(b"v", model="m") == {}


def test_grpc_renews_at_this_machine_only(fake_grpc: FakeGrpc, default_keys: Path) -> None:
    def refuse(rpc: str, request: Any, key: str | None) -> bytes:
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, "Token Authorization failed.")

    fake_grpc.answer = refuse
    with (
        GrpcVideoClient(fake_grpc.target, fake_grpc.target, http_management_url=f"http://{ELSEWHERE}:8081") as client,
        pytest.raises(KeyUnavailable, match=rf"not renewed at http://{ELSEWHERE}:8081"),
    ):
        client.answer(b"v", model="m")


@pytest.mark.parametrize("with_grpc", [False, True], ids=["http", "grpc"])
def test_the_commands_default_key_file_stays_here(
    fake: FakeServer,
    fake_grpc: FakeGrpc,
    default_keys: Path,
    elsewhere: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    with_grpc: bool,
) -> None:
    """Also the key file beside config.properties, which commands find from any folder."""
    import argparse

    def refuse(rpc: str, request: Any, key: str | None) -> bytes:
        raise Refused(grpc.StatusCode.PERMISSION_DENIED, "Token Authorization failed.")

    monkeypatch.setattr(repository_connection, "REPOSITORY", default_keys.parent)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    fake.answer, fake_grpc.answer = lambda asked: REFUSED, refuse
    parser = argparse.ArgumentParser()
    connection.add_connection_arguments(parser, repository_connection.repository_defaults())
    url = f"ipv4:{fake_grpc.target}" if with_grpc else elsewhere(fake.url)
    arguments = ["--url", url, "--management-url", url, *(["--grpc"] if with_grpc else [])]
    with connection.open_client(parser.parse_args(arguments)) as client, pytest.raises(InvalidKey) as raised:
        client.answer(b"v", model="m")
    assert "--key-file" in connection.advice(raised.value)
    sent = [key for _, _, key in fake_grpc.asked] if with_grpc else [asked.key for asked in fake.asked]
    assert sent == [None]
    assert key_file_in_use(None, "http://127.0.0.1:8080") == default_keys
    assert key_file_in_use(None, elsewhere("http://127.0.0.1:8080")) is None
    assert key_file_in_use(default_keys, elsewhere("http://127.0.0.1:8080")) == default_keys


def renewing(path: Path, *, to: str) -> Callable[[Asked], tuple[int, Any]]:
    """What TorchServe does when asked for a new inference key: it rewrites the key file."""

    def answer(asked: Asked) -> tuple[int, Any]:
        assert asked.path == "/token?type=inference"
        entries = json.loads(path.read_text())
        entries["inference"] = {"key": to, "expiration time": "2999-01-01T00:00:00.000000000Z"}
        path.write_text(json.dumps(entries))
        return 200, b"\n"

    return answer


def test_a_key_for_other_programs_is_renewed_only_once_it_has_expired(
    fake: FakeServer, default_keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = renewing(default_keys, to="fresh")
    entries = json.loads(default_keys.read_text())
    entries["inference"]["expiration time"] = "2020-01-01T00:00:00.123456789Z"
    entries["management"]["expiration time"] = "2999-01-01T00:00:00Z"
    default_keys.write_text(json.dumps(entries))
    where = ["--management-url", fake.url]
    for api, key in (("management", "local-m"), ("inference", "fresh"), ("inference", "fresh")):
        assert models.main(["key", api, *where]) == 0
        assert capsys.readouterr().out == f"{key}\n"
    assert models.main(["key", *where]) == 0
    assert capsys.readouterr().out == "fresh\n"
    assert len(fake.asked) == 1
    with VideoClient(fake.url, fake.url, token="mine") as client:
        assert client.key() == "mine"


def test_an_expired_key_is_not_renewed_at_another_machine(
    fake: FakeServer, default_keys: Path, elsewhere: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads(default_keys.read_text())
    entries["inference"]["expiration time"] = "2020-01-01T00:00:00.000000000Z"
    default_keys.write_text(json.dumps(entries))
    assert models.main(["key", "--management-url", elsewhere(fake.url)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "is not renewed at" in captured.err
    assert fake.asked == []


def test_without_a_key_file_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert models.main(["key"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"models: there is no key file {tmp_path / 'key_file.json'}; ")
    assert len(captured.err.splitlines()) == 1


def test_waiting_for_a_model_that_does_not_come_fails(
    fake: FakeServer, default_keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = lambda asked: refusal(404, "ModelNotFoundException")
    with pytest.raises(SystemExit, match=r"m is not ready after 0\.3 s"):
        models.main(["wait", "m", "--management-url", fake.url, "--timeout", "0.3"])
    fake.answer = lambda asked: (200, [described("1.0")])
    assert models.main(["wait", "m", "--management-url", fake.url]) == 0
    assert capsys.readouterr().out == "m is ready\n"
