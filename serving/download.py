"""Downloads that are whole or not there: a temporary name, the length and the hash checked, then one rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

CONNECT_TIMEOUT_SEC = 10.0
READ_TIMEOUT_SEC = 60.0
"""Seconds without a single byte, after which a connection counts as broken."""
_BLOCK_BYTES = 1 << 20


class DownloadError(Exception):
    """The download failed, or the bytes are not those expected; no file was left behind."""


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name_of(url: str) -> str:
    """The last part of a URL's path; raises DownloadError where there is none."""
    name = Path(urlsplit(url).path).name
    if not name:
        raise DownloadError(f"the URL {url} names no file")
    return name


def refuse_plain_http(url: str) -> None:
    """Raises DownloadError for a URL whose answer anyone on the way could have replaced."""
    if urlsplit(url).scheme != "https":
        raise DownloadError(
            f"{url} is plain http and its SHA-256 is not known, so the file could have been replaced on the way; "
            "use an https URL, or download the file, check it and give the file"
        )


def fetch(
    url: str,
    target: Path,
    *,
    sha256_prefix: str | None = None,
    connect_timeout_sec: float = CONNECT_TIMEOUT_SEC,
    read_timeout_sec: float = READ_TIMEOUT_SEC,
    progress: bool = True,
) -> str:
    """Downloads `url` to `target` and returns its SHA-256; `target` appears whole or not at all.

    A partial download is discarded, not resumed: a server's file may have changed, and only a pinned hash could tell.
    Raises DownloadError when the server cannot be reached, answers anything but 200, sends fewer or more bytes than it
    announced, or the bytes do not have the pinned hash; without a pinned hash, also for plain http, at the URL itself
    or where it redirects to.
    """
    if sha256_prefix is None:
        refuse_plain_http(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial_name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    partial = Path(partial_name)
    try:
        with os.fdopen(handle, "wb") as file:
            timeout = (connect_timeout_sec, read_timeout_sec)
            digest = _stream(url, file, timeout, plain_http=sha256_prefix is not None, progress=progress)
            file.flush()
            os.fsync(file.fileno())
        check_hash(digest, sha256_prefix, origin=url)
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return digest


def check_hash(digest: str, sha256_prefix: str | None, *, origin: str) -> None:
    """Raises DownloadError unless the hash begins as pinned."""
    if sha256_prefix is not None and not digest.startswith(sha256_prefix.lower()):
        raise DownloadError(f"{origin}: SHA-256 is {digest}, expected it to begin with {sha256_prefix}")


def _stream(url: str, file: BinaryIO, timeout: tuple[float, float], *, plain_http: bool, progress: bool) -> str:
    """Writes the answer's body to `file`; returns its SHA-256 once as many bytes came as were announced."""
    digest, received = hashlib.sha256(), 0
    try:
        # Without compression on the way, Content-Length is the file's length.
        with requests.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"}) as answer:
            if not plain_http:
                for hop in (*answer.history, answer):
                    refuse_plain_http(hop.url)
            if answer.status_code != requests.codes.ok:
                raise DownloadError(f"{url} answered {answer.status_code} {answer.reason}")
            announced = answer.headers.get("Content-Length")
            expected = int(announced) if announced is not None and announced.isdigit() else None
            bar = tqdm(
                total=expected,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                desc=file_name_of(url),
                disable=not progress,
            )
            with bar:
                for block in answer.iter_content(_BLOCK_BYTES):
                    file.write(block)
                    digest.update(block)
                    received += len(block)
                    bar.update(len(block))
    except requests.ConnectTimeout as error:
        raise DownloadError(f"no connection to {urlsplit(url).netloc} within {timeout[0]:g} s") from error
    except requests.RequestException as error:
        raise DownloadError(f"the download of {url} failed after {received} bytes: {_reason(error)}") from error
    if expected is not None and received != expected:
        raise DownloadError(f"the download of {url} ended after {received} of {expected} bytes")
    if received == 0:
        raise DownloadError(f"{url} answered with an empty file")
    return digest.hexdigest()


def _reason(error: requests.RequestException) -> str:
    """The innermost message: requests wraps urllib3's errors, which wrap the socket's."""
    cause: object = error
    while getattr(cause, "args", ()) and isinstance(cause.args[0], Exception):  # type: ignore[attr-defined]
        cause = cause.args[0]  # type: ignore[attr-defined]
    reason = getattr(cause, "reason", None)
    return str(reason or cause)
