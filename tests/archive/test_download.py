"""Downloads against a loopback server: whole files or none, whatever the server does."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from scripts import _weights
from scripts._download import DownloadError, fetch

BODY = bytes(range(256)) * 9000  # 2.3 MB: more than one block
DIGEST = hashlib.sha256(BODY).hexdigest()


class _Files(BaseHTTPRequestHandler):
    """Serves BODY at every path; the path's first part says what goes wrong on the way."""

    def do_GET(self) -> None:
        trouble = self.path.split("/")[1]
        if trouble == "missing":
            self.send_error(404, "Not Found")
            return
        if trouble == "moved":
            self.send_response(302)
            self.send_header("Location", "/plain/weights.pyth")
            self.end_headers()
            return
        body = b"" if trouble == "empty" else BODY
        self.send_response(200)
        if trouble != "chunked":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if trouble == "truncated" else body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Files) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def _fetch(url: str, target: Path, **options: object) -> str:
    return fetch(url, target, progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("trouble", ["plain", "chunked", "moved"])
def test_whole_file(base_url: str, tmp_path: Path, trouble: str) -> None:
    target = tmp_path / "deep" / "weights.pyth"
    assert _fetch(f"{base_url}/{trouble}/weights.pyth", target, sha256_prefix=DIGEST[:8]) == DIGEST
    assert target.read_bytes() == BODY
    assert [path.name for path in target.parent.iterdir()] == ["weights.pyth"]


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("truncated", f"(failed after|ended after) .*{len(BODY) // 2}"),
        ("missing", "answered 404 Not Found"),
        ("empty", "answered with an empty file"),
    ],
)
def test_broken_download_leaves_nothing(base_url: str, tmp_path: Path, trouble: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        _fetch(f"{base_url}/{trouble}/weights.pyth", tmp_path / "weights.pyth")
    assert list(tmp_path.iterdir()) == []


def test_wrong_hash_leaves_nothing(base_url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"SHA-256 is {DIGEST}, expected it to begin with 00000000"):
        _fetch(f"{base_url}/plain/weights.pyth", tmp_path / "weights.pyth", sha256_prefix="00000000")
    assert list(tmp_path.iterdir()) == []


def test_broken_download_keeps_the_file_that_was_there(base_url: str, tmp_path: Path) -> None:
    target = tmp_path / "weights.pyth"
    target.write_bytes(b"older and whole")
    with pytest.raises(DownloadError):
        _fetch(f"{base_url}/truncated/weights.pyth", target)
    assert target.read_bytes() == b"older and whole"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pyth"]


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=r"failed after 0 bytes: .*[Rr]efused"):
        _fetch(f"http://127.0.0.1:{port}/weights.pyth", tmp_path / "weights.pyth")
    assert list(tmp_path.iterdir()) == []


def test_slow_connection_and_silent_server_time_out(tmp_path: Path) -> None:
    """A full accept queue lets nobody in; one that accepts and says nothing runs into the other limit."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/weights.pyth"
        with pytest.raises(DownloadError, match=r"failed after 0 bytes: .*[Tt]imed out"):
            _fetch(url, tmp_path / "weights.pyth", connect_timeout_sec=0.3, read_timeout_sec=0.3)
        queued = []
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
            queued.append(waiting)
        with pytest.raises(DownloadError, match=r"no connection to 127.0.0.1:\d+ within 0.3 s"):
            _fetch(url, tmp_path / "weights.pyth", connect_timeout_sec=0.3, read_timeout_sec=0.3)
        for waiting in queued:
            waiting.close()
    assert list(tmp_path.iterdir()) == []


def test_url_without_a_file_name() -> None:
    with pytest.raises(DownloadError, match="names no file"):
        _weights.cached("http://127.0.0.1:1/")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_cache_is_torch_hubs(base_url: str, hub: Path) -> None:
    url = f"{base_url}/plain/X3D_S.pyth"
    path, digest = _weights.cached(url, progress=False)
    assert (path, digest) == (hub / "X3D_S.pyth", DIGEST)
    # Nobody is asked a second time.
    assert _weights.cached("http://127.0.0.1:1/X3D_S.pyth", offline=True) == (path, DIGEST)


def test_offline_asks_nobody(hub: Path) -> None:
    with pytest.raises(DownloadError, match=r"X3D_S.pyth is not in torch hub's cache .* --offline"):
        _weights.cached("http://127.0.0.1:1/X3D_S.pyth", offline=True)


def test_damaged_cache_is_fetched_again_where_a_hash_is_pinned(base_url: str, hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "a.pth").write_bytes(BODY[:1000])
    with pytest.raises(DownloadError, match=r"the cached a.pth: SHA-256 is"):
        _weights.cached(f"{base_url}/plain/a.pth", sha256_prefix=DIGEST[:8], offline=True)
    path, digest = _weights.cached(f"{base_url}/plain/a.pth", sha256_prefix=DIGEST[:8], progress=False)
    assert (digest, path.read_bytes()) == (DIGEST, BODY)
