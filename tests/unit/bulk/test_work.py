"""One worker: reading files, the order of prepare and score, outcomes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bulk.files import VideoFile
from bulk.outcomes import Outcome, ScoringOptions, outcome_of, parse_views
from bulk.work import Batch, LoadedBatch, classify_batches, load_batch, make_batches, read_video
from handlers.errors import InvalidOption, RequestError
from handlers.video.sampling import Sampling
from tests.support.fake_bulk import FakeClassifier, payload


def softmax(*logits: float) -> list[float]:
    exponentials = np.exp(np.array(logits))
    return [float(value) for value in exponentials / exponentials.sum()]


def outcomes(content: bytes, options: ScoringOptions) -> Outcome:
    loaded = LoadedBatch(Batch(0, (VideoFile("v", "v"),)), (content,))
    (finished,) = classify_batches(FakeClassifier(), [loaded], options)
    return finished.outcomes[0]


def test_the_next_batch_is_decoding_while_the_model_has_this_one() -> None:
    classifier = FakeClassifier()
    loaded = [LoadedBatch(Batch(number, (VideoFile("v", "v"),)), (payload([[0.0, 1.0]]),)) for number in range(3)]
    finished = list(classify_batches(classifier, loaded, ScoringOptions()))
    assert [batch.number for batch in finished] == [0, 1, 2]
    assert classifier.calls == ["prepare 0", "prepare 1", "score 0", "prepare 2", "score 1", "score 2"]


def test_failures_keep_their_slot() -> None:
    files = tuple(VideoFile(name, name) for name in "abc")
    loaded = LoadedBatch(Batch(4, files), (b"junk", payload([[0.0, 9.0]]), b"empty"))
    (finished,) = classify_batches(FakeClassifier(), [loaded], ScoringOptions())
    first, second, third = finished.outcomes
    assert first.failure is not None
    assert (first.video, first.failure.type) == ("a", "UnsupportedVideo")
    assert (second.video, second.samples[0].class_ids) == ("b", (1, 0))
    assert third.failure is not None
    assert third.failure.type == "EmptyClip"


def test_prob_and_score_average_as_named_and_none_keeps_every_view() -> None:
    video = payload([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    views = [softmax(0, 3, 0), softmax(2, 0, 0), softmax(0, 0, 1), softmax(0, 0, 1)]
    prob = outcomes(video, ScoringOptions(average="prob")).samples[0]
    assert dict(zip(prob.class_ids, prob.scores, strict=True)) == pytest.approx(
        dict(enumerate(np.mean(views, axis=0))), rel=1e-6
    )
    score = outcomes(video, ScoringOptions(average="score")).samples[0]
    assert dict(zip(score.class_ids, score.scores, strict=True)) == pytest.approx(
        dict(enumerate(softmax(0.5, 0.75, 0.5))), rel=1e-6
    )
    each = outcomes(video, ScoringOptions(average="none")).samples
    assert [sample.class_ids[0] for sample in each] == [1, 0, 2, 2]
    assert [sample.scores[0] for sample in each] == pytest.approx([max(view) for view in views], rel=1e-6)


def test_top_k_keeps_the_best_and_ties_go_by_id() -> None:
    sample = outcomes(payload([[1.0, 2.0, 2.0, 0.0]]), ScoringOptions(top_k=2)).samples[0]
    assert sample.class_ids == (1, 2)


TWO_CLIPS = payload([[9.0, 0.0], [0.0, 3.0], [9.0, 0.0]], [[9.0, 0.0], [1.0, 0.0], [9.0, 0.0]])
"""Two clips of three crops: only the middle ones are not sure of class 0."""


def test_fewer_views_of_the_same_pass() -> None:
    found = outcomes(TWO_CLIPS, ScoringOptions(by_views=True)).by_views
    assert list(found) == ["1x1", "2x1"]
    assert found["1x1"].class_ids == (1, 0)
    assert found["1x1"].scores[0] == pytest.approx(softmax(0, 3)[1], rel=1e-6)
    assert found["2x1"].scores[0] == pytest.approx((softmax(0, 3)[1] + softmax(1, 0)[1]) / 2, rel=1e-6)
    by_score = outcomes(TWO_CLIPS, ScoringOptions(by_views=True, average="score")).by_views
    assert by_score["2x1"].scores[0] == pytest.approx(softmax(0.5, 1.5)[1], rel=1e-6)
    assert outcomes(TWO_CLIPS, ScoringOptions()).by_views == {}


def test_what_is_not_joined_has_all_views_joined_beside_it() -> None:
    found = outcomes(TWO_CLIPS, ScoringOptions(by_views=True, average="none"))
    joined = outcomes(TWO_CLIPS, ScoringOptions())
    assert list(found.by_views) == ["1x1", "2x1", "2x3"]
    assert found.by_views["2x3"] == joined.samples[0]


def test_logits_are_kept_in_the_order_of_the_views() -> None:
    assert outcomes(TWO_CLIPS, ScoringOptions(logits=True)).logits == (
        (9.0, 0.0), (0.0, 3.0), (9.0, 0.0), (9.0, 0.0), (1.0, 0.0), (9.0, 0.0),
    )  # fmt: skip
    assert outcomes(TWO_CLIPS, ScoringOptions()).logits == ()


def test_an_outcome_survives_json() -> None:
    for content in (payload([[0.0, 1.0]]), TWO_CLIPS, b"junk"):
        outcome = outcomes(content, ScoringOptions(by_views=True, logits=True))
        assert Outcome.from_json(outcome.to_json()) == outcome


def test_scores_that_are_not_numbers_are_that_videos_failure() -> None:
    assert outcomes(payload([[float("nan"), 1.0]]), ScoringOptions()).failure is not None


def test_outcome_of_an_error() -> None:
    outcome = outcome_of("v", RequestError("why"), ScoringOptions())
    assert outcome.failure is not None
    assert outcome.failure.message == "why"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("gone")
    expected = {
        "big": ("VideoTooLarge", "the file has 5 bytes; allowed are 4 (limits.max_video_bytes)"),
        "gone": ("MissingFile", "the file does not exist"),
        "link": ("MissingFile", "this is a link to a file that does not exist"),
        "empty": ("MissingVideo", "the file is empty"),
        "pipe": ("UnreadableFile", "this is not a regular file"),
        ".": ("UnreadableFile", "this is not a regular file"),
        "a\0b": ("UnreadableFile", "the file cannot be read: embedded null byte"),
    }
    for name, (kind, message) in expected.items():
        error = read_video(VideoFile(name, f"{tmp_path}/{name}"), 4)
        assert isinstance(error, RequestError)
        assert (error.type, error.message) == (kind, message)
    error = read_video(VideoFile("x", "x", problem="x is more than one file: x.a, x.b"), 4)
    assert isinstance(error, RequestError)
    assert error.type == "AmbiguousFile"


def test_uris_are_read_through_pyarrow(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.mp4").write_bytes(b"1234")
    assert read_video(VideoFile("a", f"file://{tmp_path}/a.mp4"), 10) == b"1234"
    for uri, kind in ((f"file://{tmp_path}/b.mp4", "MissingFile"), ("nope://x/y", "UnreadableFile")):
        error = read_video(VideoFile("b", uri), 10)
        assert isinstance(error, RequestError)
        assert error.type == kind


def test_batches_are_fixed_before_anything_runs(tmp_path: Path) -> None:
    files = [VideoFile(str(index), f"{tmp_path}/{index}") for index in range(5)]
    batches = make_batches(files, 2)
    assert [[file.name for file in batch.files] for batch in batches] == [["0", "1"], ["2", "3"], ["4"]]
    assert [batch.number for batch in batches] == [0, 1, 2]
    assert len(load_batch(batches[2], 10).payloads) == 1


@pytest.mark.parametrize(("text", "clips", "crops"), [("1x1", 1, 1), ("10x3", 10, 3), ("4X1", 4, 1)])
def test_views(text: str, clips: int, crops: int) -> None:
    assert parse_views(text) == Sampling(num_clips=clips, num_crops=crops)


@pytest.mark.parametrize("text", ["", "10", "10x2", "0x1", "x3", "-1x1", "10x3x1", "1x"])
def test_views_that_are_none(text: str) -> None:
    with pytest.raises(InvalidOption, match="views must be CLIPSxCROPS"):
        parse_views(text)
