"""TorchServe's keys: found in its key file, sent with every call, renewed when the server refuses them.

TorchServe writes `key_file.json` into its working folder: one key for predictions and one for management, both
short-lived, and an API key that renews them. Renewing (`GET /token?type=...` on the management address) only rewrites
that file, so a client must be able to read it; a copy on another machine works until it expires.

A key file that nobody named, because it was found in the current folder, belongs to a server on this machine: its keys
go to loopback addresses only.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import urllib3

from .errors import ConnectionFailed, KeyUnavailable

Api = Literal["inference", "management"]

KEY_FILE = "key_file.json"
_API_KEY = "API"
# TorchServe rewrites the file in place: for a moment it is empty or half-written.
_READ_ATTEMPTS = 10
_READ_PAUSE_SEC = 0.05
_RENEW_BEFORE = timedelta(seconds=10)


def is_loopback(address: str) -> bool:
    """Whether a URL or a `host:port` is on this machine: 127.0.0.0/8, ::1 or localhost. Asks no name server."""
    try:
        # The parser of the library that connects, so that both see the same host.
        host = urllib3.util.parse_url(address if "://" in address else f"//{address}").host or ""
    except urllib3.exceptions.LocationParseError:
        return False
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class KeyRing:
    """The key for each API: given as a token, or from the key file as it is now. Safe to share between threads.

    `addresses` are where the calls of each API go, `renew_url` is the HTTP management address. Without tokens and
    without `key_file`, `default_key_file` is used if it is there, for loopback addresses; other calls go out without a
    key, as a server with token authorization turned off takes them.
    """

    def __init__(
        self,
        *,
        token: str | None,
        management_token: str | None,
        key_file: str | Path | None,
        default_key_file: str | Path,
        addresses: Mapping[Api, str],
        renew_url: str,
    ) -> None:
        self._tokens: dict[Api, str | None] = {"inference": token, "management": management_token or token}
        self._explicit = key_file is not None
        # Absolute at once: the current folder may change later.
        self.key_file = Path(default_key_file if key_file is None else key_file).absolute()
        self._local = {api: is_loopback(address) for api, address in addresses.items()}
        self._renew_url = renew_url
        self._lock = threading.Lock()

    def current(self, api: Api) -> str | None:
        """The key to send; None to send none. Raises KeyUnavailable for a key file that was named but is not usable."""
        token = self._tokens[api]
        if token is not None:
            return token
        if not self._explicit and not (self._local[api] and self.key_file.is_file()):
            return None
        return self._read(api)

    def valid(self, api: Api) -> str:
        """The key for a program that sends it itself: renewed first where the key file says that it has expired.

        Raises KeyUnavailable if there is no key or it cannot be renewed, ConnectionFailed if nobody answers.
        """
        token = self._tokens[api]
        if token is not None:
            return token
        key = self._read(api)
        if not self._has_expired(api):
            return key
        fresh = self.renewed(api, refused=key)
        if fresh is None:
            raise KeyUnavailable(f"the {api} key of {self.key_file} has expired and could not be renewed")
        return fresh

    def expires(self, api: Api) -> datetime | None:
        """When the key of that API ends; None where no key file is used, it is not there or does not say."""
        used = self._tokens[api] is None and (self._explicit or self._local[api])
        return self._end(api) if used else None

    def _end(self, api: Api) -> datetime | None:
        try:
            text = str(json.loads(self.key_file.read_text(encoding="utf-8"))[api]["expiration time"])
            # UTC with a fraction of a second of any length, which Python 3.10 cannot parse.
            return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _has_expired(self, api: Api) -> bool:
        """Where nothing tells when the key ends, the server decides."""
        end = self._end(api)
        return end is not None and end <= datetime.now(timezone.utc) + _RENEW_BEFORE

    def renewed(self, api: Api, *, refused: str | None) -> str | None:
        """Another key than the one refused: the file's, if it has changed since, else a renewed one; or None.

        Raises KeyUnavailable if the server does not renew, ConnectionFailed if it does not answer.
        """
        if self._tokens[api] is not None or not self.key_file.is_file():
            return None
        if not self._explicit and not self._local[api]:
            return None
        with self._lock:  # one renewal serves every thread that was refused; a second would void the first
            key = self._read(api)
            if key == refused:
                self._request_renewal(api)
                key = self._read(api)
        return key if key != refused else None

    def refusal(self, api: Api) -> str:
        """What a refusal by the server means, for messages: where the key came from. Never the key itself."""
        if self._tokens[api] is not None:
            return f"the server refused the {api} token that was given"
        if not self.key_file.is_file():
            return f"the server wants the {api} key: no token was given, and there is no {self.key_file}"
        if not self._explicit and not self._local[api]:
            return (
                f"the server wants the {api} key, and the keys of {self.key_file} are sent to other machines only "
                "where the file is named as key_file"
            )
        return f"the server refused the {api} key of {self.key_file}"

    def _read(self, name: str) -> str:
        for attempt in range(_READ_ATTEMPTS):
            if attempt:
                time.sleep(_READ_PAUSE_SEC)
            try:
                entries: Any = json.loads(self.key_file.read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise KeyUnavailable(
                    f"there is no key file {self.key_file}; TorchServe writes {KEY_FILE} into its working folder"
                ) from None
            except OSError as error:
                raise KeyUnavailable(f"the key file {self.key_file} cannot be read: {error.strerror}") from None
            except ValueError:
                continue
            entry = entries.get(name) if isinstance(entries, dict) else None
            if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                return str(entry["key"])
        raise KeyUnavailable(f"{self.key_file} is not a key file of TorchServe: it holds no {name} key")

    def _request_renewal(self, api: Api) -> None:
        if not self._explicit and not is_loopback(self._renew_url):
            raise KeyUnavailable(
                f"the {api} key of {self.key_file} was refused, and it is not renewed at {self._renew_url}, which is "
                "another machine: only a file that is named as key_file is"
            )
        url = f"{self._renew_url}/token"
        headers = {"Authorization": f"Bearer {self._read(_API_KEY)}"}
        try:
            answer = urllib3.request("GET", url, fields={"type": api}, headers=headers, retries=False, timeout=30.0)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionFailed(
                f"the {api} key has expired, and the management address {self._renew_url}, which renews it, "
                f"does not answer: {error}",
                sent=True,
            ) from None
        if answer.status != 200:
            raise KeyUnavailable(
                f"the {api} key of {self.key_file} was refused, and {self._renew_url} does not renew it: "
                "is it the key file of another server?"
            )
