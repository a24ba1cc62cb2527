"""The logs of a real server with logging.xml: how much one request leaves in them, and how long they are kept."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import requests

from serving.server import TorchServe
from tests.support.decoding import wait_until
from tests.support.traffic import LogMark
from video_action_client.errors import UnsupportedVideo

pytestmark = pytest.mark.e2e

MODEL = "x3d_xs"
DAY_SEC = 24 * 3600
MOST_LINES = 3  # for one request
ACCESS, LINE = "ACCESS_LOG - ", "MODEL_LOG - request "


def send(server: TorchServe, body: bytes, path: str = f"predictions/{MODEL}", **headers: str) -> requests.Response:
    common = {"Content-Type": "application/octet-stream", **server.headers()}
    return requests.post(f"{server.inference_url}/{path}", data=body, headers={**common, **headers}, timeout=60)


def lines_since(mark: LogMark, requests_sent: int) -> list[str]:
    """What was logged about so many prediction requests, once the last line has come."""
    wait_until("line of each request", lambda: mark.since().count(LINE) >= requests_sent)
    wait_until("access line", lambda: mark.since().count("POST ") >= requests_sent)
    return [line for line in mark.since().splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("path", "options"),
    [(f"predictions/{MODEL}", {}), (f"v2/models/{MODEL}/infer", {}), (f"predictions/{MODEL}", {"X-Stream": "true"})],
    ids=["plain", "open inference protocol", "stream"],
)
def test_a_request_leaves_at_most_three_lines(
    server: TorchServe, h264_video: bytes, path: str, options: dict[str, str]
) -> None:
    send(server, h264_video)
    server.headers()  # renews a key, if that is due, before lines are counted
    time.sleep(1.0)  # lines of what came before
    mark = LogMark(server)
    for _ in range(5):
        assert send(server, h264_video, path, **options).status_code == 200
    lines = lines_since(mark, 5)
    assert len(lines) <= 5 * MOST_LINES, lines
    assert len(set(lines)) == len(lines)
    assert len([line for line in lines if LINE in line]) == 5


def test_a_refused_video_leaves_one_sentence_with_its_id(server: TorchServe) -> None:
    mark = LogMark(server)
    answer = send(server, b"no video")
    lines = lines_since(mark, 1)
    (line,) = [line for line in lines if answer.headers["x-request-id"] in line]
    assert f": {answer.status_code} in " in line
    assert line.endswith(f"{answer.json()['type']}: {answer.json()['message']}")


@pytest.mark.parametrize("body", ["video", "no video"])
def test_the_clients_id_comes_back_beside_torchserves(server: TorchServe, h264_video: bytes, body: str) -> None:
    mark = LogMark(server)
    headers = {"X-Request-Id": f"job-7/{len(body)}", "X-Format": "full"}
    answer = send(server, h264_video if body == "video" else b"no video", **headers)
    assert answer.headers["X-Client-Request-Id"] == headers["X-Request-Id"]
    assert answer.headers["x-request-id"] not in ("", headers["X-Request-Id"])  # TorchServe puts its own there
    assert answer.json().get("request_id") == (headers["X-Request-Id"] if body == "video" else None)
    (line,) = [line for line in lines_since(mark, 1) if LINE in line]
    assert f"request {answer.headers['x-request-id']} client {headers['X-Request-Id']}: " in line


def test_the_clients_id_is_in_the_header_and_the_first_line_of_a_stream(server: TorchServe, h264_video: bytes) -> None:
    answer = send(server, h264_video, **{"X-Request-Id": "job-8", "X-Stream": "true"})
    assert answer.headers["X-Client-Request-Id"] == "job-8"
    assert json.loads(answer.text.splitlines()[0])["request_id"] == "job-8"


def test_the_clients_error_has_the_servers_id(server: TorchServe) -> None:
    mark = LogMark(server)
    with server.client() as client, pytest.raises(UnsupportedVideo) as refusal:
        client.classify(b"no video", model=MODEL)
    (line,) = [line for line in lines_since(mark, 1) if LINE in line]
    assert f"request {refusal.value.request_id}: 415 in " in line


def test_logs_are_rotated_and_kept_for_fourteen_days(torchserve_installed: None, tmp_path: Path) -> None:
    store, logs = tmp_path / "store", tmp_path / "server" / "logs"
    store.mkdir()
    logs.mkdir(parents=True)
    names = ("access_log", "model_log", "ts_log", "metrics")
    now = time.time()
    for name in names:
        (logs / f"{name}.log").write_text("what an earlier server has written\n")
        for days in (13, 15):
            old = logs / f"{name}.2020-01-{days}-1.log.gz"
            old.write_bytes(b"compressed")
            os.utime(old, (now, now - days * DAY_SEC))
    (logs / "notes.2020-01-15-1.log.gz").write_bytes(b"not a log of the server's")
    os.utime(logs / "notes.2020-01-15-1.log.gz", (now, now - 15 * DAY_SEC))
    with TorchServe(store, directory=tmp_path / "server") as server:
        assert server.is_up()
        today = time.strftime("%Y-%m-")
        wait_until("rotation", lambda: all([*logs.glob(f"{name}.{today}*.log.gz")] for name in names))
        wait_until("removal", lambda: not any((logs / f"{name}.2020-01-15-1.log.gz").exists() for name in names))
        assert all((logs / f"{name}.2020-01-13-1.log.gz").exists() for name in names)
        assert (logs / "notes.2020-01-15-1.log.gz").exists()
        assert "earlier server" not in server.log_text()
