"""`scripts.status` and `scripts.smoke` against a scripted server: what they say, and their exit status."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scripts import smoke, status
from serving.tiny_clip import tiny_clip
from tests.support.fake_server import Answer, Asked, FakeServer, KeyFile, described, refusal
from video_action_client import VideoClient

NOBODY = "http://127.0.0.1:9"


def serving(full_answer: dict[str, Any], *versions: Answer | dict[str, Any], prediction: Answer | None = None) -> Any:
    """A server whose model `m` has these versions; each prediction is answered alike."""

    def answer(asked: Asked) -> Answer:
        if asked.path == "/models":
            return 200, {"models": [{"modelName": "m"}] if versions else []}
        if asked.path == "/models/m/all":
            return 200, list(versions)
        if asked.path.startswith("/models/m"):
            return 200, [versions[-1]]
        return prediction or (200, full_answer)

    return answer


def flags(fake: FakeServer) -> list[str]:
    return ["--url", fake.url, "--management-url", fake.url, "--token", "t"]


def test_every_model_answers(fake: FakeServer, full_answer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    queue = {"jobQueueStatus": {"pendingRequests": 3, "remainingCapacity": 97}}
    fake.answer = serving(full_answer, described("1.0"), {**described("2.0"), **queue})
    assert status.main(flags(fake)) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["TorchServe", "at", f"{fake.url}:", "answers"]
    assert [line[:-2] for line in lines[-2:]] == [["m", "1.0", "1/1", "0/0"], ["m", "2.0", "yes", "1/1", "3/100"]]
    assert all(line[-1] == "ms" for line in lines[-2:])
    asked = [each for each in fake.asked if each.path.startswith("/predictions")]
    assert [each.path for each in asked] == ["/predictions/m/1.0", "/predictions/m/2.0"]
    assert all(each.body == tiny_clip() for each in asked)


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"prediction": refusal(503, "InternalServerException", "Worker died.")}, "Worker died."),
        ({"prediction": (200, {"label": "of another handler"})}, "the answer is not one of this project's handlers"),
        ({"state": "UNLOADING"}, "no worker is ready"),
    ],
)
def test_a_model_that_does_not_answer_is_status_1(
    fake: FakeServer,
    full_answer: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    answers: dict[str, Any],
    problem: str,
) -> None:
    entry = described("1.0", answers.get("state", "READY"))
    fake.answer = serving(full_answer, entry, prediction=answers.get("prediction"))
    assert status.main([*flags(fake), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert found["problem"] is None
    (model,) = found["models"]
    assert model["problem"].startswith(problem)
    assert model["prediction_ms"] is None


def test_a_model_that_answers_with_fewer_workers_is_status_0(
    fake: FakeServer, full_answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = serving(full_answer, {**described("1.0"), "minWorkers": 4})
    assert status.main(flags(fake)) == 0
    assert " 1/4 " in capsys.readouterr().out


def test_no_model_is_status_1(
    fake: FakeServer, full_answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = serving(full_answer)
    assert status.main(flags(fake)) == 1
    assert "no model is served" in capsys.readouterr().out


def test_without_predictions_none_is_asked_for(
    fake: FakeServer, full_answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = serving(full_answer, described("1.0"), prediction=refusal(503, "InternalServerException"))
    assert status.main([*flags(fake), "--no-predict"]) == 0
    assert "not tried" in capsys.readouterr().out
    assert not [each for each in fake.asked if each.path.startswith("/predictions")]


def test_a_server_that_cannot_be_asked_is_status_2(fake: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--url", NOBODY, "--management-url", NOBODY, "--token", "t"]) == 2
    assert "nothing answers at http://127.0.0.1:9" in capsys.readouterr().out
    fake.answer = lambda asked: refusal(400, "InvalidKeyException")
    assert status.main(flags(fake)) == 2
    assert "the server refused the management token that was given" in capsys.readouterr().out


def test_says_when_keys_end(
    fake: FakeServer, full_answer: dict[str, Any], write_keys: KeyFile, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_keys(inference="a", management="b")
    entries = json.loads(path.read_text())
    ends = datetime.now(UTC) + timedelta(minutes=30)
    entries["inference"]["expiration time"] = f"{ends:%Y-%m-%dT%H:%M:%S}.123456789Z"
    entries["management"]["expiration time"] = "2020-01-01T00:00:00.123456789Z"
    path.write_text(json.dumps(entries))
    fake.answer = serving(full_answer, described("1.0"))
    arguments = ["--url", fake.url, "--management-url", fake.url, "--key-file", str(path)]
    assert status.main(arguments) == 0
    assert "keys: inference ends in 30 min, management has ended\n" in capsys.readouterr().out
    assert status.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keys"]["inference"] == ends.replace(microsecond=0).isoformat()


def test_keys_that_go_nowhere_have_no_end(write_keys: KeyFile) -> None:
    path = write_keys(inference="a", management="b")
    with VideoClient("http://gpu-7.example:8080", default_key_file=path) as client:
        assert client.key_expires() is None
    with VideoClient(token="t", key_file=path) as client:
        assert client.key_expires() is None


def test_smoke_asks_the_model_that_there_is(
    fake: FakeServer, full_answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = serving(full_answer, described("1.0"))
    assert smoke.main([fake.url, "--management-url", fake.url, "--token", "t"]) == 0
    assert capsys.readouterr().out.startswith("m answered in ")


def test_smoke_needs_no_management_address_for_a_model_that_is_named(
    fake: FakeServer, full_answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = serving(full_answer, described("1.0"))
    arguments = [fake.url, "--management-url", NOBODY, "--token", "t", "--model", "m", "--model-version", "2.0"]
    assert smoke.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["ok"], found["problem"]) == ("m", True, None)
    assert [each.path for each in fake.asked] == ["/predictions/m/2.0"]


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (refusal(404, "ModelNotFoundException", "Model not found: m"), 1, "m gave no answer: Model not found: m"),
        (refusal(503, "InternalServerException", "Worker died."), 1, "m gave no answer: Worker died."),
        (refusal(400, "InvalidKeyException"), 2, "the server refused the inference token that was given"),
    ],
)
def test_smoke_tells_a_model_that_fails_from_a_server_that_cannot_be_asked(
    fake: FakeServer, capsys: pytest.CaptureFixture[str], answer: Answer, expected: int, said: str
) -> None:
    fake.answer = lambda asked: answer
    assert smoke.main([fake.url, "--token", "t", "--model", "m"]) == expected
    assert said in capsys.readouterr().err


def test_smoke_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main([NOBODY, "--token", "t", "--model", "m"]) == 2
    assert smoke.main([NOBODY, "--management-url", NOBODY, "--token", "t"]) == 2
    assert capsys.readouterr().err.count("nothing answers at http://127.0.0.1:9") == 2


def test_smoke_wants_the_model_named_where_there_are_several(
    fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/models":
            return 200, {"models": [{"modelName": "m"}, {"modelName": "n"}]}
        return 200, [{**described("1.0"), "modelName": asked.path.split("/")[2]}]

    fake.answer = answer
    with pytest.raises(SystemExit) as ended:
        smoke.main([fake.url, "--management-url", fake.url, "--token", "t"])
    assert ended.value.code == 2
    assert "name the model with --model; served are: m, n" in capsys.readouterr().err
