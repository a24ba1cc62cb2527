"""The HTTP client: streams files from disk, keeps connections alive. The only module that names urllib3's errors."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import IO, Literal, overload
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from .base import Average, BaseClient
from .errors import (
    ApiError,
    ConnectionFailed,
    InvalidAnswer,
    InvalidOption,
    RequestTimeout,
    ServingError,
    VideoTooLarge,
    error_in,
)
from .events import LINES_TYPE, EmbeddingEvent, StreamEvent, events_of, events_of_answer
from .keys import KEY_FILE, KeyRing
from .retry import Retry
from .source import Source, Video

__all__ = ["Video", "VideoClient"]

DEFAULT_URL = "http://127.0.0.1:8080"
_MANAGEMENT_PORT = 8081
_CONNECT_TIMEOUT_SEC = 10.0
_MANAGEMENT_TIMEOUT_SEC = 60.0
_CONNECTIONS = 32


class VideoClient(BaseClient):
    """Talks HTTP to TorchServe.

        with VideoClient() as client:
            print(client.classify("clip.mp4", model="x3d_s").top.label)

    `url` is the inference address; `management_url` is the same host's port 8081 unless given. Keys come from `token`
    (and `management_token`, which is `token` unless given) or from `key_file`. Where neither is given, they come from
    `default_key_file`, `key_file.json` in the current folder, for loopback addresses alone. `timeout_sec` is how long
    an answer to a prediction may take.
    """

    _waits_for_workers = False

    def __init__(
        self,
        url: str = DEFAULT_URL,
        management_url: str | None = None,
        *,
        token: str | None = None,
        management_token: str | None = None,
        key_file: str | Path | None = None,
        default_key_file: str | Path = KEY_FILE,
        timeout_sec: float = 120.0,
        retry: Retry | None = None,
    ) -> None:
        self.url = checked_url(url)
        self.management_url = checked_url(management_url) if management_url else management_of(self.url)
        keys = KeyRing(
            token=token,
            management_token=management_token,
            key_file=key_file,
            default_key_file=default_key_file,
            addresses={"inference": self.url, "management": self.management_url},
            renew_url=self.management_url,
        )
        super().__init__(keys, retry or Retry())
        self._timeout_sec = timeout_sec
        self._pool = urllib3.PoolManager(maxsize=_CONNECTIONS, retries=False)

    def close(self) -> None:
        self._pool.clear()

    def _predict(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> bytes:
        return self._post(key, source, _prediction_path(model, version), options)

    def _explain(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> bytes:
        target = options.get("target", "")
        if not target.isascii():
            raise InvalidOption(f"HTTP headers carry ASCII alone: give the class id instead of the label {target!r}")
        return self._post(key, source, _prediction_path(model, version, "explanations"), options)

    def _post(self, key: str | None, source: Source, path: str, options: Mapping[str, str]) -> bytes:
        """The whole answer to a video, with the options as headers."""
        url, headers = self.url + path, _video_headers(source, options)
        with source.stream() as body:
            return self._send("POST", url, key, headers=headers, body=body, timeout_sec=self._timeout_sec)

    @overload
    def stream(
        self,
        video: Video,
        *,
        model: str,
        version: str | None = None,
        output: Literal["scores"] = "scores",
        stride_sec: float | None = None,
        top_k: int | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        average: Average | None = None,
        threshold: float | None = None,
    ) -> Generator[StreamEvent, None, None]: ...

    @overload
    def stream(
        self,
        video: Video,
        *,
        model: str,
        version: str | None = None,
        output: Literal["embedding"],
        stride_sec: float | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
    ) -> Generator[EmbeddingEvent, None, None]: ...

    def stream(
        self,
        video: Video,
        *,
        model: str,
        version: str | None = None,
        output: Literal["scores", "embedding"] = "scores",
        stride_sec: float | None = None,
        top_k: int | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        average: Average | None = None,
        threshold: float | None = None,
    ) -> Generator[StreamEvent | EmbeddingEvent, None, None]:
        """The answer to a video as events, each as soon as the server knows it: `timeline` while it is computed.

        With `output="embedding"` windows and end have features instead of labels, as `embed` answers them.
        Without `stride_sec` the windows are the `num_clips` clips. Raises as `classify` does, also between events when
        something goes wrong after the first window. Close the iterator to leave early.
        """
        options = {
            "output": None if output == "scores" else output,
            "stride_sec": stride_sec,
            "top_k": top_k,
            "start_sec": start_sec,
            "end_sec": end_sec,
            "num_clips": num_clips,
            "num_crops": num_crops,
            "average": average,
            "threshold": threshold,
        }
        texts = {name: str(value) for name, value in options.items() if value is not None}
        source = Source.of(video)
        answer = self._call(
            "inference", lambda key: self._begin_stream(key, source, model, version, texts), repeatable=True
        )
        try:
            if answer.headers.get("content-type", "").startswith(LINES_TYPE):
                yield from events_of(self._lines(answer))
            else:
                yield from events_of_answer(json.loads(answer.read()))
        except (ValueError, KeyError, TypeError):
            raise InvalidAnswer(f"the answer of {model} is not one of this project's handlers") from None
        finally:
            answer.close()  # what is left of it would otherwise come before the next answer on this connection

    def _begin_stream(
        self, key: str | None, source: Source, model: str, version: str | None, options: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        url = self.url + _prediction_path(model, version)
        with source.stream() as body:
            headers = _video_headers(source, {**options, "stream": "true", "format": "full"})
            answer = self._request("POST", url, key, headers=headers, body=body, timeout_sec=self._timeout_sec)
        if not 200 <= answer.status < 300:
            raise _refusal(answer, answer.read(), self.url)
        return answer

    def _lines(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        rest = b""
        try:
            for data in answer.stream():
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
        except urllib3.exceptions.TimeoutError:
            raise RequestTimeout(f"{self.url} sent no further line within {self._timeout_sec:g} s") from None
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionFailed(f"the connection to {self.url} was lost: {error}", sent=True) from None
        yield rest

    def _ping(self, key: str | None) -> None:
        self._send("GET", f"{self.url}/ping", key, timeout_sec=_CONNECT_TIMEOUT_SEC)

    def _list(self, key: str | None, page_token: str | None) -> str:
        return self._management("GET", "/models", key, {} if page_token is None else {"next_page_token": page_token})

    def _describe(self, key: str | None, model: str, version: str | None, customized: bool) -> str:
        return self._management("GET", _model_path(model, version), key, {"customized": "true"} if customized else {})

    def _register(self, key: str | None, settings: Mapping[str, str | int]) -> str:
        return _sentence(self._management("POST", "/models", key, {**settings, "synchronous": "false"}))

    def _set_default(self, key: str | None, model: str, version: str) -> str:
        return _sentence(self._management("PUT", f"{_model_path(model, version)}/set-default", key))

    def _scale(self, key: str | None, model: str, version: str | None, min_workers: int, max_workers: int) -> str:
        query: dict[str, str | int] = {"min_worker": min_workers, "max_worker": max_workers, "synchronous": "false"}
        return _sentence(self._management("PUT", _model_path(model, version), key, query))

    def _unregister(self, key: str | None, model: str, version: str | None) -> str:
        return _sentence(self._management("DELETE", _model_path(model, version), key))

    def _management(self, method: str, path: str, key: str | None, query: Mapping[str, str | int] | None = None) -> str:
        url = self.management_url + path + (f"?{urlencode(query)}" if query else "")
        return self._send(method, url, key, timeout_sec=_MANAGEMENT_TIMEOUT_SEC).decode(errors="replace")

    def _send(
        self,
        method: str,
        url: str,
        key: str | None,
        *,
        timeout_sec: float,
        headers: Mapping[str, str] | None = None,
        body: IO[bytes] | bytes | None = None,
    ) -> bytes:
        """One request, once: the body of a 2xx answer. Every error of urllib3 becomes one of this package."""
        answer = self._request(method, url, key, timeout_sec=timeout_sec, headers=headers, body=body, preload=True)
        if not 200 <= answer.status < 300:
            raise _refusal(answer, answer.data, "{0.scheme}://{0.netloc}".format(urlsplit(url)))
        return answer.data

    def _request(
        self,
        method: str,
        url: str,
        key: str | None,
        *,
        timeout_sec: float,
        headers: Mapping[str, str] | None = None,
        body: IO[bytes] | bytes | None = None,
        preload: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, whatever its status; its body has been read if `preload` says so."""
        sent_headers = dict(headers or {}) | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = urllib3.Timeout(connect=_CONNECT_TIMEOUT_SEC, read=timeout_sec)
        where = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        try:
            return self._pool.request(
                method,
                url,
                headers=sent_headers,
                body=body,
                timeout=timeout,
                redirect=False,
                preload_content=preload,
            )
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            raise ConnectionFailed(f"nothing answers at {where}; is the server running?", sent=False) from None
        except urllib3.exceptions.TimeoutError:
            raise RequestTimeout(f"{where} did not answer within {timeout_sec:g} s") from None
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionFailed(f"the connection to {where} was lost: {error}", sent=True) from None


def _prediction_path(model: str, version: str | None, what: str = "predictions") -> str:
    return f"/{what}/{quote(model, safe='')}" + (f"/{quote(version, safe='')}" if version else "")


def _video_headers(source: Source, options: Mapping[str, str]) -> dict[str, str]:
    return {
        "Content-Type": source.content_type,
        # Given with a length, a file is streamed as it is; TorchServe needs no chunked encoding.
        "Content-Length": str(source.size()),
        **{option_header(name): value for name, value in options.items()},
    }


def option_header(name: str) -> str:
    """`top_k` -> `X-Top-K`."""
    return "X-" + "-".join(part.capitalize() for part in name.split("_"))


def checked_url(url: str) -> str:
    """Without a slash at its end; ValueError if it is no http or https address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the server's address must look like {DEFAULT_URL}, got {url!r}")
    return url.rstrip("/")


def management_of(url: str) -> str:
    """TorchServe's default management address on the same host."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{_MANAGEMENT_PORT}"


def _model_path(model: str, version: str | None) -> str:
    return f"/models/{quote(model, safe='')}" + (f"/{quote(version, safe='')}" if version else "")


def _sentence(text: str) -> str:
    try:
        return str(json.loads(text)["status"])
    except (ValueError, KeyError, TypeError):
        raise InvalidAnswer(f"the management answer has no status: {text[:80]!r}") from None


def _refusal(answer: urllib3.BaseHTTPResponse, body: bytes, where: str) -> ApiError:
    """The error of an answer that is not 2xx, with the server's id of the request."""
    error = _error_of(answer.status, body, where)
    error.request_id = answer.headers.get("x-request-id")
    return error


def _error_of(status: int, body: bytes, where: str) -> ApiError:
    """Where the body is not TorchServe's own, the status has to do."""
    known = error_in(body, status=status)
    if known is not None:
        return known
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # TorchServe's answer to it has no body
        return VideoTooLarge(f"the request is larger than {where} allows (its max_request_size)")
    text = body[:200].decode(errors="replace").strip() or "with no explanation"
    return ServingError(f"{where} answered {status}: {text}", status=status, type="ServingError")
