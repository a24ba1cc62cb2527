"""How one call is made, whatever carries it: with a key, and again where that is safe. HTTP and gRPC add the rest."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from .errors import ClientError, ConnectionFailed, InvalidKey, VideoTooLarge
from .keys import Api, KeyRing
from .retry import Retry, is_safe
from .source import Source

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself only since Python 3.11

T = TypeVar("T")

# The first answer to a refused key is to read the key file again, the second to have it renewed.
_MAX_RENEWALS = 2
# TorchServe closes the connection on a body that is too large, without an answer. Bodies smaller than this fit into the
# sockets' buffers, so for them a cut connection has another cause.
_CUT_OFF_BYTES = 2**20


class Transport(ABC):
    """Keys, retries and connections; subclasses say how a call travels."""

    _waits_for_workers = True
    """Whether registering and scaling return when the workers are ready; else they return at once."""

    def __init__(self, keys: KeyRing, retry: Retry) -> None:
        self._keys = keys
        self._retry = retry

    def close(self) -> None:  # noqa: B027 - a transport without connections has nothing to do
        """Close the connections; the client cannot be used afterwards."""

    def key(self, api: Api = "inference") -> str:
        """A valid key for that API, renewed first if it has expired: for `curl` and other programs that send it.

        Raises KeyUnavailable, or ConnectionFailed if the server that has to renew it does not answer.
        """
        return self._keys.valid(api)

    def key_expires(self, api: Api = "inference") -> datetime | None:
        """When that API's key ends, as the key file says; None where no key file is used, or it does not say."""
        return self._keys.expires(api)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(self, api: Api, send: Callable[[str | None], T], *, repeatable: bool, retry: Retry | None = None) -> T:
        """`send(key)`, again with another key where it is refused, and after a pause where that is safe."""
        key, renewals = self._keys.current(api), 0
        delays_sec = (retry or self._retry).delays_sec()
        while True:
            try:
                return send(key)
            except InvalidKey as error:
                fresh = self._keys.renewed(api, refused=key) if renewals < _MAX_RENEWALS else None
                if fresh is None:
                    raise InvalidKey(self._keys.refusal(api), status=error.status, type=error.type) from None
                key, renewals = fresh, renewals + 1
            except ClientError as error:
                delay_sec = next(delays_sec, None) if is_safe(error, repeatable=repeatable) else None
                if delay_sec is None:
                    raise
                time.sleep(delay_sec)

    @abstractmethod
    def _explain(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> bytes:
        """The body of an explanation; raises InvalidOption where this transport carries none."""

    def _predict_once(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> bytes:
        try:
            return self._predict(key, source, model, version, options)
        except ConnectionFailed as error:
            size = source.size()
            if error.sent and size > _CUT_OFF_BYTES and self._is_up(key):
                raise VideoTooLarge(
                    f"the server cut the connection while {size} bytes were being sent: "
                    "most likely more than its max_request_size"
                ) from None
            raise

    def _is_up(self, key: str | None) -> bool:
        try:
            self._ping(key)
        except ClientError:
            return False
        return True

    # What HTTP and gRPC add. Each takes the key to send, raises errors of this package, and does not retry.

    @abstractmethod
    def _predict(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> bytes:
        """The body of the answer."""

    @abstractmethod
    def _ping(self, key: str | None) -> None:
        """Return if the server answers."""

    @abstractmethod
    def _list(self, key: str | None, page_token: str | None) -> str:
        """One page of model names, JSON text."""

    @abstractmethod
    def _describe(self, key: str | None, model: str, version: str | None, customized: bool) -> str:
        """The description, JSON text."""

    @abstractmethod
    def _register(self, key: str | None, settings: Mapping[str, str | int]) -> str:
        """TorchServe's sentence, as with the three that follow."""

    @abstractmethod
    def _set_default(self, key: str | None, model: str, version: str) -> str: ...

    @abstractmethod
    def _scale(self, key: str | None, model: str, version: str | None, min_workers: int, max_workers: int) -> str: ...

    @abstractmethod
    def _unregister(self, key: str | None, model: str, version: str | None) -> str: ...
