"""Two results of the same videos: differences, the paired bootstrap, McNemar's test, and what cannot be compared."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulk.comparison import NotComparable, agreement, compare, mcnemar_exact, text_of
from scripts.compare import main

LABELS = ["wave", "clap", "point"]


def result(predicted: dict[str, int], truth: dict[str, int], *, labels: list[str] = LABELS) -> dict[str, Any]:
    """A finished result in which each video's predicted class has probability 0.6 and the others 0.2."""
    videos = []
    for video, label in truth.items():
        if video not in predicted:
            videos.append({"video": video, "label": label, "error": {"type": "MissingFile", "message": "gone"}})
            continue
        scores = [0.6 if index == predicted[video] else 0.2 for index in range(len(labels))]
        order = sorted(range(len(labels)), key=lambda index: -scores[index])
        sample = {"predicted": predicted[video], "rank": order.index(label), "scores": scores}
        videos.append({"video": video, "label": label, "samples": [sample]})
    return {"complete": True, "labels": labels, "videos": videos}


TRUTH = {f"v{index}": index % 3 for index in range(30)}
A = result({video: label if int(video[1:]) < 20 else (label + 1) % 3 for video, label in TRUTH.items()}, TRUTH)
B = result({video: label if int(video[1:]) >= 5 else (label + 1) % 3 for video, label in TRUTH.items()}, TRUTH)


def test_by_hand() -> None:
    found = compare(A, B)
    assert (found.videos, found.only_scored_by_a, found.only_scored_by_b) == (30, 0, 0)
    both = found.agreement
    assert (both.both, both.only_a, both.only_b, both.neither) == (15, 5, 10, 0)
    by_name = {each.name: each for each in found.differences}
    assert list(by_name) == [
        "top1_accuracy", "top5_accuracy", "mean_class_accuracy", "precision", "f1", "mean_average_precision",
    ]  # fmt: skip
    top1 = by_name["top1_accuracy"]
    assert (top1.a, top1.b) == pytest.approx((20 / 30, 25 / 30))
    assert top1.difference == pytest.approx(5 / 30)
    # The difference of a video is -1, 0 or 1: mean 1/6, variance 15/30 - 1/36, standard error 0.1254. Draws are
    # multiples of a thirtieth.
    assert top1.low == pytest.approx(1 / 6 - 1.96 * 0.1254, abs=1 / 30)
    assert top1.high == pytest.approx(1 / 6 + 1.96 * 0.1254, abs=1 / 30)
    assert by_name["top5_accuracy"].difference == 0
    assert by_name["mean_average_precision"].low is None


def test_a_result_beside_itself_does_not_differ() -> None:
    found = compare(A, A)
    assert all(each.difference == 0 and each.low in (0, None) and each.high in (0, None) for each in found.differences)
    assert found.agreement.p_value == 1.0


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    # 5 and 10 of 15 throws: R's binom.test(5, 15)$p.value. 1 and 9: 2 * (1 + 10) / 1024. 0 and 6: 2 / 64.
    [(5, 10, 0.3017578125), (1, 9, 22 / 1024), (0, 6, 2 / 64), (4, 4, 1.0), (0, 0, 1.0)],
)
def test_mcnemars_test_by_hand(only_a: int, only_b: int, p_value: float) -> None:
    assert mcnemar_exact(only_a, only_b) == pytest.approx(p_value)
    assert mcnemar_exact(only_b, only_a) == mcnemar_exact(only_a, only_b)


def test_mcnemars_test_with_thousands_of_videos() -> None:
    # As the normal approximation with continuity correction: (600 - 500 - 1) / sqrt(1100) = 2.985, p = 0.0028.
    assert mcnemar_exact(500, 600) == pytest.approx(0.0028, abs=0.0001)
    assert mcnemar_exact(4000, 9000) < 1e-100


@given(st.integers(0, 6), st.integers(0, 6))
def test_mcnemars_test_is_its_definition(only_a: int, only_b: int) -> None:
    """All outcomes of so many throws, those that are at least as uneven."""
    throws = only_a + only_b
    uneven = [abs(sum(each) - throws / 2) >= abs(only_a - throws / 2) for each in product((0, 1), repeat=throws)]
    assert mcnemar_exact(only_a, only_b) == pytest.approx(sum(uneven) / len(uneven))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_four_counts_add_up(pairs: list[tuple[bool, bool]]) -> None:
    first, second = (np.array(column) for column in zip(*pairs, strict=True))
    found = agreement(first, second)
    assert found.both + found.only_a + found.only_b + found.neither == len(pairs)
    assert found.only_b - found.only_a == int(second.sum()) - int(first.sum())


def test_videos_of_one_alone_are_left_out() -> None:
    less = result({"v0": 0, "v1": 1}, TRUTH)
    found = compare(A, less)
    assert (found.videos, found.only_scored_by_a, found.only_scored_by_b) == (2, 28, 0)
    assert "28 videos were scored by A alone and are left out" in text_of(found, ["a", "b"])


def test_several_labels() -> None:
    def of(*scores: list[float]) -> dict[str, Any]:
        videos = []
        for index, each in enumerate(scores):
            labels = [[0, 1], [2]][index]
            order = sorted(range(3), key=lambda at: -each[at])
            sample = {"predicted": order[0], "rank": min(order.index(at) for at in labels), "scores": each}
            videos.append({"video": str(index), "labels": labels, "samples": [sample]})
        return {"complete": True, "labels": LABELS, "videos": videos}

    found = compare(of([0.9, 0.8, 0.1], [0.1, 0.2, 0.7]), of([0.9, 0.1, 0.2], [0.6, 0.2, 0.1]))
    by_name = {each.name: (each.a, each.b) for each in found.differences}
    assert by_name["f1"] == pytest.approx((1.0, (2 / 3) / 3))
    # B: class 0 first; classes 1 and 2 second.
    assert by_name["mean_average_precision"] == pytest.approx((1.0, (1 + 1 / 2 + 1 / 2) / 3))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (result({}, TRUTH), "no video was scored by both"),
        (result({"v0": 0}, {"v0": 1}), "v0 has other labels in the second result"),
        (result({"v0": 0}, {"v0": 0}, labels=["a", "b", "c"]), "different classes"),
        (
            {"labels": LABELS, "videos": [{"video": "v0", "label": 0, "samples": [{}, {}]}]},
            "the second result has a sample for each view",
        ),
    ],
)
def test_what_cannot_be_compared(other: dict[str, Any], message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        compare(A, other)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("a", A), ("b", B), ("junk", {"complete": False})):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    a, b = (str(tmp_path / f"{name}.json") for name in "ab")
    assert main([a, b]) == 0
    printed = capsys.readouterr().out
    assert "top1 accuracy            66.67 %    83.33 %     +16.67" in printed
    assert "both 15, only A 5, only B 10, neither 0; McNemar's exact test: p = 0.302" in printed
    assert main([a, b, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"]["p_value"] == pytest.approx(0.3017578125)
    assert main([a, str(tmp_path / "gone.json")]) == 2
    assert main([a, str(tmp_path / "junk.json")]) == 2
    assert "is not a finished result of scripts.evaluate" in capsys.readouterr().err
