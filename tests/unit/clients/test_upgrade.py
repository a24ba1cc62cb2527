"""Versions are removed when they have no requests left, and workers are waited for, against a scripted server."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.support.fake_server import Answer, Asked, FakeServer, described, refusal
from video_action_client import ModelInfo, VideoClient, upgrade, workers
from video_action_client.errors import Conflict, RequestTimeout, ServingError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "_POLL_SEC", 0.001)
    monkeypatch.setattr(workers, "_POLL_SEC", 0.001)


class Versions:
    """Versions of the model `m`: registered, made the default, asked how busy they are, removed."""

    def __init__(self, *versions: str, new: str = "2.0") -> None:
        self.versions, self.default, self.new = list(versions), versions[0], new
        self.busy: dict[str, list[int]] = {}
        self.pending: dict[str, list[int]] = {}
        self.done: list[str] = []

    def answer(self, asked: Asked) -> Answer:
        path = asked.path.partition("?")[0]
        version = path.removeprefix("/models/m").strip("/").removesuffix("/set-default") or self.default
        if asked.method == "POST":
            if self.new in self.versions:
                return refusal(409, "ConflictStatusException", "is already registered")
            self.versions.append(self.new)
        elif asked.method == "PUT":
            self.default = version
        elif asked.method == "DELETE":
            self.versions.remove(version)
        elif path == "/models":
            return 200, {"models": [{"modelName": "m"}]}
        else:
            names = self.versions if version == "all" else [version]
            return 200, [self._described(name, asked) for name in names]
        self.done.append(f"{asked.method} {version if asked.method != 'POST' else self.new}")
        return 200, {"status": "done"}

    def _described(self, version: str, asked: Asked) -> dict[str, Any]:
        entry = described(version)
        if "customized" in asked.path:
            left = self.busy.get(version, [])
            entry["customizedMetadata"] = {"other_busy_workers": left.pop(0) if left else 0}
            waiting = self.pending.get(version, [])
            entry["jobQueueStatus"] = {"pendingRequests": waiting.pop(0) if waiting else 0, "remainingCapacity": 9}
        else:
            entry["jobQueueStatus"] = {"pendingRequests": (self.pending.get(version) or [0])[0], "remainingCapacity": 9}
        return entry


def client_of(fake: FakeServer) -> VideoClient:
    return VideoClient(fake.url, fake.url, token="t")


def test_an_upgrade_removes_the_old_version_last_and_without_requests(fake: FakeServer) -> None:
    server = Versions("1.0")
    server.busy["1.0"] = [2, 1, 0, 1]
    fake.answer = server.answer
    with client_of(fake) as client:
        assert client.upgrade("m", "m2.mar") == "2.0"
    assert server.done == ["POST 2.0", "PUT 2.0", "DELETE 1.0"]
    assert server.versions == ["2.0"]
    assert server.busy["1.0"] == [], "it was looked at until nothing was left"
    (register,) = [asked for asked in fake.asked if asked.method == "POST"]
    assert "initial_workers=1" in register.path, "as many as the old version has"


def test_a_version_with_requests_is_not_removed(fake: FakeServer) -> None:
    server = Versions("1.0")
    server.pending["1.0"] = [3] * 10**5
    fake.answer = server.answer
    with client_of(fake) as client:
        with pytest.raises(RequestTimeout, match=r"still has requests after 0\.05 s and was not removed"):
            client.upgrade("m", "m2.mar", drain_sec=0.05)
        assert server.versions == ["1.0", "2.0"]
        assert server.default == "2.0"
        client.unregister("m", "1.0", drain_sec=0)
    assert server.versions == ["2.0"]


def test_one_quiet_look_is_not_enough(fake: FakeServer) -> None:
    """A request may be on its way from the queue to the worker."""
    server = Versions("1.0")
    server.busy["1.0"] = [0, 0, 1]
    fake.answer = server.answer
    with client_of(fake) as client:
        client.unregister("m", "1.0")
    assert len([asked for asked in fake.asked if "customized" in asked.path]) == 6


def test_a_version_that_is_served_already_is_told(fake: FakeServer) -> None:
    server = Versions("1.0", new="1.0")
    fake.answer = server.answer
    with client_of(fake) as client, pytest.raises(Conflict, match=r"served already \(1.0\); package it with another"):
        client.upgrade("m", "m1.mar")
    assert server.done == []


INFO = ModelInfo.from_json({**described("1.0"), "minWorkers": 2, "maxWorkers": 2}, default=True)


def looks(*states: list[tuple[str, str, int]]) -> list[ModelInfo]:
    """One state of the workers after the other: id, status, process id."""
    kinds = type(INFO.workers[0])
    return [dataclasses.replace(INFO, workers=tuple(kinds(*worker, False) for worker in state)) for state in states]


def wait(seen: list[ModelInfo], count: int | None = None, *, timeout_sec: float = 5.0) -> ModelInfo:
    left = list(seen)
    return workers.wait_for_workers(lambda: left.pop(0) if len(left) > 1 else left[0], count, timeout_sec=timeout_sec)


def test_all_workers_are_waited_for() -> None:
    seen = looks(
        [],
        [("9000", "UNLOADING", -1), ("9001", "UNLOADING", -1)],
        [("9000", "UNLOADING", 5), ("9001", "READY", 6)],
        [("9000", "READY", 5), ("9001", "READY", 6)],
    )
    assert wait(seen) is seen[-1]


def test_a_worker_that_ends_while_it_loads_is_told() -> None:
    seen = looks([("9000", "UNLOADING", -1)], [("9000", "UNLOADING", 5)], [("9000", "UNLOADING", 8)])
    with pytest.raises(ServingError, match=r"Failed to start workers for model m version: 1\.0") as raised:
        wait(seen)
    assert raised.value.status == 500


def test_a_ready_worker_may_be_replaced() -> None:
    """As when one dies of a request, which has nothing to do with the others' loading."""
    seen = looks(
        [("9000", "READY", 5), ("9001", "UNLOADING", 6)],
        [("9000", "READY", 9), ("9001", "READY", 6)],
    )
    assert wait(seen) is seen[-1]


def test_scaling_down_waits_until_the_others_have_gone() -> None:
    seen = looks([("9000", "READY", 5), ("9001", "READY", 6)], [("9000", "READY", 5)], [])
    assert wait(seen, 1) is seen[1]
    assert wait(seen, 0) is seen[2]


def test_workers_that_never_come_are_not_waited_for_without_end() -> None:
    with pytest.raises(RequestTimeout, match=r"m 1\.0 has 0 of 2 workers after 0\.01 s"):
        wait(looks([("9000", "UNLOADING", 5)]), timeout_sec=0.01)
