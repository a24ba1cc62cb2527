"""From outcomes to the result file: counts, metrics, published figures, the same bytes every time."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bulk.annotations import Annotation
from bulk.class_rows import class_csv
from bulk.files import VideoFile
from bulk.outcomes import Facts, Failure, Outcome, Sample
from bulk.report import ReportOptions, build_result, published_figures, result_bytes, saved_record, summary
from handlers.specs import get_spec

LABELS = tuple(f"class {index}" for index in range(6))
SPEC = get_spec("x3d_s")


def facts(decode_ms: float = 1.0) -> Facts:
    return Facts(2.0, 64, 48, 30.0, "h264", 7, 1, (), decode_ms, 0.5, 3.0)


def scored(video: str, *best: int, decode_ms: float = 1.0) -> Outcome:
    """One sample for each of `best`, whose first class that is; the others follow in the order of their ids."""
    samples = []
    for first in best:
        ids = (first, *(index for index in range(6) if index != first))
        samples.append(Sample(ids, (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125)))
    return Outcome(video, samples=tuple(samples), facts=facts(decode_ms))


def record(label: int, outcome: Outcome, saved: Any = "all") -> dict[str, Any]:
    return saved_record(Annotation(VideoFile(outcome.video, outcome.video), (label,)), outcome, saved)


RECORDS = [
    record(0, scored("a", 0)),
    record(0, scored("b", 0)),
    record(1, scored("c", 2)),
    record(5, scored("d", 0)),
    record(2, Outcome("gone", failure=Failure("MissingFile", "the file does not exist"))),
    record(2, Outcome("bad", failure=Failure("UndecodableVideo", "it is damaged"))),
]


def result(records: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return build_result({"j": 1}, records, labels=LABELS, spec=SPEC, options=ReportOptions(**options))


def test_counts_and_metrics_by_hand() -> None:
    found = result(RECORDS)
    assert found["counts"] == {"annotated": 6, "scored": 4, "missing": 1, "broken": 1, "samples": 4}
    assert found["missing"] == ["gone"]
    assert found["broken"] == [{"video": "bad", "type": "UndecodableVideo", "message": "it is damaged"}]
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    # Right: a, b. Ranks: 0, 0, 2 (class 2, then 0, then 1), 5. Classes that occur: 0 (1.0), 1 (0), 5 (0), 2 (0).
    assert values == pytest.approx(
        {
            "top1_accuracy": 0.5,
            "top5_accuracy": 0.75,
            "mean_class_accuracy": 0.25,
            "macro_top5_accuracy": 2 / 3,  # classes 0, 1 and 5 have samples
            "precision": (2 / 3) / 4,
            "recall": 0.25,
            "f1": 0.8 / 4,
            # Class 0: three samples share the highest score, two of them have it. Class 1: fourth. Class 5: all share.
            "mean_average_precision": (2 / 3 + 1 / 4 + 1 / 4) / 3,
            "calibration_error": 0.0,  # half of the answers are right, all with a probability of one half
        }
    )
    assert found["labels"] == list(LABELS)
    assert found["metrics"]["f1"]["interval"] == "bootstrap"
    assert found["metrics"]["calibration_error"] == {"value": 0.0, "low": None, "high": None, "interval": None}
    assert found["metrics"]["top1_accuracy"]["interval"] == "Wilson"
    assert found["confusion"]["counts"][0] == [2, 0, 0, 0, 0, 0]
    assert found["confusion"]["counts"][5] == [1, 0, 0, 0, 0, 0]
    assert [row["label"] for row in found["classes"]] == ["class 0", "class 1", "class 2", "class 5"]
    assert found["classes"][1]["most_often_taken_for"] == "class 2"


def test_only_the_metrics_asked_for() -> None:
    assert set(result(RECORDS, metrics=("mean_class_accuracy",))["metrics"]) == {"mean_class_accuracy"}


def test_the_rows_of_the_classes_by_hand() -> None:
    first, second, _, fourth = result(RECORDS)["classes"]
    assert {key: first[key] for key in ("samples", "right", "accuracy", "precision", "recall")} == {
        "samples": 2, "right": 2, "accuracy": 1.0, "precision": 2 / 3, "recall": 1.0,
    }  # fmt: skip
    assert (first["f1"], first["most_often_taken_for"], first["times_taken_for"]) == (0.8, None, 0)
    assert (second["accuracy"], second["most_often_taken_for"], second["times_taken_for"]) == (0.0, "class 2", 1)
    assert second["average_precision"] == pytest.approx(1 / 4)
    assert (fourth["class_id"], fourth["samples"], fourth["precision"]) == (5, 1, 0.0)


def test_the_classes_as_csv() -> None:
    lines = class_csv(result(RECORDS)["classes"]).decode().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("class_id,label,samples,right,accuracy,accuracy_low")
    assert lines[3].split(",")[:5] == ["2", "class 2", "0", "0", ""]  # predicted alone: no accuracy
    quoted = class_csv([{"class_id": 0, "label": 'say "hi", wave'}]).decode().splitlines()[1]
    assert quoted.startswith('0,"say ""hi"", wave",')


def test_only_five_scores_tell_no_average_precision() -> None:
    found = result([record(0, scored("a", 0), "top5"), record(1, scored("b", 2), "top5")])
    assert "mean_average_precision" not in found["metrics"]
    assert found["metrics"]["calibration_error"]["value"] == 0.0
    assert [row["average_precision"] for row in found["classes"]] == [None] * 3


SEVERAL = replace(SPEC, activation="sigmoid")


def several(labels: tuple[int, ...], video: str, *scores: float) -> dict[str, Any]:
    """A record of one sample with these probabilities by class."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    sample = Sample(tuple(order), tuple(scores[index] for index in order))
    outcome = Outcome(video, samples=(sample,), facts=facts())
    return saved_record(Annotation(VideoFile(video, video), labels), outcome, "all", several_labels=True)


def test_several_labels_by_hand() -> None:
    records = [
        several((0, 1), "a", 0.9, 0.6, 0.1),
        several((1,), "b", 0.8, 0.4, 0.2),
        several((), "c", 0.1, 0.7, 0.3),
        several((2,), "d", 0.2, 0.1, 0.4),
    ]
    options = ReportOptions()
    found = build_result({}, records, labels=LABELS[:3], spec=SEVERAL, options=options)
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert values == pytest.approx(
        {
            "top1_accuracy": 2 / 4,  # a and d: their first class is one of theirs; c has none
            "top5_accuracy": 3 / 4,
            # From one half on. 0: a right, b wrong. 1: a right, c wrong, b missed. 2: d missed.
            "precision": (1 / 2 + 1 / 2 + 0) / 3,
            "recall": (1 + 1 / 2 + 0) / 3,
            "f1": (2 / 3 + 2 / 4 + 0) / 3,
            # 0: a is first. 1: c, a, b: 1/2 and 2/3. 2: d is first.
            "mean_average_precision": (1 + (1 / 2 + 2 / 3) / 2 + 1) / 3,
        }
    )
    assert records[2]["samples"][0]["rank"] is None
    assert found["confusion"] is None
    assert [row["recall"] for row in found["classes"]] == [1.0, 0.5, 0.0]
    assert [row["accuracy"] for row in found["classes"]] == [None] * 3
    assert json.loads(result_bytes(found)) == json.loads(json.dumps(found))
    assert "mean average precision" in summary(found, options)


def test_every_view_counts_when_they_are_not_averaged() -> None:
    found = result([record(0, scored("a", 0, 0, 1)), record(1, scored("b", 1, 2, 3))], average="none", views="3x1")
    assert found["counts"]["samples"] == 6
    assert found["metrics"]["top1_accuracy"]["value"] == 3 / 6
    one_view = result([record(0, scored("a", 0)), record(1, scored("b", 2))])
    assert found["metrics"]["top1_accuracy"]["low"] == one_view["metrics"]["top1_accuracy"]["low"]


def test_figures_of_fewer_views() -> None:
    records = []
    for video, label, one_view, all_views in (("a", 0, 0, 0), ("b", 1, 2, 1)):
        outcome = replace(scored(video, all_views), by_views={"1x1": scored(video, one_view).samples[0]})
        records.append(record(label, outcome))
    found = result(records, views="10x1")
    assert found["metrics"]["top1_accuracy"]["value"] == 1.0
    assert {name: metric["value"] for name, metric in found["by_views"]["1x1"].items()} == pytest.approx(
        {"top1_accuracy": 0.5, "top5_accuracy": 1.0, "mean_class_accuracy": 1 / 3}
    )
    assert "1x1 views of the same pass: top1 accuracy 50.00 %" in summary(found, ReportOptions())
    assert set(result(records, metrics=("calibration_error",))["by_views"]["1x1"]) == set()


def test_nothing_scored_is_no_accuracy() -> None:
    found = result(RECORDS[4:])
    assert found["metrics"] == {}
    assert summary(found, ReportOptions()).startswith("0 of 2 videos scored")


def test_time_leaves_no_trace_and_scores_are_by_class() -> None:
    fast, slow = (record(3, scored("a", 3, decode_ms=ms)) for ms in (1.0, 9.0))
    assert fast == slow
    assert fast["samples"][0]["scores"] == [0.25, 0.125, 0.0625, 0.5, 0.03125, 0.03125]
    assert (fast["samples"][0]["rank"], fast["samples"][0]["predicted"]) == (0, 3)
    short = record(4, scored("a", 3), "top5")["samples"][0]
    assert short == {
        "predicted": 3,
        "rank": 5,
        "top": [3, 0, 1, 2, 4],
        "top_scores": [0.5, 0.25, 0.125, 0.0625, 0.03125],
    } | {"rank": 4}


def test_the_file_is_json_and_the_same_bytes_again() -> None:
    content = result_bytes(result(RECORDS))
    assert json.loads(content) == json.loads(json.dumps(result(RECORDS)))
    again = json.loads(content)["videos"]
    assert result_bytes(result(again)) == content


def test_published_figures_for_the_views_come_first() -> None:
    assert published_figures(SPEC, "1x1")[0]["top1"] == 73.33
    other = published_figures(get_spec("x3d_s_mmaction2"), "10x1")
    assert [(figure["views"], figure["top1"], figure["reference_top1"]) for figure in other] == [
        ("10x1", 72.7, 73.1),
        ("10x3", 73.2, 73.5),
    ]
    assert published_figures(get_spec("camera_motion"), "1x1") == []


def test_summary_shows_the_published_figure_and_what_failed() -> None:
    text = summary(result(RECORDS), ReportOptions())
    assert "top1 accuracy            50.00 %" in text
    assert "published 73.33 % (10x3)" in text
    assert "missing: 1: gone" in text
    assert "broken: 1: bad (UndecodableVideo)" in text


def test_random_weights_are_said_and_have_no_published_figures() -> None:
    job = {"model": {"archive": {"weights": {"kind": "random"}}}}
    found = build_result(job, RECORDS, labels=LABELS, spec=SPEC, options=ReportOptions())
    assert found["published"] == []
    text = summary(found, ReportOptions())
    assert "RANDOM WEIGHTS" in text
    assert "published" not in text
