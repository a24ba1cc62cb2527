"""Scores to answers, against arithmetic done by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from handlers.errors import InternalError
from handlers.request.answer import VideoScores, WindowScores, aggregate, merge_segments, render, top_classes
from handlers.request.options import RequestOptions
from handlers.specs import get_spec
from handlers.video.sampling import Sampling, VideoReport, Window

SPEC = get_spec("x3d_s")
LABELS = ("jump", "run", "sit")
REPORT = VideoReport(
    duration_sec=9.0,
    width=320,
    height=240,
    fps=30.0,
    codec="h264",
    frames_decoded=13,
    decode_ms=1.23456,
    transform_ms=2.0,
    warnings=("2 frames were damaged",),
)


def scores(*windows: list[list[float]]) -> VideoScores:
    """Windows of views of logits; window i starts at i seconds."""
    return VideoScores(
        tuple(
            WindowScores(Window(Fraction(index), Fraction(index) + SPEC.clip_duration_exact), np.float32(views))  # type: ignore[arg-type]
            for index, views in enumerate(windows)
        ),
        REPORT,
        inference_ms=3.0,
        total_ms=6.5,
    )


def answer(given: VideoScores, **options: Any) -> Any:
    sampling = Sampling(stride_sec=options.pop("stride_sec", None))
    return render(given, RequestOptions(sampling=sampling, **options), LABELS, model="m", version="1.0", spec=SPEC)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


TWO_VIEWS = ([[0.0, 1.0, 2.0]], [[4.0, 0.0, -1.0]])


def sigmoid(values: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-value)) for value in values]


def test_sigmoid_gives_each_label_a_probability_of_its_own() -> None:
    first, second = sigmoid([0, 1, 2]), sigmoid([4, 0, -1])
    several = replace(scores(*TWO_VIEWS), activation="sigmoid")
    means = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert aggregate(several, "prob").tolist() == pytest.approx(means)
    assert aggregate(several, "score").tolist() == pytest.approx(sigmoid([2.0, 0.5, 0.5]))
    highest = replace(several, combine="max")
    assert aggregate(highest, "prob").tolist() == pytest.approx([max(pair) for pair in zip(first, second, strict=True)])
    assert aggregate(highest, "score").tolist() == aggregate(highest, "prob").tolist()


def test_sigmoid_of_extreme_logits_is_finite() -> None:
    extreme = replace(scores([[-1e4, 0.0, 1e4]]), activation="sigmoid")
    assert aggregate(extreme, "prob").tolist() == [0.0, 0.5, 1.0]


def test_an_embedding_is_the_mean_of_all_views() -> None:
    plain = scores([[0.0, 1.0, 2.0]], [[4.0, 0.0, -1.0]])
    features = np.array([[[0.1, 1.0]], [[0.3, 2.0]]], np.float32)
    windows = tuple(replace(each, features=of) for each, of in zip(plain.windows, features, strict=True))
    embedded = replace(plain, windows=windows)
    assert answer(embedded, output="embedding") == {"embedding": [0.2, 1.5], "length": 2}
    assert answer(embedded, output="embedding", format="list") == [{"embedding": [0.2, 1.5], "length": 2}]
    full = answer(embedded, output="embedding", format="full")
    assert "predictions" not in full
    assert (full["embedding"], full["length"]) == ([0.2, 1.5], 2)
    assert [clip["embedding"] for clip in full["clips"]] == [[0.1, 1.0], [0.3, 2.0]]
    timeline = answer(embedded, output="embedding", format="full", stride_sec=1.0)
    assert timeline["timeline"][1] == {"start_sec": 1.0, "end_sec": 3.6, "embedding": [0.3, 2.0], "length": 2}
    assert "segments" not in timeline


@pytest.mark.parametrize("features", [None, np.array([[np.nan, 1.0]], np.float32)])
def test_no_embedding_is_made_up(features: Any) -> None:
    plain = scores([[0.0, 1.0, 2.0]])
    with pytest.raises(InternalError):
        answer(replace(plain, windows=(replace(plain.windows[0], features=features),)), output="embedding")


def test_labels_below_the_threshold_are_left_out() -> None:
    several = replace(scores([[3.0, -3.0, 1.0]], [[-3.0, -3.0, -3.0]], [[3.0, -3.0, 1.0]]), activation="sigmoid")
    found = answer(several, threshold=0.5, format="full", stride_sec=1.0, top_k=3)
    assert [[entry["label"] for entry in window["predictions"]] for window in found["timeline"]] == [
        ["jump", "sit"],
        [],
        ["jump", "sit"],
    ]
    assert [(segment["start_sec"], segment["label"]) for segment in found["segments"]] == [(0.0, "jump"), (2.0, "jump")]
    assert answer(several, threshold=1.0) == {}
    assert list(answer(scores(*TWO_VIEWS), threshold=0.3)) == ["jump", "sit"]


def test_prob_is_the_mean_of_softmaxes() -> None:
    first, second = softmax([0, 1, 2]), softmax([4, 0, -1])
    expected = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    assert aggregate(scores(*TWO_VIEWS), "prob").tolist() == pytest.approx(expected, abs=1e-12)


def test_score_is_the_softmax_of_the_mean() -> None:
    assert aggregate(scores(*TWO_VIEWS), "score").tolist() == pytest.approx(softmax([2.0, 0.5, 0.5]), abs=1e-12)


def test_each_view_weighs_the_same() -> None:
    """Three crops in one window and one in another: four views."""
    three_and_one = scores([[0.0, 0.0, 0.0]] * 3, [[9.0, 0.0, 0.0]])
    expected = (3 * (1 / 3) + softmax([9, 0, 0])[0]) / 4
    assert aggregate(three_and_one, "prob")[0] == pytest.approx(expected)


def test_ties_go_by_class_id() -> None:
    assert top_classes(np.array([0.2, 0.3, 0.2, 0.3]), 3) == [1, 3, 0]


def test_dict_and_list() -> None:
    one = scores([[0.0, 1.0, 2.0]])
    probabilities = softmax([0, 1, 2])
    found = answer(one, top_k=2)
    assert list(found) == ["sit", "run"]
    assert found == pytest.approx({"sit": probabilities[2], "run": probabilities[1]})
    assert all(type(value) is float for value in found.values())
    listed = answer(one, top_k=2, format="list")
    assert listed == [
        {"label": "sit", "score": found["sit"], "class_id": 2},
        {"label": "run", "score": found["run"], "class_id": 1},
    ]
    assert type(listed[0]["class_id"]) is int


def test_full_tells_the_kind_of_the_weights() -> None:
    given = scores(*TWO_VIEWS)
    for form in ("full", "list", "dict"):
        options = RequestOptions(sampling=Sampling(), format=form)
        found: Any = render(given, options, LABELS, model="m", version="1.0", spec=SPEC, weights="random")
        assert ("weights" in found) == (form == "full")
    options = RequestOptions(sampling=Sampling(), format="full")
    found = render(given, options, LABELS, model="m", version="1.0", spec=SPEC, weights="random")
    assert list(found)[:4] == ["model", "version", "weights", "predictions"]
    assert found["weights"] == "random"


def test_full() -> None:
    found = answer(scores(*TWO_VIEWS), format="full", top_k=3)
    assert (found["model"], found["version"]) == ("m", "1.0")
    assert found["predictions"] == answer(scores(*TWO_VIEWS), format="list", top_k=3)
    assert [(clip["start_sec"], clip["end_sec"]) for clip in found["clips"]] == [(0.0, 2.6), (1.0, 3.6)]
    assert found["clips"][1]["predictions"] == answer(scores(TWO_VIEWS[1]), format="list", top_k=3)
    assert "timeline" not in found
    assert "segments" not in found
    assert found["video"] == {
        "duration_sec": 9.0,
        "width": 320,
        "height": 240,
        "fps": 30.0,
        "codec": "h264",
        "frames_decoded": 13,
        "plan_fallback": None,
        "warnings": ["2 frames were damaged"],
    }
    assert found["sampling"] == {
        "num_frames": 13,
        "sampling_rate": 6,
        "clip_duration_sec": 2.6,
        "start_sec": 0.0,
        "end_sec": 9.0,
        "num_clips": 2,
        "num_crops": 1,
        "stride_sec": None,
        "average": "prob",
    }
    assert found["timing_ms"] == {"decode": 1.235, "transform": 2.0, "inference": 3.0, "total": 6.5}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_end_in_force() -> None:
    def end(sampling: Sampling, duration_sec: float | None) -> Any:
        given = replace(scores(TWO_VIEWS[0]), report=replace(REPORT, duration_sec=duration_sec))
        options = RequestOptions(sampling=sampling, format="full")
        found: Any = render(given, options, LABELS, model="m", version="1", spec=SPEC)
        return found["sampling"]["end_sec"]

    assert end(Sampling(end_sec=4.0), 9.0) == 4.0
    assert end(Sampling(end_sec=40.0), 9.0) == 9.0
    assert end(Sampling(end_sec=40.0), None) == 40.0
    assert end(Sampling(), None) is None


def test_timeline_and_segments() -> None:
    run, sit = [[0.0, 5.0, 0.0]], [[0.0, 0.0, 5.0]]
    found = answer(scores(run, run, sit, run), stride_sec=1.0, format="full", top_k=1)
    assert [window["predictions"][0]["label"] for window in found["timeline"]] == ["run", "run", "sit", "run"]
    assert "clips" not in found
    assert [(s["start_sec"], s["end_sec"], s["label"]) for s in found["segments"]] == [
        (0.0, 3.6, "run"),
        (2.0, 4.6, "sit"),
        (3.0, 5.6, "run"),
    ]
    assert found["segments"][0]["score"] == pytest.approx(softmax([0, 5, 0])[1])


def test_a_segments_score_is_the_mean_of_its_windows() -> None:
    def window(start: float, score: float) -> dict[str, Any]:
        predictions = [{"label": "run", "score": score, "class_id": 1}]
        return {"start_sec": start, "end_sec": start + 1, "predictions": predictions}

    assert merge_segments([window(0, 0.5), window(1, 0.75), window(2, 1.0)]) == [
        {"start_sec": 0, "end_sec": 3, "label": "run", "score": 0.75}
    ]
    assert merge_segments([]) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_numbers_are_the_servers_fault(bad: float) -> None:
    with pytest.raises(InternalError):
        aggregate(scores([[0.0, bad, 1.0]]), "prob")


@given(npst.arrays(np.float32, (4, 50), elements=st.floats(-80, 80, width=32)), st.sampled_from(["prob", "score"]))
def test_probabilities_sum_to_one(logits: np.ndarray[Any, Any], average: Any) -> None:
    given = VideoScores((WindowScores(Window(0.0, 1.0), logits),), REPORT, 0.0, 0.0)
    probabilities = aggregate(given, average)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert (probabilities >= 0).all()
    order = top_classes(probabilities, 50)
    assert sorted(order) == list(range(50))
    assert all(probabilities[a] >= probabilities[b] for a, b in pairwise(order))
