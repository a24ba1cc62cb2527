"""Hostile files over HTTP: their class, fast, the same worker afterwards, and nothing told that must not be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest
import requests

from serving.server import TorchServe
from tests.support.decoding import wait_until
from tests.support.hostile import CANARY_PATH, calling_files, costly_files
from tests.support.paths import CORPUS
from tests.support.tracing import landlock_version
from tests.support.traffic import Answer, Client, LogMark

pytestmark = pytest.mark.e2e

MOST_SEC = 5.0
MARKER = "marker-5f2c91d7"


@pytest.fixture
def client(server: TorchServe) -> Client:
    return Client(server, "x3d_xs", **{"X-Secret": MARKER, "Cookie": f"session={MARKER}"})


def hostile_files() -> dict[str, tuple[bytes, str]]:
    """Name: (content, expected class)."""
    files = {name: (content, "4xx") for name, content in calling_files().items()}
    files |= {name: (content, "either") for name, content in costly_files().items()}
    folder = CORPUS / "hostile"
    if folder.is_dir():
        classes = json.loads((folder / "expected.json").read_text())
        files |= {name: ((folder / name).read_bytes(), entry["expect"]) for name, entry in classes.items()}
    return files


def status_class(answer: Answer) -> str:
    return "ok" if answer.status == 200 else "4xx" if 400 <= answer.status < 500 else str(answer.status)


def assert_tells_nothing(server: TorchServe, text: str) -> None:
    """No secret, no header, no path of the server or of a client's file."""
    secrets = [header.removeprefix("Bearer ") for api in ("inference", "management")
               for header in server.headers(api).values()]  # fmt: skip
    for forbidden in (*secrets, MARKER, str(server.directory), str(server.model_store), CANARY_PATH, "Traceback"):
        assert forbidden not in text, f"{forbidden!r} in {text[:2000]}"


def test_each_hostile_file_gets_its_class_and_the_worker_stays(server: TorchServe, client: Client) -> None:
    pids = server.worker_pids("x3d_xs")
    logged = LogMark(server)
    files = hostile_files()
    for name, (content, expected) in files.items():
        answer = client.post(content)
        found = status_class(answer)
        assert found in (("ok", "4xx") if expected == "either" else (expected,)), f"{name}: {answer.body!r}"
        assert answer.seconds < MOST_SEC, name
        if found != "ok":
            body = answer.json()
            assert set(body) == {"code", "type", "message"}
            assert body["code"] == answer.status
            assert_tells_nothing(server, json.dumps(body))
    assert server.worker_pids("x3d_xs") == pids
    wait_until("the last request in the log", lambda: logged.since().count("ACCESS_LOG") >= len(files))
    assert_tells_nothing(server, logged.since())


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": f"{MARKER}"},
        {"start_sec": f"-1 {MARKER}"},
        {"format": MARKER},
        {"average": f"../../{MARKER}"},
        {"stride_sec": "1e999"},
    ],
    ids=str,
)
def test_a_header_that_is_wrong_is_refused_and_not_repeated(
    server: TorchServe, client: Client, h264_video: bytes, options: dict[str, str]
) -> None:
    logged = LogMark(server)
    answer = client.post(h264_video, **options)
    assert answer.status == 400
    assert answer.json()["type"] == "InvalidOption"
    assert_tells_nothing(server, answer.body.decode() + logged.since())


def test_damaged_envelopes_are_refused(server: TorchServe, client: Client) -> None:
    pids = server.worker_pids("x3d_xs")
    for body in (b"", b"\0", b"\xff" * 100, b"{", b"[" * 100_000, b'{"data": 5}', b"--x\r\n", b"A" * 1_000_000):
        for content_type in ("application/octet-stream", "application/json", "video/mp4"):
            answer = Client(server, "x3d_xs", **{"Content-Type": content_type}).post(body)
            assert 400 <= answer.status < 500, (content_type, body[:20], answer.body)
            assert_tells_nothing(server, answer.body.decode())
    assert server.worker_pids("x3d_xs") == pids


def test_the_worker_has_no_canary_open(server: TorchServe) -> None:
    """Nothing that a hostile file names was opened and kept open by the worker or a decoding process."""
    worker = psutil.Process(server.worker_pids("x3d_xs")[0])
    for process in (worker, *worker.children(recursive=True)):
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            assert "canar" not in str(entry.readlink())


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
def test_decoding_processes_are_confined_and_the_description_says_so(server: TorchServe) -> None:
    (worker,) = server.worker_pids("x3d_xs")

    def statuses() -> list[str]:
        decoders = psutil.Process(worker).children(recursive=True)
        return [Path(f"/proc/{process.pid}/status").read_text() for process in decoders]

    def all_confined() -> bool:
        found = statuses()
        assert found
        return all("\nSeccomp:\t2\n" in status and "\nNoNewPrivs:\t1\n" in status for status in found)

    # The files before this test had decoding processes replaced: one that still starts has read nothing yet.
    wait_until("every decoding process is confined", all_confined, within_sec=30)
    url = f"{server.management_url}/models/x3d_xs?customized=true"
    (entry,) = requests.get(url, headers=server.headers("management"), timeout=60).json()
    known = entry["customizedMetadata"]
    known = json.loads(known) if isinstance(known, str) else known
    assert known["sandbox"] == (["landlock", "seccomp"] if landlock_version() else ["seccomp"])
