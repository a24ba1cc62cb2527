"""The demo page's own server, as `scripts.demo` starts it: who may send what, and how much is kept of it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from demo.uploads import UploadLimits
from tests.support.fake_server import running_fake
from video_action_client import VideoClient

LIMITS = UploadLimits(max_upload_bytes=100_000, max_stored_bytes=700_000, max_stored_files=3, max_under_way=2)
BOUNDARY = "----boundary"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def host(uploads: Path) -> Iterator[str]:
    """`127.0.0.1:PORT` of a running page."""
    gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install -r requirements/demo.txt")
    from demo.page import PageSettings, serve

    with pytest.MonkeyPatch.context() as patch, running_fake() as fake:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        client = VideoClient(fake.url, fake.url, token="t")
        settings = PageSettings(client=client, key_file=None, uploads=uploads, limits=LIMITS)
        url = serve(settings, port=None, block=False)
        yield urlsplit(url).netloc
        gradio.close_all()


@pytest.fixture
def emptied(uploads: Path) -> Path:
    """The folder of uploads, without those of other tests."""
    for each in uploads.iterdir():
        shutil.rmtree(each)
    return uploads


def ask(host: str, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def form(name: str, content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
    return f"{head}Content-Type: video/mp4\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(host: str, name: str, content: bytes, **headers: str) -> tuple[int, str]:
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return ask(host, "POST", "/gradio_api/upload", kind | named, form(name, content))


def kept(uploads: Path) -> list[str]:
    return sorted(each.name for each in uploads.rglob("*") if each.is_file())


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        # Another port of this machine is the same site, and another origin.
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
    ],
)
def test_what_another_page_sends_is_refused(host: str, emptied: Path, headers: dict[str, str]) -> None:
    status, text = upload(host, "clip.mp4", b"video", **headers)
    assert (status, text) == (403, "This page takes requests from itself only, not from pages of other addresses.\n")
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    assert ask(host, "GET", "/gradio_api/info", named)[0] == 403
    body = json.dumps({"data": [], "fn_index": 0, "session_hash": "s"}).encode()
    assert ask(host, "POST", "/gradio_api/queue/join", named | {"Content-Type": "text/plain"}, body)[0] == 403
    assert kept(emptied) == []


def test_what_the_page_itself_and_programs_send_is_taken(host: str, emptied: Path) -> None:
    own = {"Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
    assert upload(host, "page.mp4", b"one", **own)[0] == 200
    assert upload(host, "curl.mp4", b"two")[0] == 200
    assert kept(emptied) == ["curl.mp4", "page.mp4"]
    named = f"localhost:{host.rpartition(':')[2]}"
    assert upload(host, "named.mp4", b"three", Host=named, Origin=f"http://{named}")[0] == 200
    # A link on another page may lead here, and an address may be typed.
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for headers in (followed, {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, {}):
        assert ask(host, "GET", "/", headers)[0] == 200


def test_the_oldest_uploads_make_room(host: str, emptied: Path) -> None:
    """More files than are kept, then more bytes."""
    for index in range(6):
        assert upload(host, f"{index}.mp4", f"video {index}".encode())[0] == 200
        age(emptied, f"{index}.mp4", seconds=100 - index)
    assert kept(emptied) == ["3.mp4", "4.mp4", "5.mp4"]
    assert len([each for each in emptied.iterdir() if each.is_dir()]) == 3
    (emptied / "old").mkdir()
    (emptied / "old" / "large.mp4").write_bytes(bytes(650_000))
    age(emptied, "large.mp4", seconds=1000)
    (emptied / "3.mp4").unlink(missing_ok=True)
    assert upload(host, "new.mp4", bytes(90_000))[0] == 200
    assert "large.mp4" not in kept(emptied)
    assert "new.mp4" in kept(emptied)


def age(folder: Path, name: str, *, seconds: float) -> None:
    (path,) = folder.rglob(name)
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_too_large_an_upload_is_refused_whatever_it_announces(host: str, emptied: Path) -> None:
    sentence = "An upload may have 100000 bytes, and this one has more.\n"
    assert upload(host, "large.mp4", bytes(200_000)) == (413, sentence)
    # Many files in one form are one upload, and without a length it is the bytes that come that count.
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    parts = b"".join(form(f"{index}.mp4", bytes(30_000))[: -len(BOUNDARY) - 6] for index in range(8))
    body = parts + f"--{BOUNDARY}--\r\n".encode()
    assert ask(host, "POST", "/gradio_api/upload", headers, body) == (413, sentence)
    connection = http.client.HTTPConnection(host, timeout=30)
    pieces = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    connection.request("POST", "/gradio_api/upload", body=pieces, headers=headers, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, answer.read().decode()) == (413, sentence)
    connection.close()
    wait_for(lambda: kept(emptied) == [])


def test_uploads_that_break_off_leave_nothing_and_only_some_are_taken_at_once(host: str, emptied: Path) -> None:
    body = form("half.mp4", bytes(50_000))
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(len(body))}
    halves = []
    for _ in range(LIMITS.max_under_way):
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request("POST", "/gradio_api/upload", body=body[:30_000], headers=headers)
        halves.append(connection)
    wait_for(lambda: len(kept(emptied)) == LIMITS.max_under_way)
    status, text = upload(host, "third.mp4", b"video")
    assert (status, text) == (503, "2 uploads are under way, and more are not taken at once; try again.\n")
    for connection in halves:
        connection.close()
    wait_for(lambda: kept(emptied) == [])
    assert upload(host, "third.mp4", b"video")[0] == 200


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_limits_that_could_leave_no_room_are_refused() -> None:
    with pytest.raises(ValueError, match="max_stored_bytes must be at least"):
        UploadLimits(max_upload_bytes=2**20, max_stored_bytes=2**21)
