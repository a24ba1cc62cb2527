"""From outcomes to the result file: counts, metrics, published figures, the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bulk.annotations import Annotation
from bulk.files import VideoFile
from bulk.outcomes import Facts, Failure, Outcome, Sample
from bulk.plots import write_plots
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
    return saved_record(Annotation(VideoFile(outcome.video, outcome.video), label), outcome, saved)


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
    assert values == {"top1_accuracy": 0.5, "top5_accuracy": 0.75, "mean_class_accuracy": 0.25}
    assert found["metrics"]["top1_accuracy"]["interval"] == "Wilson"
    assert found["confusion"]["counts"][0] == [2, 0, 0, 0, 0, 0]
    assert found["confusion"]["counts"][5] == [1, 0, 0, 0, 0, 0]
    assert [row["label"] for row in found["classes"]] == ["class 0", "class 1", "class 2", "class 5"]
    assert found["classes"][1]["most_often_taken_for"] == "class 2"


def test_only_the_metrics_asked_for() -> None:
    assert set(result(RECORDS, metrics=("mean_class_accuracy",))["metrics"]) == {"mean_class_accuracy"}


def test_every_view_counts_when_they_are_not_averaged() -> None:
    found = result([record(0, scored("a", 0, 0, 1)), record(1, scored("b", 1, 2, 3))], average="none", views="3x1")
    assert found["counts"]["samples"] == 6
    assert found["metrics"]["top1_accuracy"]["value"] == 3 / 6
    one_view = result([record(0, scored("a", 0)), record(1, scored("b", 2))])
    assert found["metrics"]["top1_accuracy"]["low"] == one_view["metrics"]["top1_accuracy"]["low"]


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
    assert "top1 accuracy          50.00 %" in text
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


def test_plots_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = write_plots(result(RECORDS), LABELS, tmp_path / "r.json")
    assert [path.name for path in paths] == ["r.classes.png", "r.confusion.png"]
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000
