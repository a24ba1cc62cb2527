"""Two versions of a model, switched while requests keep coming."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from serving.environment import ServerError
from serving.server import TorchServe
from tests.support.decoding import wait_until
from tests.support.traffic import Client, steady, variant

pytestmark = pytest.mark.e2e


def test_a_version_is_switched_under_load_and_no_request_fails(
    server: TorchServe, x3d_xs_archive: Path, h264_video: bytes
) -> None:
    server.register(variant(x3d_xs_archive, "switched", version="1.0").name)
    client = Client(server, "switched")

    def versions(since: int) -> set[str]:
        return {answer.json()["version"] for answer in stream.answers[since:]}

    with steady(lambda: client.post(h264_video, format="full"), threads=4) as stream:
        wait_until("answers of the first version", lambda: len(stream.answers) > 10, within_sec=60)
        server.register(variant(x3d_xs_archive, "switched", version="2.0").name)
        before = len(stream.answers)
        assert versions(0) == {"1.0"}
        with server.client() as management:
            management.set_default("switched", "2.0")
        wait_until("answers of the second version", lambda: versions(before) >= {"2.0"}, within_sec=60)
        time.sleep(0.5)  # what was queued for the first version is done by then
        server.unregister("switched", "1.0")
        after = len(stream.answers)
        wait_until("more answers", lambda: len(stream.answers) > after + 20, within_sec=60)
    assert stream.failures == []
    assert {answer.status for answer in stream.answers} == {200}
    assert versions(after + 8) == {"2.0"}
    assert [info.version for info in server.versions("switched")] == ["2.0"]
    assert Client(server, "switched", version="1.0").post(h264_video).status == 404
    assert Client(server, "switched", version="2.0").post(h264_video).status == 200
    wait_until("the model to be gone", lambda: _is_gone(server, "switched"))


def _is_gone(server: TorchServe, model: str) -> bool:
    """TorchServe 0.12 answers 500 where a worker ends while it is being unregistered: asked again, it goes on."""
    with contextlib.suppress(ServerError):
        server.unregister(model)
    return model not in server.models()
