"""`python -m scripts.predict` and `scripts.models`, run in process against a scripted server."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import models, predict
from tests.support.fake_server import Answer, Asked, FakeServer, described, refusal, serving_one
from video_action_client.commands import models as client_models
from video_action_client.commands import predict as client_predict


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with two videos, one of them in a folder of its own, and what is none."""
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    (folder / "b.mp4").write_bytes(b"good b")
    (folder / "more" / "A.MKV").write_bytes(b"good a")
    (folder / "notes.txt").write_bytes(b"bad")
    (folder / ".hidden.mp4").write_bytes(b"bad")
    return folder


@pytest.fixture
def serving(fake: FakeServer, full_answer: dict[str, Any]) -> FakeServer:
    """Answers videos that begin with `good`, in the format asked for."""

    def answer(asked: Asked) -> Answer:
        if asked.path == "/models":
            return 200, {"models": [{"modelName": "m"}]}
        if asked.path.startswith("/models/"):
            return 200, [{**described("1.0"), "modelName": asked.path.split("/")[2]}]
        if not asked.body.startswith(b"good"):
            return refusal(415, "UnsupportedVideo", "this is not a video")
        is_full = asked.headers.get("x-format") == "full"
        return 200, full_answer if is_full else {"pan left": 0.5, "static": 0.1}

    fake.answer = answer
    return fake


def run(serving: FakeServer, *arguments: str) -> int:
    return predict.main([*arguments, "--url", serving.url, "--management-url", serving.url, "--token", "t"])


def test_a_table_for_people(serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serving, str(clips / "b.mp4"), "--model", "m", "--top-k", "2", "--start-sec", "0.5") == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0] == str(clips / "b.mp4")
    assert [line.split()[-1] for line in lines[1:3]] == ["0.5000", "0.1000"]
    assert "pan left" in lines[1]
    assert "camera_motion 1.0 on 320x240, h264, 30 fps, 4.00 s" in output.out
    assert "45 ms in the server" in output.out
    assert "Note: the last frame is damaged" in output.out
    assert output.err == ""
    headers = serving.asked[0].headers
    assert (headers["x-top-k"], headers["x-start-sec"], headers["x-format"]) == ("2", "0.5", "full")


def test_the_others_are_printed_when_one_fails(
    serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(clips / "none.mp4")
    Path(missing).symlink_to("nowhere")
    options = ("--model", "m", "--json", "--jobs", "3")
    code = run(serving, str(clips / "notes.txt"), missing, str(clips / "b.mp4"), str(clips / "more"), *options)
    assert code == 1
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    assert [line["video"] for line in lines] == [
        str(clips / "notes.txt"), missing, str(clips / "b.mp4"), str(clips / "more" / "A.MKV"),
    ]  # fmt: skip
    assert lines[0]["error"] == {"code": 415, "type": "UnsupportedVideo", "message": "this is not a video"}
    assert lines[1]["error"]["type"] == "UnreadableVideo"
    assert lines[1]["error"]["code"] is None
    assert lines[2]["answer"] == lines[3]["answer"] == {"pan left": 0.5, "static": 0.1}
    assert f"{clips / 'notes.txt'}: this is not a video" in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize("argument", ["clipz/", "https://example.com/a.mp4"])
def test_a_path_to_nothing_is_wrong_usage_and_nothing_is_sent(
    serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        run(serving, str(clips / "b.mp4"), argument, "--model", "m")
    assert exited.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith(
        "is a URL; download it first, or pipe it in: curl -sL URL | ... -"
        if "://" in argument
        else "clipz/ does not exist; name a video file, a folder of them, or - for standard input"
    )
    assert serving.asked == []


def test_hidden_folders_are_left_out_and_a_link_to_nothing_is_said(
    serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / ".venv").mkdir()
    (clips / ".venv" / "media.mp4").write_bytes(b"good")
    (clips / "dead.mp4").symlink_to("nowhere")
    assert run(serving, str(clips), "--model", "m", "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["video"]).name for line in lines] == ["b.mp4", "dead.mp4", "A.MKV"]
    assert "is a link to a file that does not exist" in lines[1]["error"]["message"]


def test_several_videos_are_summed_up(serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clips / "dead.mp4").symlink_to("nowhere")
    assert run(serving, str(clips), str(clips / "notes.txt"), "--model", "m") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("4 videos in ")
    assert last.endswith(" a second, 2 failed: 1 UnreadableVideo, 1 UnsupportedVideo")
    assert run(serving, str(clips / "b.mp4"), "--model", "m") == 0
    assert capsys.readouterr().err == ""


def test_a_folder_without_videos_fails_and_the_others_go_on(
    serving: FakeServer, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(serving, str(empty), str(clips / "b.mp4"), "--model", "m", "--format", "dict") == 1
    output = capsys.readouterr()
    assert [json.loads(line)["video"] for line in output.out.splitlines()] == [str(empty), str(clips / "b.mp4")]
    assert f"{empty}: the folder holds no video file" in output.err


def test_standard_input(
    serving: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", argparse.Namespace(buffer=io.BytesIO(b"good stdin")))
    assert run(serving, "-", "--model", "m", "--json") == 0
    assert serving.asked[0].body == b"good stdin"
    assert json.loads(capsys.readouterr().out)["video"] == "-"


def test_a_timeline_is_drawn_to_scale(serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serving, str(clips / "b.mp4"), "--model", "m", "--timeline") == 0
    assert serving.asked[0].headers["x-stride-sec"] == "1.0"
    first, second = [line for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert first.split("|")[0].split() == ["0:00.00", "-", "0:03.00"]
    assert first.split("|")[1] == "█" * 30 + " " * 10
    assert second.split("|")[1] == " " * 20 + "█" * 20
    assert first.endswith("pan left 0.70")
    assert second.endswith("zoom in 0.90")


def test_the_only_model_need_not_be_named(serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serving, str(clips / "b.mp4")) == 0
    assert serving.asked[-1].path == "/predictions/m"
    inner = serving.answer
    two = {"models": [{"modelName": "m"}, {"modelName": "n"}]}
    serving.answer = lambda asked: (200, two) if asked.path == "/models" else inner(asked)
    assert run(serving, str(clips / "b.mp4")) == 1
    assert "name a model with --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-", "-"], "may be given once"),
        (["a.mp4", "--timeline", "--num-clips", "3"], "exclude --num-clips"),
        (["a.mp4", "--url", "nowhere"], "must look like http://"),
        (["a.mp4", "--grpc", "--url", "http://x"], "must look like 127.0.0.1:7070"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        predict.main(arguments)
    assert raised.value.code == 2
    assert words in capsys.readouterr().err


def test_a_missing_server_and_a_missing_key_name_the_flag(
    serving: FakeServer,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere = ["--url", "http://127.0.0.1:9", "--management-url", "http://127.0.0.1:9", "--token", "t"]
    assert models.main(["list", *nowhere]) == 1
    error = capsys.readouterr().err
    assert "nothing answers at http://127.0.0.1:9" in error
    assert "--url names another" in error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("serving.connection.REPOSITORY", tmp_path)
    serving.answer = lambda asked: refusal(400, "InvalidKeyException")
    addresses = ["--url", serving.url, "--management-url", serving.url]
    assert models.main(["list", *addresses]) == 1
    error = capsys.readouterr().err
    assert f"there is no {tmp_path / 'key_file.json'}" in error
    assert "--key-file" in error
    assert "--token" in error
    assert predict.main([str(clips / "b.mp4"), "--model", "m", *addresses]) == 1
    assert "--key-file" in capsys.readouterr().err


def test_the_installed_commands_are_the_same_under_their_own_names(
    serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `video-predict` and `video-models` run: they know nothing of this repository."""
    server = ["--url", serving.url, "--management-url", serving.url, "--token", "t"]
    outputs = []
    for command in (predict.main, client_predict.main):
        assert command([str(clips / "b.mp4"), "--model", "m", "--json", *server]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    for client_command, name in ((client_predict, "video-predict"), (client_models, "video-models")):
        with pytest.raises(SystemExit):
            client_command.main(["--help"])
        text = capsys.readouterr().out
        assert text.startswith(f"usage: {name} ")
        assert "scripts" not in text
    nowhere = ["--url", "http://127.0.0.1:9", "--management-url", "http://127.0.0.1:9", "--token", "t"]
    assert client_models.main(["list", *nowhere]) == 1
    assert "quickstart" not in capsys.readouterr().err
    assert models.main(["list", *nowhere]) == 1
    assert "./scripts/quickstart starts one; --url names another" in capsys.readouterr().err


def test_models_as_table_and_as_json(serving: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--url", serving.url, "--management-url", serving.url, "--token", "t"]
    assert models.main(["list", *server]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["MODEL", "VERSION", "DEFAULT", "WORKERS", "STATUS", "BATCH", "QUEUED", "ARCHIVE"]
    assert row.split() == ["m", "1.0", "yes", "1/1", "ready", "1", "0", "m1.0.mar"]
    assert models.main(["list", "--json", *server]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["default"], entry["workers"][0]["status"]) == ("m", True, "READY")

    told = {"customizedMetadata": {"runtime": "openvino", "limits": {"max_windows": 512}, "labels": ["a", "b"]}}
    serving.answer = lambda asked: (200, [{**described("1.0"), **told}])
    assert models.main(["describe", "m", *server]) == 0
    text = capsys.readouterr().out
    assert "version           1.0 (default)" in text
    assert "runtime: openvino\nlimits:\n  max_windows: 512\nlabels: a, b\n" in text
    assert models.main(["describe", "m", "--json", *server]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"] == told["customizedMetadata"]


def test_models_that_wait_for_workers_say_how_many_there_are(
    serving: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ["--url", serving.url, "--management-url", serving.url, "--token", "t"]
    serving.answer = serving_one("1.0")
    assert models.main(["register", "m.mar", "--workers", "1", *server]) == 0
    assert capsys.readouterr().out == 'Model "m" Version: 1.0 registered with 1 workers\n'
    assert models.main(["scale", "m", "--workers", "1", *server]) == 0
    assert capsys.readouterr().out == 'Workers scaled to 1 for model "m" version 1.0\n'


def test_an_embedding_is_json(serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(clips / "b.mp4"), "--model", "m", "--embedding", "--timeline"]
    assert run(serving, *arguments) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"video", "answer"}
    headers = serving.asked[0].headers
    assert (headers["x-output"], headers["x-stride-sec"]) == ("embedding", "1.0")
    with pytest.raises(SystemExit):
        run(serving, *arguments, "--stream")
    assert "leave it out with --embedding" in capsys.readouterr().err


def test_models_changes_say_what_torchserve_said(serving: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--url", serving.url, "--management-url", serving.url, "--token", "t"]
    serving.answer = lambda asked: (200, {"status": f"{asked.method} {asked.path}"})
    for arguments, said in (
        (["set-default", "m", "2.0"], "PUT /models/m/2.0/set-default"),
        (["unregister", "m", "1.0", "--drain-sec", "0"], "DELETE /models/m/1.0"),
    ):
        assert models.main([*arguments, *server]) == 0
        assert capsys.readouterr().out == said + "\n"
    assert models.main(["unregister", "m", "--drain-sec", "0", "--json", *server]) == 0
    assert json.loads(capsys.readouterr().out) == {"status": "DELETE /models/m"}
    serving.answer = lambda asked: refusal(404, "ModelNotFoundException", "Model not found: m")
    assert models.main(["unregister", "m", "--drain-sec", "0", *server]) == 1
    assert capsys.readouterr().err == "models: Model not found: m\n"


@pytest.mark.parametrize(
    ("asked_for", "hint"),
    [
        ("xd3_s", "predict: did you mean x3d_s? served are camera_motion, x3d_s\n"),
        ("zzz", "predict: served are camera_motion, x3d_s\n"),
    ],
)
def test_a_mistyped_model_is_told_which_are_served(
    serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str], asked_for: str, hint: str
) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path == "/models":
            return 200, {"models": [{"modelName": "x3d_s"}, {"modelName": "camera_motion"}]}
        if asked.path.startswith("/models/"):
            return 200, [{**described("1.0"), "modelName": asked.path.split("/")[2]}]
        return refusal(404, "ModelNotFoundException", f"Model not found: {asked_for}")

    serving.answer = answer
    assert run(serving, str(clips / "b.mp4"), str(clips / "more" / "A.MKV"), "--model", asked_for) == 1
    assert capsys.readouterr().err.count(hint) == 1


def test_a_mistyped_model_is_said_once_where_the_models_cannot_be_listed(
    serving: FakeServer, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serving.answer = lambda asked: refusal(404, "ModelNotFoundException", "Model not found: xd3_s")
    assert run(serving, str(clips / "b.mp4"), "--model", "xd3_s") == 1
    said = capsys.readouterr().err
    assert "Model not found: xd3_s" in said
    assert "served are" not in said
