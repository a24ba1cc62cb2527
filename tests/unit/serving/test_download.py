"""Downloads against a loopback server: whole files or none, whatever the server does."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from handlers.specs import get_spec
from serving.download import DownloadError, fetch
from serving.weights import checkpoint_weights, published_weights, random_weights
from serving.weights_cache import cache_path, cached
from tests.support.paths import REPOSITORY

BODY = bytes(range(256)) * 9000  # 2.3 MB: more than one block
DIGEST = hashlib.sha256(BODY).hexdigest()
TLS = REPOSITORY / "tests" / "support" / "loopback_tls.pem"


class _Files(BaseHTTPRequestHandler):
    """Serves BODY at every path; the path's first part says what goes wrong on the way."""

    def do_GET(self) -> None:
        trouble = self.path.split("/")[1]
        if trouble == "missing":
            self.send_error(404, "Not Found")
            return
        if trouble == "moved":
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2] or "/plain/weights.pyth")
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


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], *, tls: bool = False) -> Iterator[str]:
    """The address of a server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS)
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with served(_Files) as url:
        yield url


@pytest.fixture
def https_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """As `base_url`, over TLS with a certificate that is trusted here."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS))
    with served(_Files, tls=True) as url:
        yield url


def _fetch(url: str, target: Path, **options: object) -> str:
    return fetch(url, target, **{"progress": False, "sha256_prefix": DIGEST[:8], **options})  # type: ignore[arg-type]


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


def test_plain_http_without_a_hash_is_refused(base_url: str, https_url: str, tmp_path: Path) -> None:
    """At the URL itself and behind a redirect; nothing is downloaded, and the sentence says what to do instead."""
    target = tmp_path / "weights.pyth"
    for url in (f"{base_url}/plain/weights.pyth", f"{https_url}/moved/weights.pyth?{base_url}/plain/weights.pyth"):
        with pytest.raises(DownloadError, match=r"plain http .*; use an https URL, or download .* give the file$"):
            _fetch(url, target, sha256_prefix=None)
        assert list(tmp_path.iterdir()) == []
    assert _fetch(f"{https_url}/moved/weights.pyth", target, sha256_prefix=None) == DIGEST


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_url_without_a_file_name(hub: Path) -> None:
    with pytest.raises(DownloadError, match="names no file"):
        cached("https://127.0.0.1:1/")


def test_a_second_use_asks_nobody(https_url: str, hub: Path) -> None:
    url = f"{https_url}/plain/X3D_S.pyth"
    path, digest = cached(url, progress=False)
    assert digest == DIGEST
    assert path.parent.name == hashlib.sha256(url.encode()).hexdigest()
    assert path.name == "X3D_S.pyth"
    assert sorted(each.name for each in path.parent.iterdir()) == ["X3D_S.pyth", "X3D_S.pyth.sha256"]
    assert path.with_name("X3D_S.pyth.sha256").read_text() == f"{DIGEST}  X3D_S.pyth\n"
    assert cached(url, offline=True) == (path, DIGEST)


def test_a_file_of_the_same_name_from_elsewhere_is_another_file(https_url: str, hub: Path) -> None:
    """Neither another URL's download nor what lies in torch hub's cache under that name stands in for it."""
    cached(f"{https_url}/plain/X3D_S.pyth", progress=False)
    hub.mkdir(parents=True)
    (hub / "X3D_S.pyth").write_bytes(b"another model")
    with pytest.raises(DownloadError, match=r"X3D_S.pyth of https://127.0.0.1:1/X3D_S.pyth is not in the cache"):
        cached("https://127.0.0.1:1/X3D_S.pyth", offline=True)


def test_a_foreign_checkpoint_never_passes_as_published(hub: Path) -> None:
    """The weights of x3d_xs are those of its URL, whatever was cached as X3D_XS.pyth before."""
    spec = get_spec("x3d_xs")
    foreign = random_weights(spec, num_classes=400, seed=1).state_dict
    hub.mkdir(parents=True)
    torch.save({"model_state": dict(foreign)}, hub / "X3D_XS.pyth")
    elsewhere = "https://elsewhere.example/X3D_XS.pyth"
    path = cache_path(elsewhere)
    path.parent.mkdir(parents=True)
    path.write_bytes((hub / "X3D_XS.pyth").read_bytes())
    record = f"{hashlib.sha256(path.read_bytes()).hexdigest()}  X3D_XS.pyth\n"
    path.with_name("X3D_XS.pyth.sha256").write_text(record)
    given = checkpoint_weights(elsewhere, spec, offline=True).info
    assert (given.kind, given.source) == ("checkpoint", elsewhere)
    with pytest.raises(DownloadError, match="is not in the cache"):
        published_weights(spec, offline=True)


def test_torch_hubs_file_is_used_where_a_pinned_hash_says_that_it_is_the_one(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "a.pth").write_bytes(BODY)
    found = cached("https://127.0.0.1:1/a.pth", sha256_prefix=DIGEST[:8], offline=True)
    assert found == (hub / "a.pth", DIGEST)
    with pytest.raises(DownloadError, match="is not in the cache"):
        cached("https://127.0.0.1:1/a.pth", sha256_prefix="00000000", offline=True)


def test_offline_asks_nobody(hub: Path) -> None:
    with pytest.raises(DownloadError, match=r"X3D_S.pyth .* is not in the cache .* --offline"):
        cached("https://127.0.0.1:1/X3D_S.pyth", offline=True)


def test_damaged_cache_is_fetched_again_where_a_hash_is_pinned(base_url: str, hub: Path) -> None:
    url = f"{base_url}/plain/a.pth"
    cache_path(url).parent.mkdir(parents=True)
    cache_path(url).write_bytes(BODY[:1000])
    with pytest.raises(DownloadError, match=r"the cached a.pth: SHA-256 is"):
        cached(url, sha256_prefix=DIGEST[:8], offline=True)
    path, digest = cached(url, sha256_prefix=DIGEST[:8], progress=False)
    assert (digest, path.read_bytes()) == (DIGEST, BODY)


def test_without_a_pinned_hash_the_first_download_decides(https_url: str, hub: Path) -> None:
    """A cached file that was changed, and a URL that answers another file than the first time, are refused."""
    url = f"{https_url}/plain/a.pth"
    path, _ = cached(url, progress=False)
    path.write_bytes(BODY[:1000])
    changed = hashlib.sha256(BODY[:1000]).hexdigest()
    with pytest.raises(DownloadError) as raised:
        cached(url, progress=False)
    assert re.fullmatch(
        rf"a\.pth: the cached file has the SHA-256 {changed}, and the first download had {DIGEST}; "
        rf"delete {re.escape(str(path.parent))} to accept another file",
        str(raised.value),
    )
    path.unlink()
    assert cached(url, progress=False) == (path, DIGEST)
    path.unlink()
    record = path.with_name("a.pth.sha256")
    record.write_text(f"{'0' * 64}  a.pth\n")
    with pytest.raises(DownloadError, match=f"what the URL answers now has the SHA-256 {DIGEST}, and the first"):
        cached(url, progress=False)
    assert list(path.parent.iterdir()) == [record]
    record.write_text("not a hash")
    with pytest.raises(DownloadError, match="holds no SHA-256"):
        cached(url, progress=False)


def test_published_weights_that_cannot_be_had_name_the_ways_out(hub: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"--offline.* Ways out: .*x3d_s --checkpoint FILE.*--weights random.*camera_"
    ):
        published_weights(get_spec("x3d_s"), offline=True)
