"""The adapter in TorchServe's own terms: its Context, its metrics cache, its messages; its classifier is a fake."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ts.context import Context
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from handlers.config import DEFAULT_RESPONSE_TIMEOUT_SEC
from handlers.dual_pathway_handler import DualPathwayHandler
from handlers.errors import InvalidConfig, SetupError
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores
from handlers.request.wire import render_reply
from handlers.single_pathway_handler import SinglePathwayHandler
from handlers.video_metrics import TOTAL_BUCKETS_SEC, VideoMetrics
from tests.support.fake_classifier import REPORT, FakeClassifier, call, rows
from tests.support.paths import REPOSITORY


@pytest.fixture
def context() -> Context:
    metrics = MetricsCacheYamlImpl(str(REPOSITORY / "metrics.yaml"))
    metrics.initialize_cache()
    metrics.model_name = "clips"
    manifest = {"model": {"modelName": "x3d_xs", "modelVersion": "2.0"}}
    return Context("clips", "/nowhere", manifest, 8, None, "0.12.0", metrics=metrics, model_yaml_config={})


@pytest.fixture
def handler(context: Context) -> Any:
    handler: Any = SinglePathwayHandler()
    handler.context, handler.classifier = context, FakeClassifier()
    handler.model_name, handler.model_version = "clips", "2.0"
    return handler


def test_each_row_gets_its_own_answer_in_order(handler: Any) -> None:
    answers = call(handler, *rows("good 3", "slow", "good -3", "", "good 0"))
    assert [status for status, _ in answers] == [200, 504, 200, 400, 200]
    assert list(answers[0][1]) == ["jump", "run", "sit"]
    assert answers[1][1] == {"code": 504, "type": "DecodeTimeout", "message": "too slow"}
    assert list(answers[2][1]) == ["run", "sit", "jump"]
    assert answers[3][1]["type"] == "MissingVideo"


def test_neighbours_change_nothing(handler: Any) -> None:
    (alone,) = call(handler, *rows("good 2"))
    for batch in (("crash 1", "good 2"), ("slow", "good 2"), ("", "good 2"), ("good 9", "good 2")):
        assert call(handler, *rows(*batch))[1] == alone


def test_an_unexpected_failure_stays_in_its_slot_and_is_logged_without_values(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        good, bad = call(handler, *rows("good 1", "crash 12345", authorization="Bearer sesame"))
    assert good[0] == 200
    assert (bad[0], bad[1]["type"]) == (503, "InternalError")
    assert caplog.messages[-1].startswith("a request failed unexpectedly: IndexError in answer.py:")
    for secret in ("12345", "sesame", "/"):
        assert secret not in caplog.messages[-1]


@pytest.mark.parametrize("step", ["prepare", "score"])
def test_a_broken_step_answers_every_row(handler: Any, step: str, caplog: pytest.LogCaptureFixture) -> None:
    handler.classifier = FakeClassifier(broken_step=step)
    with caplog.at_level(logging.ERROR):
        answers = call(handler, *rows("good 1", ""))
    assert [status for status, _ in answers] == [503, 400]
    assert answers[0][1]["type"] == "InternalError"
    assert "secret" not in caplog.text + json.dumps(answers)
    assert "1234" not in caplog.text + json.dumps(answers)


def test_describe_and_explain_are_answered_row_by_row(handler: Any) -> None:
    data, headers = rows("good 1", "good 1", "good 1")
    headers[0]["describe"] = "True"
    headers[1]["explain"] = "True"
    described, explained, good = call(handler, data, headers)
    assert described == (200, {"model": "clips", "version": "2.0", "spec": {"name": "x3d_xs"}, "num_labels": 3})
    assert (good[0], list(good[1])) == (200, ["jump", "run", "sit"])
    assert explained[0] == 200
    assert (explained[1]["label"], explained[1]["class_id"]) == ("run", 1)
    assert [step["weight"] for step in explained[1]["times"]] == [pytest.approx(4 / 13, abs=1e-4), 1.0]
    assert explained[1]["maps"][1]["heatmap"][2] == [pytest.approx(heat, abs=1e-3) for heat in (15 / 17, 16 / 17, 1)]


def test_options_of_explanations_are_checked(handler: Any) -> None:
    wrong = ("nothing", "3", "-1", "true", "1.5")
    data, headers = rows(*("good 1",) * (len(wrong) + 3))
    for row, header, target in zip(data, headers, wrong, strict=False):
        row["target"], header["explain"] = target, "True"
    data[-3]["target"] = "run"
    headers[-2] |= {"explain": "True", "X-Stream": "true"}
    headers[-1] |= {"explain": "True", "X-Output": "embedding"}
    answers = call(handler, data, headers)
    assert [status for status, _ in answers] == [400] * len(data)
    messages = [body["message"] for _, body in answers]
    allowed = "target must be a label of this model or a class id from 0 to 2"
    assert messages[: len(wrong)] == [f"{allowed}, got {target!r}" for target in wrong]
    assert "/explanations alone" in messages[-3]
    assert "leave stream out" in messages[-2]
    assert "leave output out" in messages[-1]


def test_a_sequence_is_left_out_of_the_answer_and_nobody_else_is(handler: Any) -> None:
    """TorchServe's frontend cannot answer StreamPredictions2 for a model without sequences; it hangs if it has to."""
    sequence = {"data": {"content-type": ""}, "ts_request_sequence_id": "a", "ts_request_sequence_end": "true"}
    data, headers = rows("good 1", "good 2", "good -3")
    headers[1] = sequence
    first, third = call(handler, data, headers)
    assert list(handler.context.request_ids) == [0, 2]
    assert (next(iter(first[1])), next(iter(third[1]))) == ("jump", "run")
    assert [bytes(request.payload) for request in handler.classifier.seen] == [b"good 1", b"good -3"]
    assert call(handler, data, [sequence] * 3) == []


def test_such_a_header_over_http_changes_nothing(handler: Any) -> None:
    ((status, _),) = call(handler, *rows("good 1", ts_request_sequence_id="a"))
    assert status == 200


@pytest.mark.parametrize("where", ["id", "label"])
def test_text_that_cannot_be_encoded_stays_in_its_row(handler: Any, where: str) -> None:
    text = "Z29vZCAz"
    body: dict[str, Any] = {"inputs": [{"name": "video", "datatype": "BYTES", "data": [text]}]}
    data: list[dict[str, Any]] = [{"body": bytearray(b"good -1")}, {"body": body}, {"body": bytearray(b"good -2")}]
    if where == "id":
        body["id"] = "\ud800"
    else:
        handler.classifier.labels = ("\ud800", "run", "sit")
    first, odd, third = call(handler, data, rows("", "", "")[1])
    assert (first[0], third[0]) == (200, 200)
    assert odd[0] == (400 if where == "id" else 200)


def test_a_row_that_cannot_be_rendered_is_the_servers_fault_and_only_its_own(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(envelope: Any, answers: Any, **names: str) -> Any:
        if "jump" in answers[0] and answers[0]["jump"] > 0.5:
            raise ValueError("a value of a client's")
        return render_reply(envelope, answers, **names)

    monkeypatch.setattr("handlers.video_handler.render_reply", broken)
    good, bad, other = call(handler, *rows("good -3", "good 3", "good -2"))
    assert (good[0], bad[0], other[0]) == (200, 503, 200)
    assert bad[1]["type"] == "InternalError"


def test_metrics_that_cannot_be_written_fail_nothing(
    handler: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("the metrics file is gone")

    monkeypatch.setattr(handler.context.metrics, "add_metric", broken)
    answers = call(handler, *rows("good 3", "slow", ""))
    assert [status for status, _ in answers] == [200, 504, 400]
    assert "a metric was not written: ValueError" in caplog.text


def test_a_report_that_is_no_number_fails_nothing(
    handler: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    report: Any = replace(REPORT, decode_ms="a report may hold text")  # type: ignore[arg-type]
    monkeypatch.setattr("tests.support.fake_classifier.REPORT", report)
    assert [status for status, _ in call(handler, *rows("good 3", "good 1"))] == [200, 200]
    assert "the metrics of a video was not written: TypeError" in caplog.text


def test_each_row_leaves_one_line_in_the_log(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    data, headers = rows("good 3", "slow", "", "good 1")
    headers[3]["X-Top-K"] = "confidential"
    with caplog.at_level(logging.INFO, logger="handlers"):
        call(handler, data, headers)
    lines = [re.sub(r"in \d+ ms", "in N ms", line) for line in caplog.messages if line.startswith("request ")]
    assert lines == [
        "request id-0: 200 in N ms, 1 video",
        "request id-1: 504 in N ms, DecodeTimeout: decoding one video takes longer than `decode_timeout_sec`",
        "request id-2: 400 in N ms, MissingVideo: the request holds no video, or an empty one",
        "request id-3: 400 in N ms, InvalidOption: an option is unknown, malformed, out of bounds or excluded, or a "
        "body asks for too much",
    ]


def test_a_body_of_several_videos_leaves_one_line(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    body = {"instances": ["%", "%", "c2xvdw==", "Z29vZCAz"]}
    with caplog.at_level(logging.INFO, logger="handlers"):
        call(handler, [{"body": body}], rows("")[1])
    (line,) = [line for line in caplog.messages if line.startswith("request ")]
    assert ", 3 of 4 videos failed: InvalidEncoding 2, DecodeTimeout 1; the first: JSON, base64, a tensor" in line


def test_failures_of_a_body_are_one_line_of_metrics_per_type(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    body = {"instances": ["%"] * 30 + ["c2xvdw=="] * 30 + ["Z29vZCAz"]}
    with caplog.at_level(logging.INFO, logger="ts"):
        ((status, answer),) = call(handler, [{"body": body}], rows("")[1])
    assert (status, len(answer["predictions"])) == (200, 61)
    lines = [re.search(r":(\d+)\|.*ErrorType:(\w+)", line) for line in caplog.messages if "ErrorType" in line]
    assert [found and found.groups() for found in lines] == [("30", "InvalidEncoding"), ("30", "DecodeTimeout")]


def test_a_body_of_too_many_videos_is_one_error_and_one_metric(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ts"):
        ((status, answer),) = call(handler, [{"body": {"instances": [""] * 200_000}}], rows("")[1])
    assert (status, answer["type"]) == (400, "InvalidOption")
    assert len(json.dumps(answer)) < 300
    assert len([line for line in caplog.messages if "VideoRequestErrors" in line]) == 1
    assert len(caplog.text) < 5000


def test_the_videos_of_a_row_share_a_budget_and_rows_do_not(handler: Any) -> None:
    limits = handler.classifier.config.limits
    body = {"instances": [{"data": "Z29vZCAz", "num_clips": 4, "num_crops": 3}, "Z29vZCAz", "%"]}
    before = time.monotonic()
    call(handler, [{"body": body}, {"body": bytearray(b"good 1")}], rows("", "")[1])
    one, two, three, other = handler.classifier.budgets
    assert one is two is three is not other
    assert (one.planned_views, other.planned_views) == (13, 1)
    assert one.deadline == other.deadline
    assert before <= one.deadline - limits.request_timeout_sec <= time.monotonic()


def test_many_videos_in_one_row(handler: Any) -> None:
    body = {"instances": ["Z29vZCAz", "c2xvdw==", "Z29vZCAtMw=="]}  # good 3, slow, good -3
    data: list[dict[str, Any]] = [{"body": bytearray(b"good 1")}, {"body": body}]
    _, headers = rows("", "")
    (first, second) = call(handler, data, headers)
    assert first[0] == second[0] == 200
    one, two, three = second[1]["predictions"]
    assert (next(iter(one)), two["type"], next(iter(three))) == ("jump", "DecodeTimeout", "run")


def test_only_grpc_rows_end_their_stream(handler: Any) -> None:
    grpc_headers = {"data": {"content-type": ""}}
    call(handler, [{"data": bytearray(b"good 1")}, *rows("good 1")[0]], [grpc_headers, *rows("good 1")[1]])
    assert handler.context.get_response_headers(0)["ts_stream_next"] == "false"
    assert "ts_stream_next" not in handler.context.get_response_headers(1)


def test_full_names_the_registered_model(handler: Any) -> None:
    ((_, answer),) = call(handler, *rows("good 1", **{"X-Format": "full"}))
    assert (answer["model"], answer["version"]) == ("clips", "2.0")


def test_a_clients_id_is_in_its_answer_its_header_and_its_line_of_the_log(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data, headers = rows("good 1", "slow", "good 1", "good 1", **{"X-Format": "full"})
    for row, given in zip(headers, ("job-1", "job-2", "job 3"), strict=False):
        row["X-Request-Id"] = given
    with caplog.at_level(logging.INFO, logger="handlers"):
        answers = [answer for _, answer in call(handler, data, headers)]
    assert [answer.get("request_id") for answer in answers] == ["job-1", None, None, None]
    assert list(answers[0])[:4] == ["model", "version", "weights", "request_id"]
    assert set(answers[1]) == {"code", "type", "message"}
    sent = [handler.context.get_response_headers(index).get("X-Client-Request-Id") for index in range(4)]
    assert sent == ["job-1", "job-2", None, None]
    ids = [line.partition(":")[0] for line in caplog.messages if line.startswith("request ")]
    assert ids == ["request id-0 client job-1", "request id-1 client job-2", "request id-2", "request id-3"]


def test_metrics_match_their_declaration(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ts"):
        call(handler, *rows("good 1", "slow"))
        handler._metrics.flush()
    lines = [record.getMessage().split("|#type")[0] for record in caplog.records if "[METRICS]Video" in record.message]
    level = "|#ModelName:clips,ModelVersion:2.0,Level:Model"
    buckets = [line for line in lines if "VideoTotalTime_bucket" in line]
    assert [line.rpartition("le:")[2] for line in buckets] == [*map(str, TOTAL_BUCKETS_SEC), "+Inf"]
    assert all(f":1{level},le:" in line for line in buckets)
    written = [re.sub(r"\.[\w ]+:", ":", line, count=1) for line in lines if line not in buckets]
    assert sorted(written) == sorted(
        [
            f"[METRICS]VideoRequestsUnderWay:2{level}",
            f"[METRICS]VideoBytesReceived:6{level}",
            f"[METRICS]VideoBytesReceived:4{level}",
            f"[METRICS]VideoDecodeTime:0.003{level}",
            f"[METRICS]VideoTransformTime:0.002{level}",
            f"[METRICS]VideoInferenceTime:0.005{level}",
            f"[METRICS]VideoTotalTime_sum:0.01{level}",
            f"[METRICS]VideoTotalTime_count:1{level}",
            f"[METRICS]VideoFramesDecoded:4{level}",
            f"[METRICS]VideoRequestErrors:1{level},ErrorType:DecodeTimeout",
        ]
    )


def test_a_slow_video_is_in_the_buckets_above_its_time(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    cache = handler.context.metrics
    scores = VideoScores((), REPORT, inference_ms=5.0, total_ms=45_000.0)
    metrics = VideoMetrics(cache, "clips", "2.0")
    with caplog.at_level(logging.INFO, logger="ts"):
        metrics.answered(scores)
        metrics.answered(replace(scores, total_ms=5_000.0))
        metrics.flush()
        metrics.flush()  # nothing is written twice
    lines = [line.split("|#type")[0] for line in caplog.messages if "VideoTotalTime" in line]
    written = {line.rpartition("le:")[2]: float(line.rpartition("|#M")[0].rpartition(":")[2]) for line in lines}
    assert [written.pop(bucket) for bucket in ("5.0", "10.0", "20.0", "30.0", "60.0", "120.0", "+Inf")] == [
        *(1, 1, 1, 1),
        *(2, 2, 2),
    ]
    assert sorted(written.values()) == [2, 50]  # how many, and their seconds


def test_the_buckets_end_where_torchserve_gives_a_worker_up() -> None:
    assert TOTAL_BUCKETS_SEC[-1] == DEFAULT_RESPONSE_TIMEOUT_SEC


def test_busy_workers_beside_this_one_count_as_under_way(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    handler.classifier.other_busy_workers = 3
    with caplog.at_level(logging.INFO, logger="ts"):
        call(handler, *rows("good 1", "good 2"))
    (line,) = [line for line in caplog.messages if "UnderWay" in line]
    assert ":5|#" in line


def test_a_replaced_decoding_process_is_counted_once(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = []
    with caplog.at_level(logging.INFO, logger="ts"):
        for restarts in ({"lost": 0, "error": 0}, {"lost": 2, "error": 0}, {"lost": 2, "error": 1}):
            caplog.clear()
            handler.classifier.decoder_restarts = restarts
            call(handler, *rows("good 1"))
            found += [line.split("|#type")[0] for line in caplog.messages if "Restarts" in line]
    assert [re.sub(r"\.[\w ]+:", ":", line, count=1) for line in found] == [
        "[METRICS]VideoDecoderRestarts:2|#ModelName:clips,ModelVersion:2.0,Level:Model,Reason:lost",
        "[METRICS]VideoDecoderRestarts:1|#ModelName:clips,ModelVersion:2.0,Level:Model,Reason:error",
    ]


def test_every_metric_can_be_parsed_by_torchserve() -> None:
    """Its pattern for a metric's line has no other characters, and drops the line without an error otherwise."""
    declared = yaml.safe_load((REPOSITORY / "metrics.yaml").read_text())["model_metrics"]
    for metric in (metric for metrics in declared.values() for metric in metrics):
        assert re.fullmatch(r"\w+", metric["name"], re.ASCII)
        assert re.fullmatch(r"[\w ]+", metric["unit"], re.ASCII), metric


def test_a_plan_that_failed_is_counted_by_its_reason(
    handler: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = replace(REPORT, plan_fallback="raw_stream")
    monkeypatch.setattr("tests.support.fake_classifier.REPORT", report)
    with caplog.at_level(logging.INFO, logger="ts"):
        call(handler, *rows("good 1"))
    lines = [record.getMessage().split("|#type")[0] for record in caplog.records]
    labels = "#ModelName:clips,ModelVersion:2.0,Level:Model,Reason:raw_stream"
    assert [line for line in lines if line.startswith("[METRICS]VideoPlanFallbacks.") and line.endswith(f":1|{labels}")]


# Loading ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """An unpacked archive as far as the handler itself reads it; its `handlers` is this repository's."""
    (tmp_path / "handlers").symlink_to(REPOSITORY / "handlers")
    (tmp_path / "model-config.yaml").write_text("handler:\n  spec: x3d_xs\n")
    return tmp_path


def loading(context: Context, model_dir: Path, gpu_id: int | None = None) -> Context:
    context.system_properties.update(model_dir=str(model_dir), gpu_id=gpu_id)
    return context


def test_each_entry_serves_its_family_alone(context: Context, model_dir: Path) -> None:
    with pytest.raises(SetupError, match=r"x3d_xs has 1 pathway\(s\) and needs the entry single_pathway_handler.py"):
        DualPathwayHandler().initialize(loading(context, model_dir))
    (model_dir / "model-config.yaml").write_text("handler:\n  spec: slowfast_r50\n")
    with pytest.raises(
        SetupError, match=r"slowfast_r50 has 2 pathway\(s\) and needs the entry dual_pathway_handler.py"
    ):
        SinglePathwayHandler().initialize(loading(context, model_dir))


def test_a_shadowed_package_is_refused(context: Context, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="imported from outside the model archive"):
        SinglePathwayHandler().initialize(loading(context, tmp_path))


def test_unknown_settings_are_refused(context: Context, model_dir: Path) -> None:
    (model_dir / "model-config.yaml").write_text("handler:\n  spec: x3d_xs\n  presicion: float32\n")
    with pytest.raises(InvalidConfig, match=r"unknown key handler\.presicion"):
        SinglePathwayHandler().initialize(loading(context, model_dir))


@pytest.mark.parametrize("settings", ["responseTimeout: 60\n", "responseTimeout: 30\n", "responseTimeout: soon\n"])
def test_a_worker_that_would_be_killed_before_a_request_times_out_is_refused(
    context: Context, model_dir: Path, settings: str
) -> None:
    (model_dir / "model-config.yaml").write_text(f"{settings}handler:\n  spec: x3d_xs\n")
    with pytest.raises(InvalidConfig, match="responseTimeout") as caught:
        SinglePathwayHandler().initialize(loading(context, model_dir))
    assert "\n" not in caught.value.message


def test_a_missing_package_is_named(context: Context, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(VideoClassifier, "from_directory", missing)
    with pytest.raises(SetupError, match="the Python package av is missing"):
        SinglePathwayHandler().initialize(loading(context, model_dir))


@pytest.mark.parametrize(
    ("driver", "cuda", "gpu_id", "device"),
    [
        (True, True, 1, "cuda:1"),
        (True, True, None, "cpu"),
        (True, False, 0, "cpu"),
        (False, True, 0, "cpu"),  # torch, which a worker on OpenVINO does not have, is not asked
        (False, False, None, "cpu"),
    ],
)
def test_device(
    context: Context,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: bool,
    cuda: bool,
    gpu_id: int | None,
    device: str,
) -> None:
    asked: list[str] = []

    def load(_: Path, *, device: str, **settings: object) -> None:
        asked.append(device)
        raise SetupError("far enough")

    monkeypatch.setattr("handlers.model.runtimes.has_gpu_driver", lambda: driver)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr(VideoClassifier, "from_directory", load)
    with pytest.raises(SetupError, match="far enough"):
        SinglePathwayHandler().initialize(loading(context, model_dir, gpu_id))
    assert asked == [device]
