from __future__ import annotations

import copy
import json
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from handlers.request.answer import VideoScores, WindowScores, render
from handlers.request.option_table import Output
from handlers.request.options import RequestOptions
from handlers.specs import get_spec
from handlers.video.sampling import Sampling, VideoReport, Window
from video_action_client import Embedding, ModelInfo, Prediction, Segment, Timeline
from video_action_client.errors import InvalidAnswer
from video_action_client.text import RANDOM_WEIGHTS, prediction_lines, timeline_lines


def rendered(sampling: Sampling, *, output: Output = "scores") -> Any:
    """What the server's own code answers, through JSON."""
    report = VideoReport(
        duration_sec=None,
        width=64,
        height=48,
        fps=None,
        codec="vp9",
        frames_decoded=9,
        decode_ms=1.5,
        transform_ms=0.5,
        warnings=("cut off",),
    )
    logits = [[[2.0, 1.0, 0.0]], [[0.0, 1.0, 3.0]]]
    windows = tuple(
        WindowScores(Window(float(start), start + 1.6), np.array(each, np.float32), features=np.array(each, np.float32))
        for start, each in enumerate(logits)
    )
    scores = VideoScores(windows, report, inference_ms=3.0, total_ms=6.0)
    options = RequestOptions(top_k=2, sampling=sampling, format="full", output=output)
    answer = render(scores, options, ["a", "b", "c"], model="m", version="2.0", spec=get_spec("x3d_xs"))
    return json.loads(json.dumps(answer))


def test_reads_what_the_server_renders() -> None:
    answer = rendered(Sampling(num_clips=2))
    prediction = Prediction.from_json(answer)
    assert (prediction.model, prediction.version) == ("m", "2.0")
    assert [each.label for each in prediction.predictions] == ["c", "a"]
    assert prediction.top.class_id == 2
    assert prediction.as_dict() == {each["label"]: each["score"] for each in answer["predictions"]}
    assert [clip.predictions[0].label for clip in prediction.clips] == ["a", "c"]
    assert prediction.clips[1].end_sec == 2.6
    assert prediction.video.duration_sec is None
    assert prediction.video.warnings == ("cut off",)
    assert prediction.sampling.num_clips == 2
    assert prediction.sampling.clip_duration_sec == 1.6
    assert prediction.timing.total_ms == 6.0
    assert prediction.answer == answer


@pytest.mark.parametrize("sampling", [Sampling(num_clips=2), Sampling(stride_sec=1.0)])
def test_reads_an_embedding_that_the_server_renders(sampling: Sampling) -> None:
    answer = rendered(sampling, output="embedding")
    embedding = Embedding.from_json(answer)
    assert embedding.length == len(embedding.vector) == 3
    assert embedding.vector == (1.0, 1.0, 1.5)
    assert [(clip.start_sec, clip.vector) for clip in embedding.clips] == [
        (0.0, (2.0, 1.0, 0.0)),
        (1.0, (0.0, 1.0, 3.0)),
    ]
    assert embedding.answer == answer
    with pytest.raises(InvalidAnswer, match="an embedding of 3 numbers, its length is said to be 4"):
        Embedding.from_json({**answer, "length": 4})
    with pytest.raises(InvalidAnswer, match="'embedding' is missing"):
        Embedding.from_json(rendered(sampling))


def test_reads_a_timeline_that_the_server_renders() -> None:
    timeline = Timeline.from_json(rendered(Sampling(stride_sec=1.0)))
    assert [window.start_sec for window in timeline.windows] == [0.0, 1.0]
    assert timeline.clips == timeline.windows == Prediction.from_json(timeline.answer).clips
    assert [(each.start_sec, each.end_sec, each.label) for each in timeline.segments] == [
        (0.0, 1.6, "a"),
        (1.0, 2.6, "c"),
    ]
    assert timeline.sampling.stride_sec == 1.0


def test_results_are_values(full_answer: dict[str, Any]) -> None:
    first, second = (Timeline.from_json(copy.deepcopy(full_answer)) for _ in range(2))
    assert first == second
    with pytest.raises(FrozenInstanceError):
        first.model = "other"  # type: ignore[misc]
    assert first.segments[0] == Segment(0.0, 3.0, "pan left", 0.7)


@pytest.mark.parametrize(
    "damage",
    [
        lambda answer: answer.pop("video"),
        lambda answer: answer.update(predictions=None),
        lambda answer: answer.update(predictions=[{"label": "a"}]),
        lambda answer: answer["video"].update(width="wide"),
        lambda answer: answer["video"].update(fps="30"),
        lambda answer: answer.update(timing_ms=None),
    ],
)
def test_another_programs_answer_is_refused_in_words(full_answer: dict[str, Any], damage: Any) -> None:
    damage(full_answer)
    for kind in (Prediction, Timeline):
        with pytest.raises(InvalidAnswer, match="the answer is not one of this project's handlers"):
            kind.from_json(full_answer)


def test_an_answer_without_timeline_is_no_timeline(full_answer: dict[str, Any]) -> None:
    del full_answer["segments"]
    with pytest.raises(InvalidAnswer, match="'segments' is missing"):
        Timeline.from_json(full_answer)
    with pytest.raises(InvalidAnswer, match="expected an object, got list"):
        Prediction.from_json([1, 2])


def test_a_model_is_ready_with_one_ready_worker() -> None:
    worker = {"id": "9000", "status": "UNLOADING", "pid": 1, "gpu": False}
    entry = {
        "modelName": "m", "modelVersion": "1.0", "modelUrl": "m.mar", "minWorkers": 1, "maxWorkers": 2, "batchSize": 8,
        "maxBatchDelay": 5, "responseTimeout": 120, "workers": [worker, {**worker, "status": "READY"}],
        "jobQueueStatus": {"remainingCapacity": 97, "pendingRequests": 3},
    }  # fmt: skip
    info = ModelInfo.from_json(entry, default=True)
    assert info.ready
    assert (info.pending_requests, info.remaining_capacity) == (3, 97)
    assert not ModelInfo.from_json({**entry, "workers": [worker]}, default=True).ready
    with pytest.raises(InvalidAnswer):
        ModelInfo.from_json({"modelName": "m"}, default=True)


def test_random_weights_are_told_and_said(full_answer: dict[str, Any]) -> None:
    assert Timeline.from_json(full_answer).weights is None
    marked = {**full_answer, "weights": "random"}
    prediction, timeline = Prediction.from_json(marked), Timeline.from_json(marked)
    assert (prediction.weights, timeline.weights) == ("random", "random")
    for lines in (prediction_lines("a.mp4", prediction), timeline_lines("a.mp4", timeline)):
        assert lines[:2] == ["a.mp4", f"  {RANDOM_WEIGHTS}"]
    trained = Prediction.from_json({**full_answer, "weights": "published"})
    assert RANDOM_WEIGHTS not in "".join(prediction_lines("a.mp4", trained))


def test_an_answer_in_which_no_label_reaches_the_threshold(full_answer: dict[str, Any]) -> None:
    prediction = Prediction.from_json({**full_answer, "predictions": [], "clips": full_answer["timeline"]})
    assert prediction.as_dict() == {}
    assert "  no label reaches the threshold" in prediction_lines("clip.mp4", prediction)
