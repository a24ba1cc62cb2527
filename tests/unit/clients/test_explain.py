"""`explain` of both clients and `video-predict --explain`, against a scripted server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from scripts import predict
from tests.support.fake_server import Answer, Asked, FakeServer, refusal
from video_action_client import GrpcVideoClient, VideoClient
from video_action_client.errors import InvalidAnswer, InvalidOption

CROP = {"left": 0.25, "top": 0.0, "width": 0.5, "height": 1.0}
MAP = {"time_sec": 0.1, "weight": 1.0, "heatmap": [[0.0, 0.5], [1.0, 0.25]], "crop": CROP}
ANSWER: dict[str, Any] = {
    "label": "pan left",
    "class_id": 3,
    "score": 0.75,
    "method": "grad_cam",
    "times": [{"start_sec": 0.0, "end_sec": 0.4, "weight": 1.0}, {"start_sec": 0.4, "end_sec": 0.8, "weight": 0.5}],
    "maps": [MAP],
}


@pytest.fixture
def explaining(fake: FakeServer) -> FakeServer:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/models":
            return 200, {"models": [{"modelName": "m"}]}
        if asked.headers.get("x-target") == "running":
            return refusal(400, "InvalidOption", "target must be a label of this model")
        assert asked.path.startswith("/explanations/m")
        image = {"image": base64.b64encode(b"a picture").decode()} if asked.headers.get("x-image") == "true" else {}
        return 200, {**ANSWER, **image}

    fake.answer = answer
    return fake


def test_an_explanation_is_typed(explaining: FakeServer) -> None:
    with VideoClient(explaining.url) as client:
        plain = client.explain(b"good", model="m", version="2.0", target=3, num_crops=3)
        assert explaining.asked[-1].path == "/explanations/m/2.0"
        assert explaining.asked[-1].headers["x-target"] == "3"
        assert explaining.asked[-1].headers["x-num-crops"] == "3"
        pictured = client.explain(b"good", model="m", image=True)
    assert (plain.label, plain.class_id, plain.score, plain.method) == ("pan left", 3, 0.75, "grad_cam")
    assert [each.weight for each in plain.times] == [1.0, 0.5]
    assert plain.maps[0].heatmap == ((0.0, 0.5), (1.0, 0.25))
    assert plain.maps[0].crop.left == 0.25
    assert plain.pathways == {}
    assert plain.image is None
    assert pictured.image == b"a picture"


def test_refusals_and_other_answers_are_raised(explaining: FakeServer) -> None:
    with VideoClient(explaining.url) as client:
        with pytest.raises(InvalidOption, match="a label of this model"):
            client.explain(b"good", model="m", target="running")
        with pytest.raises(InvalidOption, match="give the class id"):
            client.explain(b"good", model="m", target="laufen \u00fcben")
        explaining.answer = lambda asked: (200, {"pan left": 0.5})
        with pytest.raises(InvalidAnswer, match="no explanation"):
            client.explain(b"good", model="m")


def test_grpc_carries_no_explanations() -> None:
    with GrpcVideoClient("127.0.0.1:1") as client, pytest.raises(InvalidOption, match="over HTTP alone"):
        client.explain(b"good", model="m")


def test_the_command_writes_the_picture(
    explaining: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, picture = tmp_path / "clip.mp4", tmp_path / "heat.png"
    video.write_bytes(b"good")
    arguments = [str(video), "--url", explaining.url, "--model", "m", "--explain"]
    assert predict.main([*arguments, str(picture), "--target", "pan left"]) == 0
    assert picture.read_bytes() == b"a picture"
    printed = capsys.readouterr().out
    assert "pan left  0.7500" in printed
    assert str(picture) in printed
    for more in ([str(picture), "--json"], [str(picture), "--grpc"], [str(picture), str(video)], ["no/such/heat.png"]):
        with pytest.raises(SystemExit) as stopped:
            predict.main([*arguments, *more])
        assert stopped.value.code == 2
