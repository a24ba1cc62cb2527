"""`scripts.status` and `scripts.smoke` against a real server: a model that answers, and ones that do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scripts import smoke, status
from serving.server import TorchServe
from tests.support.archives import tiny_archive

pytestmark = pytest.mark.e2e

MODEL = "x3d_xs"
# Its worker is READY and never answers, as one whose thread in the frontend has died.
DEAF = """
import time
class Deaf:
    def initialize(self, context):
        pass
    def handle(self, rows, context):
        time.sleep(20)
        return ["{}" for row in rows]
"""


def flags(server: TorchServe) -> list[str]:
    where = ["--url", server.inference_url, "--management-url", server.management_url]
    return [*where, "--key-file", str(server.key_file)]


def asked(server: TorchServe, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what the status says of each model by its name."""
    code = status.main([*flags(server), "--json", *more])
    found = json.loads(capsys.readouterr().out)
    assert found["keys"]["inference"] is not None
    return code, {model["name"]: model for model in found["models"]}


@pytest.fixture
def deaf(server: TorchServe) -> Iterator[str]:
    tiny_archive(server.model_store, "deaf", DEAF)
    server.register("deaf.mar")
    yield "deaf"
    server.unregister("deaf")
    (server.model_store / "deaf.mar").unlink()


def test_a_model_that_answers(server: TorchServe, capsys: pytest.CaptureFixture[str]) -> None:
    _, models = asked(server, capsys)
    found = models[MODEL]
    assert (found["problem"], found["ready_workers"], found["queue_size"]) == (None, 1, 100)
    assert found["prediction_ms"] > 0
    assert smoke.main([*flags(server), "--model", MODEL]) == 0
    assert capsys.readouterr().out.startswith(f"{MODEL} answered in ")


def test_a_worker_that_is_ready_and_does_not_answer(
    server: TorchServe, capsys: pytest.CaptureFixture[str], deaf: str
) -> None:
    code, models = asked(server, capsys, "--timeout", "2")
    assert code == 1
    assert (models[deaf]["ready_workers"], models[MODEL]["problem"]) == (1, None)
    assert models[deaf]["problem"].endswith("did not answer within 2 s")
    assert smoke.main([*flags(server), "--model", deaf, "--timeout", "2"]) == 1
    assert asked(server, capsys, "--no-predict")[1][deaf]["problem"] is None
