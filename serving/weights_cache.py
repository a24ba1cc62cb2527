"""Downloaded weights, kept on disk by their URL: two files of the same name never stand in for each other.

A file's place is `HUB/video-action-serving/SHA-256 OF THE URL/NAME`, where HUB is torch hub's folder, with
`NAME.sha256` beside it: the SHA-256 of the first download, as `sha256sum` writes it.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

import torch

from serving.download import DownloadError, check_hash, fetch, file_name_of, refuse_plain_http, sha256_of

_FOLDER = "video-action-serving"


def cached(
    url: str, *, sha256_prefix: str | None = None, offline: bool = False, progress: bool = True
) -> tuple[Path, str]:
    """The file of a URL and its SHA-256; downloaded when it is not there and not `offline`.

    With `sha256_prefix`, a pinned hash, the file that torch hub itself has cached under the URL's file name is used
    where it has that hash, and a damaged file is downloaded again. Without one, the SHA-256 of the first download is
    recorded, and every later use has to agree with it. Raises DownloadError with one sentence.
    """
    path = cache_path(url)
    if sha256_prefix is None:
        refuse_plain_http(url)
        return _recorded(url, path, offline=offline, progress=progress)
    for place in (path, _hub_path(url)):
        if place.is_file() and (digest := sha256_of(place)).startswith(sha256_prefix):
            return place, digest
    if offline:
        if path.is_file():
            check_hash(sha256_of(path), sha256_prefix, origin=f"the cached {path.name}")
        raise _not_cached(url)
    return path, fetch(url, path, sha256_prefix=sha256_prefix, progress=progress)


def cache_path(url: str) -> Path:
    """Where the file of a URL is kept. Raises DownloadError for a URL that names no file."""
    key = hashlib.sha256(url.encode()).hexdigest()
    return Path(torch.hub.get_dir()) / _FOLDER / key / file_name_of(url)


def _recorded(url: str, path: Path, *, offline: bool, progress: bool) -> tuple[Path, str]:
    record = path.with_name(f"{path.name}.sha256")
    first = _read_record(record)
    if path.is_file() and first is not None:
        digest = sha256_of(path)
        if digest != first:
            raise _changed(path, digest, first, what="the cached file")
        return path, digest
    if offline:
        raise _not_cached(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Downloaded aside: a file that differs from the recorded one never has the cached file's name.
    with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as aside:
        arrived = Path(aside, path.name)
        digest = fetch(url, arrived, progress=progress)
        if first is not None and digest != first:
            raise _changed(path, digest, first, what="what the URL answers now")
        record.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
        arrived.replace(path)
    return path, digest


def _read_record(record: Path) -> str | None:
    """The recorded SHA-256, None where there is no record. Raises DownloadError for one that is damaged."""
    if not record.is_file():
        return None
    found = re.match(r"[0-9a-f]{64}\b", record.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise DownloadError(f"the record {record} holds no SHA-256; delete its folder to download the file again")
    return found[0]


def _hub_path(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / file_name_of(url)


def _not_cached(url: str) -> DownloadError:
    return DownloadError(
        f"{file_name_of(url)} of {url} is not in the cache ({cache_path(url).parent}), and --offline forbids to fetch "
        "it"
    )


def _changed(path: Path, digest: str, first: str, *, what: str) -> DownloadError:
    return DownloadError(
        f"{path.name}: {what} has the SHA-256 {digest}, and the first download had {first}; "
        f"delete {path.parent} to accept another file"
    )
