"""The HTTP client and what it shares with the gRPC client (keys, retries), against a scripted server on loopback."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fake_server import (
    Answer,
    Asked,
    FakeServer,
    KeyFile,
    described,
    in_turn,
    refusal,
    serving_one,
)
from video_action_client import VideoClient
from video_action_client import keys as keys_module
from video_action_client.errors import (
    Conflict,
    ConnectionFailed,
    EmptyClip,
    InvalidAnswer,
    InvalidKey,
    KeyUnavailable,
    PredictionFailed,
    RequestTimeout,
    ServerBusy,
    VideoTooLarge,
)
from video_action_client.http_client import management_of
from video_action_client.retry import Retry, is_safe

FAST = Retry(attempts=3, first_delay_sec=0.01)
BUSY = refusal(503, "ServiceUnavailableException", "has no worker to serve")
REFUSED_KEY = refusal(400, "InvalidKeyException")


def client_of(fake: FakeServer, **settings: Any) -> VideoClient:
    return VideoClient(fake.url, fake.url, **{"token": "t", "retry": FAST, **settings})


def test_sends_a_video_with_its_options_type_length_and_key(
    fake: FakeServer, full_answer: dict[str, Any], tmp_path: Path
) -> None:
    fake.answer = lambda asked: (200, full_answer)
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"v" * 100_000)
    with client_of(fake) as client:
        prediction = client.classify(path, model="a model", version="2.0", top_k=3, start_sec=0.5, num_crops=3)
    assert prediction.top.label == "pan left"
    (asked,) = fake.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/predictions/a%20model/2.0", b"v" * 100_000)
    options = {name: value for name, value in asked.headers.items() if name.startswith("x-")}
    assert options == {"x-top-k": "3", "x-start-sec": "0.5", "x-num-crops": "3", "x-format": "full"}
    assert asked.headers["content-type"] == "video/mp4"
    assert asked.headers["content-length"] == "100000"
    assert "transfer-encoding" not in asked.headers
    assert asked.key == "t"


def test_streams_a_file_from_disk(fake: FakeServer, full_answer: dict[str, Any], tmp_path: Path) -> None:
    """The file is read piece by piece: never 64 MiB at once."""
    fake.answer = lambda asked: (200, full_answer)
    reads: list[int] = []

    class Watched:
        def __init__(self, size: int) -> None:
            self.size, self.at = size, 0

        def read(self, count: int = -1) -> bytes:
            piece = bytes(min(count if count >= 0 else self.size, self.size - self.at))
            reads.append(len(piece))
            self.at += len(piece)
            return piece

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.at

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = self.size + offset if whence == 2 else offset
            return self.at

    with client_of(fake) as client:
        client.classify(Watched(64 * 2**20), model="m")  # type: ignore[arg-type]
    assert len(fake.asked[0].body) == sum(reads) == 64 * 2**20
    assert max(reads) <= 2**20


def test_a_timeline(fake: FakeServer, full_answer: dict[str, Any]) -> None:
    fake.answer = lambda asked: (200, full_answer)
    with client_of(fake) as client:
        timeline = client.timeline(b"v", model="m", stride_sec=1.0)
    assert [each.label for each in timeline.segments] == ["pan left", "zoom in"]
    assert fake.asked[0].headers["x-stride-sec"] == "1.0"
    assert fake.asked[0].headers["content-type"] == "application/octet-stream"


def test_the_raw_answer_in_any_format(fake: FakeServer) -> None:
    fake.answer = lambda asked: (200, {"archery": 0.5})
    with client_of(fake) as client:
        assert client.answer(b"v", model="m", options={"format": "dict", "top_k": None}) == {"archery": 0.5}
        with pytest.raises(InvalidAnswer, match="'model' is missing"):
            client.classify(b"v", model="m")
        fake.answer = lambda asked: (200, b"<html>")
        with pytest.raises(InvalidAnswer, match="is not JSON"):
            client.classify(b"v", model="m")


def test_a_refusal_is_raised_at_once(fake: FakeServer) -> None:
    fake.answer = lambda asked: refusal(422, "EmptyClip", "no frame between 5 s and 6 s")
    with client_of(fake) as client, pytest.raises(EmptyClip, match="no frame between 5 s and 6 s") as raised:
        client.classify(b"v", model="m")
    assert (raised.value.status, raised.value.type) == (422, "EmptyClip")
    assert len(fake.asked) == 1


def test_a_busy_server_is_asked_again_and_the_whole_video_sent_again(
    fake: FakeServer, full_answer: dict[str, Any], tmp_path: Path
) -> None:
    fake.answer = in_turn(BUSY, BUSY, (200, full_answer))
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"video")
    with client_of(fake) as client:
        assert client.classify(path, model="m").model == "camera_motion"
    assert [asked.body for asked in fake.asked] == [b"video"] * 3


def test_a_server_that_stays_busy_is_given_up(fake: FakeServer) -> None:
    fake.answer = lambda asked: BUSY
    with client_of(fake) as client, pytest.raises(ServerBusy):
        client.classify(b"v", model="m")
    assert len(fake.asked) == FAST.attempts


def test_a_failed_prediction_is_not_repeated(fake: FakeServer) -> None:
    fake.answer = lambda asked: refusal(503, "InternalServerException", "Prediction failed")
    with client_of(fake) as client, pytest.raises(PredictionFailed):
        client.classify(b"v", model="m")
    assert len(fake.asked) == 1


def test_a_lost_connection_is_repeated_for_predictions_and_questions_but_not_for_changes(
    fake: FakeServer, full_answer: dict[str, Any]
) -> None:
    with client_of(fake) as client:
        fake.answer = in_turn((0, None), (200, full_answer))
        client.classify(b"v", model="m")
        assert len(fake.asked) == 2
        fake.asked.clear()
        inner = serving_one("1.0")
        fake.answer = lambda asked: (0, None) if asked.method == "POST" else inner(asked)
        with pytest.raises(ConnectionFailed) as raised:
            client.register("m.mar")
        assert raised.value.sent
        assert [asked.method for asked in fake.asked].count("POST") == 1


def test_a_refused_connection_is_repeated_until_the_server_is_there(full_answer: dict[str, Any]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with VideoClient(url, url, token="t", retry=FAST) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match=f"nothing answers at {url}") as raised:
            client.register("m.mar")
        assert not raised.value.sent
        assert time.monotonic() - began >= 0.01 * (0.5 + 1)  # two pauses, each at least half of its length


def test_a_timeout_is_not_repeated(fake: FakeServer) -> None:
    release = threading.Event()

    def late(asked: Asked) -> Answer:
        release.wait(5)
        return 200, {}

    fake.answer = late
    with client_of(fake, timeout_sec=0.05) as client:
        with pytest.raises(RequestTimeout, match=r"did not answer within 0\.05 s"):
            client.classify(b"v", model="m")
        release.set()
    assert len(fake.asked) == 1


def test_an_answer_413_without_a_body_is_too_large(fake: FakeServer) -> None:
    fake.answer = lambda asked: (413, b"")
    with client_of(fake) as client, pytest.raises(VideoTooLarge, match="max_request_size") as raised:
        client.classify(b"v", model="m")
    assert raised.value.status == 413


def test_a_large_video_cut_off_by_a_server_that_is_well_is_too_large(fake: FakeServer) -> None:
    fake.answer = lambda asked: (200, {"status": "Healthy"}) if asked.path == "/ping" else (0, None)
    with client_of(fake) as client, pytest.raises(VideoTooLarge, match="2097152 bytes"):
        client.classify(bytes(2 * 2**20), model="m")
    assert [asked.path for asked in fake.asked] == ["/predictions/m", "/ping"]


class Keys:
    """A fake server that knows which key is valid, and renews it as TorchServe does."""

    def __init__(self, fake: FakeServer, path: Path, answer: Any, *, renews: bool = True) -> None:
        self.path, self.answer, self.renews = path, answer, renews
        self.valid = {"inference": "new", "management": "new-m"}
        self.renewals = 0
        fake.answer = self

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            if asked.key != "api-key" or not self.renews:
                return REFUSED_KEY
            self.renewals += 1
            api = asked.path.partition("type=")[2]
            self.valid[api] = f"{api}-{self.renewals}"
            entries = json.loads(self.path.read_text())
            entries[api]["key"] = self.valid[api]
            self.path.write_text(json.dumps(entries))
            return 200, b"\n"
        api = "inference" if asked.path.startswith(("/predictions", "/ping")) else "management"
        return (200, self.answer) if asked.key == self.valid[api] else REFUSED_KEY


def test_an_expired_key_is_renewed_and_the_video_sent_again(
    fake: FakeServer, full_answer: dict[str, Any], write_keys: KeyFile
) -> None:
    keys = Keys(fake, write_keys(inference="old", management="old-m"), full_answer)
    with client_of(fake, token=None, key_file=keys.path) as client:
        client.classify(b"video", model="m")
        client.classify(b"video", model="m")
    assert keys.renewals == 1
    assert [asked.path for asked in fake.asked] == [
        "/predictions/m", "/token?type=inference", "/predictions/m", "/predictions/m",
    ]  # fmt: skip
    assert fake.asked[2].body == b"video"


def test_a_key_that_another_client_renewed_is_read_again(
    fake: FakeServer, full_answer: dict[str, Any], write_keys: KeyFile
) -> None:
    keys = Keys(fake, write_keys(inference="old", management="old-m"), full_answer)

    def rewritten_before_the_refusal(asked: Asked) -> Answer:
        write_keys(inference="new", management="new-m")
        return keys(asked)

    fake.answer = rewritten_before_the_refusal
    with client_of(fake, token=None, key_file=keys.path) as client:
        client.classify(b"video", model="m")
    assert keys.renewals == 0
    assert len(fake.asked) == 2


def test_threads_that_are_refused_together_renew_once(
    fake: FakeServer, full_answer: dict[str, Any], write_keys: KeyFile
) -> None:
    keys = Keys(fake, write_keys(inference="old", management="old-m"), full_answer)
    with client_of(fake, token=None, key_file=keys.path) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.classify(b"v", model="m").model, range(16)))
    assert answers == ["camera_motion"] * 16
    assert keys.renewals == 1


def test_the_management_key_is_another_one(fake: FakeServer, write_keys: KeyFile) -> None:
    keys = Keys(fake, write_keys(inference="new", management="new-m"), {"status": "done"})
    with client_of(fake, token=None, key_file=keys.path) as client:
        assert client.set_default("m", "2.0") == "done"
    assert fake.asked[0].key == "new-m"
    assert (fake.asked[0].method, fake.asked[0].path) == ("PUT", "/models/m/2.0/set-default")


def test_the_key_file_of_another_server_is_said_to_be_one(fake: FakeServer, write_keys: KeyFile) -> None:
    keys = Keys(fake, write_keys(inference="old", management="old-m"), {}, renews=False)
    with (
        client_of(fake, token=None, key_file=keys.path) as client,
        pytest.raises(KeyUnavailable, match="is it the key file of another server"),
    ):
        client.classify(b"v", model="m")
    assert len(fake.asked) == 2


def test_a_refused_token_is_not_renewed_and_not_repeated_in_the_message(fake: FakeServer) -> None:
    fake.answer = lambda asked: REFUSED_KEY
    with client_of(fake, token="s3cret") as client:
        with pytest.raises(InvalidKey, match="the inference token that was given") as raised:
            client.classify(b"v", model="m")
        assert "s3cret" not in str(raised.value)
    assert len(fake.asked) == 1


def test_a_missing_key_names_where_it_was_looked_for(
    fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake.answer = lambda asked: REFUSED_KEY
    with client_of(fake, token=None) as client, pytest.raises(InvalidKey) as raised:
        client.classify(b"v", model="m")
    assert str(tmp_path / "key_file.json") in str(raised.value)
    assert fake.asked[0].key is None
    with (
        client_of(fake, token=None, key_file=tmp_path / "named.json") as client,
        pytest.raises(KeyUnavailable, match=r"there is no key file .*named\.json"),
    ):
        client.classify(b"v", model="m")


def test_a_key_file_that_is_none_is_refused(fake: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "key_file.json"
    path.write_text('{"inference": 3}')
    with (
        client_of(fake, token=None, key_file=path) as client,
        pytest.raises(KeyUnavailable, match="is not a key file of TorchServe"),
    ):
        client.classify(b"v", model="m")


def test_a_key_file_that_is_just_being_rewritten_is_read_when_it_is_whole(
    fake: FakeServer, full_answer: dict[str, Any], write_keys: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_keys(inference="new", management="new-m")
    whole = path.read_text()
    path.write_text(whole[:20])
    Keys(fake, path, full_answer)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:  # by now the server has written the rest
            path.write_text(whole)

    monkeypatch.setattr(keys_module, "time", SimpleNamespace(sleep=pause))
    with client_of(fake, token=None, key_file=path) as client:
        client.classify(b"v", model="m")
    assert len(pauses) == 3


def test_lists_all_versions_page_by_page(fake: FakeServer) -> None:
    answers: dict[str, Any] = {
        "/models": {"nextPageToken": "1", "models": [{"modelName": "m"}]},
        "/models?next_page_token=1": {"models": [{"modelName": "a"}]},
        "/models/m": [described("2.0")],
        "/models/m/all": [described("1.0"), described("2.0")],
        "/models/a": [{**described("1.0"), "modelName": "a"}],
        "/models/a/all": [{**described("1.0"), "modelName": "a"}],
    }
    fake.answer = lambda asked: (200, answers[asked.path])
    with client_of(fake) as client:
        found = client.models()
    assert [(each.name, each.version, each.default) for each in found] == [
        ("a", "1.0", True), ("m", "1.0", False), ("m", "2.0", True),
    ]  # fmt: skip


@pytest.mark.parametrize("told", [{"spec": {"name": "x3d_s"}}, '{"spec": {"name": "x3d_s"}}'])
def test_describes_with_what_the_handler_tells(fake: FakeServer, told: object) -> None:
    fake.answer = lambda asked: (
        200, [{**described("1.0"), **({"customizedMetadata": told} if "customized" in asked.path else {})}],
    )  # fmt: skip
    with client_of(fake) as client:
        info = client.describe("m")
    assert info.default
    assert info.metadata == {"spec": {"name": "x3d_s"}}


def test_describes_a_model_whose_handler_tells_nothing(fake: FakeServer) -> None:
    refused = {"code": 415, "type": "UnsupportedVideo", "message": "no"}
    fake.answer = lambda asked: (200, [{**described("1.0"), "customizedMetadata": refused}])
    with client_of(fake) as client:
        assert client.describe("m").metadata is None
        fake.answer = lambda asked: BUSY if "customized" in asked.path else (200, [described("1.0")])
        assert client.describe("m").metadata is None


def test_management_calls_say_what_torchserve_takes(fake: FakeServer) -> None:
    fake.answer = serving_one("1.0")
    with client_of(fake) as client:
        said = client.register("m.mar", model="m", workers=1, batch_size=4, max_batch_delay_ms=20)
        assert said == 'Model "m" Version: 1.0 registered with 1 workers'
        assert client.scale("m", "1.0", min_workers=1) == 'Workers scaled to 1 for model "m" version 1.0'
        assert client.unregister("m", "1.0", drain_sec=0) == "done"
    assert [(asked.method, asked.path) for asked in fake.asked if asked.method != "GET"] == [
        (
            "POST",
            "/models?url=m.mar&model_name=m&initial_workers=1&batch_size=4&max_batch_delay=20&synchronous=false",
        ),
        ("PUT", "/models/m/1.0?min_worker=1&max_worker=1&synchronous=false"),
        ("DELETE", "/models/m/1.0"),
    ]


def test_management_refusals(fake: FakeServer) -> None:
    inner = serving_one("1.0")
    conflict = refusal(409, "ConflictStatusException", "is already registered")
    fake.answer = lambda asked: conflict if asked.method == "POST" else inner(asked)
    with client_of(fake) as client, pytest.raises(Conflict, match="is already registered"):
        client.register("m.mar")


def test_ready_waits_for_a_worker(fake: FakeServer) -> None:
    fake.answer = in_turn(
        refusal(404, "ModelNotFoundException"), (200, [described("1.0", "LOADING")]), (200, [described("1.0")])
    )
    with client_of(fake) as client:
        assert client.ready(5, model="m")
        assert len(fake.asked) == 3
        fake.answer = lambda asked: (200, [described("1.0", "LOADING")])
        assert not client.ready(0.01, model="m")
        fake.answer = lambda asked: REFUSED_KEY
        with pytest.raises(InvalidKey):
            client.ready(5, model="m")


def test_ready_without_a_server_or_a_key_file(tmp_path: Path) -> None:
    with VideoClient("http://127.0.0.1:9", token="t") as client:
        assert not client.ready(0.01)
    with VideoClient("http://127.0.0.1:9", key_file=tmp_path / "none.json") as client, pytest.raises(KeyUnavailable):
        client.ready(0.01)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must look like http://"):
        VideoClient(url)


def test_the_management_address_is_on_the_same_host() -> None:
    assert management_of("https://gpu-7:8443") == "https://gpu-7:8081"
    assert management_of("http://[::1]:8080") == "http://[::1]:8081"
    assert VideoClient("http://a:1/").management_url == "http://a:8081"


def test_pauses_double_up_to_a_limit_with_jitter() -> None:
    for _ in range(50):
        delays = list(Retry(attempts=6, first_delay_sec=1, max_delay_sec=5).delays_sec())
        assert len(delays) == 5
        for delay, longest in zip(delays, (1, 2, 4, 5, 5), strict=True):
            assert longest / 2 <= delay <= longest
    with pytest.raises(ValueError, match="attempts"):
        Retry(attempts=0)


@pytest.mark.parametrize(
    ("error", "for_predictions", "for_changes"),
    [
        (ServerBusy("busy"), True, True),
        (ConnectionFailed("refused", sent=False), True, True),
        (ConnectionFailed("lost", sent=True), True, False),
        (RequestTimeout("late"), False, False),
        (PredictionFailed("failed"), False, False),
        (EmptyClip("empty"), False, False),
    ],
)
def test_what_is_safe_to_repeat(error: Any, for_predictions: bool, for_changes: bool) -> None:
    assert is_safe(error, repeatable=True) is for_predictions
    assert is_safe(error, repeatable=False) is for_changes
