"""Management: the methods about models, versions and workers, in terms of what a transport carries."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .errors import (
    ERROR_KEYS,
    ApiError,
    ConnectionFailed,
    InvalidAnswer,
    KeyUnavailable,
    ModelNotFound,
    RequestTimeout,
    ServerBusy,
    ServingError,
)
from .results import ModelInfo
from .retry import NO_RETRY, Retry
from .transport import Transport
from .upgrade import DRAIN_SEC, drain, upgrade
from .workers import wait_for_workers

_READY_POLL_SEC = 0.25


class Management(Transport):
    """Models and their versions: listed, described, registered, replaced, scaled, removed."""

    def models(self) -> tuple[ModelInfo, ...]:
        """Every version of every served model, by name; one of each name is the default."""
        return tuple(info for name in sorted(self._model_names()) for info in self._versions(name))

    def describe(self, model: str, version: str | None = None) -> ModelInfo:
        """One version, the default one unless given, with its handler's description (`metadata`).

        `metadata` is None as long as no worker is ready, and for handlers that tell nothing.
        """
        entry = self._described(model, version)[0]
        default = version is None or self._described(model, None)[0].get("modelVersion") == version
        info = ModelInfo.from_json(entry, default=default)
        if not info.ready:
            return info
        try:
            description = self._described(model, version, customized=True)[0].get("customizedMetadata")
        except ApiError:  # the handler cannot describe itself; what TorchServe knows is still worth telling
            return info
        return replace(info, metadata=_metadata(description))

    def register(
        self,
        archive: str,
        *,
        model: str | None = None,
        workers: int | None = None,
        batch_size: int | None = None,
        max_batch_delay_ms: int | None = None,
        response_timeout_sec: int | None = None,
        startup_timeout_sec: int | None = None,
    ) -> str:
        """Register an archive of the model store and wait until its workers are ready; TorchServe's own sentence.

        What is not given is as the archive says; the first version of a name becomes its default.
        """
        settings: dict[str, str | int | None] = {
            "url": archive,
            "model_name": model,
            "initial_workers": workers,
            "batch_size": batch_size,
            "max_batch_delay": max_batch_delay_ms,
            "response_timeout": response_timeout_sec,
            "startup_timeout": startup_timeout_sec,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        before = set() if self._waits_for_workers else self._served()
        sentence = self._manage(lambda key: self._register(key, given))
        if self._waits_for_workers:
            return sentence
        name, version = self._new_since(before, archive)
        try:
            info = self._wait_for_workers(name, version, None)
        except ServingError:
            self.unregister(name, version, drain_sec=0)
            raise
        return f'Model "{name}" Version: {version} registered with {len(info.workers)} workers'

    def set_default(self, model: str, version: str) -> str:
        """Make that version the one which answers when none is named; TorchServe's own sentence."""
        return self._manage(lambda key: self._set_default(key, model, version))

    def scale(self, model: str, version: str | None = None, *, min_workers: int, max_workers: int | None = None) -> str:
        """Change the number of workers and wait until they run; TorchServe's own sentence."""
        most = min_workers if max_workers is None else max_workers
        sentence = self._manage(lambda key: self._scale(key, model, version, min_workers, most))
        if self._waits_for_workers:
            return sentence
        info = self._wait_for_workers(model, version, min_workers)
        return f'Workers scaled to {min_workers} for model "{model}" version {info.version}'

    def unregister(self, model: str, version: str | None = None, *, drain_sec: float = DRAIN_SEC) -> str:
        """Remove a version, the default one unless given; TorchServe's own sentence.

        Waits until the version has no requests left, because TorchServe loses those that it has; raises RequestTimeout
        if it still has some after `drain_sec` seconds, and then it is still served. 0 removes it at once.

        The default version can only be removed as the last one: make another the default first.
        """
        if drain_sec > 0:
            drain(self, model, version, timeout_sec=drain_sec)
        return self._manage(lambda key: self._unregister(key, model, version))

    def upgrade(self, model: str, archive: str, *, workers: int | None = None, drain_sec: float = DRAIN_SEC) -> str:
        """Serve another version of a model in place of its default one, without losing a request; the new version.

        Registers the archive of the model store, waits until its workers are ready, makes it the default, waits until
        the old version has no requests left, and removes that. `workers`: as many as the old version has, unless given.
        Both versions are in memory meanwhile. Raises Conflict if the archive's version is served already, and
        RequestTimeout if the old version still has requests after `drain_sec` seconds: it is then still served, beside
        the new default.
        """
        return upgrade(self, model, archive, workers=workers, drain_sec=drain_sec)

    def ready(self, timeout: float = 0.0, *, model: str | None = None, version: str | None = None) -> bool:
        """Whether the server answers and, where one is named, the model has a ready worker.

        Waits up to `timeout` seconds. A refused key is raised at once: waiting does not mend it.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self._is_ready(model, version):
                    return True
            except KeyUnavailable:  # a server that is starting has not written its key file yet
                if time.monotonic() >= deadline:
                    raise
            left_sec = deadline - time.monotonic()
            if left_sec <= 0:
                return False
            time.sleep(min(_READY_POLL_SEC, left_sec))

    def _served(self) -> set[tuple[str, str]]:
        """Name and version of everything that is served."""
        return {(info.name, info.version) for info in self.models()}

    def _new_since(self, before: set[tuple[str, str]], archive: str) -> tuple[str, str]:
        new = sorted(self._served() - before)
        if not new:
            raise InvalidAnswer(f"{archive} was registered, but is not among the served models")
        return new[0]

    def _wait_for_workers(self, model: str, version: str | None, count: int | None) -> ModelInfo:
        def look() -> ModelInfo:
            return ModelInfo.from_json(self._described(model, version)[0], default=False)

        return wait_for_workers(look, count)

    def _manage(self, send: Callable[[str | None], str], *, repeatable: bool = False) -> str:
        return self._call("management", send, repeatable=repeatable)

    def _is_ready(self, model: str | None, version: str | None) -> bool:
        try:
            if model is None:
                self._call("inference", self._ping, repeatable=True, retry=NO_RETRY)
                return True
            entries = self._described(model, version, retry=NO_RETRY)
        except (ConnectionFailed, RequestTimeout, ModelNotFound, ServerBusy):
            return False
        return ModelInfo.from_json(entries[0], default=version is None).ready

    def _model_names(self) -> list[str]:
        names: list[str] = []
        token: str | None = None
        while True:
            page = _parsed(self._manage(lambda key, token=token: self._list(key, token), repeatable=True))  # type: ignore[misc]
            names += [str(entry["modelName"]) for entry in page.get("models", ())]
            token = page.get("nextPageToken")
            if token is None:
                return names

    def _versions(self, model: str) -> list[ModelInfo]:
        default = self._described(model, None)[0].get("modelVersion")
        entries = self._described(model, "all")
        return [ModelInfo.from_json(entry, default=entry.get("modelVersion") == default) for entry in entries]

    def _described(
        self, model: str, version: str | None, *, customized: bool = False, retry: Retry | None = None
    ) -> list[dict[str, Any]]:
        """TorchServe's description: one entry, or one per version for `all`."""
        text = self._call(
            "management", lambda key: self._describe(key, model, version, customized), repeatable=True, retry=retry
        )
        entries: list[dict[str, Any]] = _parsed(text)
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidAnswer(f"the description of {model} is not a list of versions: {text[:80]!r}")
        return entries


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise InvalidAnswer(f"the server's answer is not JSON: {text[:80]!r}") from None


def _metadata(description: object) -> Mapping[str, Any] | None:
    """A handler's description: an object, or its JSON text."""
    if isinstance(description, str):
        try:
            description = json.loads(description)
        except ValueError:
            return None
    # A handler that knows nothing of descriptions takes the question for a request without a video.
    return description if isinstance(description, Mapping) and set(description) != ERROR_KEYS else None
