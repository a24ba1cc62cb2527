"""Bulk runs through the real pipeline: x3d_xs with random weights on synthesised H.264."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import requests

from benchmarks.machine import git_state
from bulk.archives import WorkerShare, read_model
from bulk.engines import InProcess, WorkerPlan
from bulk.environment import cpu_model
from bulk.files import VideoFile
from bulk.outcomes import ScoringOptions
from bulk.work import make_batches
from handlers.pipeline import VideoClassifier
from handlers.request.answer import VideoScores, aggregate
from handlers.request.options import RequestOptions, VideoRequest
from handlers.video.sampling import Sampling
from serving.server import TorchServe
from tests.support.bulk import journal_lines, make_videos, rows_of, run, run_and_kill, timeless

COUNT = 24


@dataclass(frozen=True)
class Videos:
    """A folder of videos, each one's probabilities when it is classified alone, and labels with a known answer."""

    folder: Path
    paths: list[Path]
    probabilities: dict[str, np.ndarray]
    annotations: Path
    labels: dict[str, int]


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, x3d_xs_archive: Path) -> Videos:
    """Of every three videos one is labelled with its best class, one with its third best, one with its last."""
    root = tmp_path_factory.mktemp("bulk")
    paths = make_videos(root / "videos", COUNT)
    probabilities = {}
    with VideoClassifier.from_archive(x3d_xs_archive) as classifier:
        for path in paths:
            (scores,) = classifier.classify([VideoRequest(path.read_bytes(), RequestOptions())])
            assert isinstance(scores, VideoScores)
            probabilities[path.name] = aggregate(scores, "prob")
    places = (0, 2, -1)
    labels = {
        path.name: int(np.argsort(-probabilities[path.name], kind="stable")[places[index % 3]])
        for index, path in enumerate(paths)
    }
    annotations = root / "val.txt"
    annotations.write_text("".join(f"{name} {label}\n" for name, label in labels.items()))
    return Videos(root / "videos", paths, probabilities, annotations, labels)


@pytest.fixture
def arguments(videos: Videos, x3d_xs_archive: Path) -> list[str | Path]:
    return [x3d_xs_archive, "--annotations", videos.annotations, "--videos", videos.folder, "--no-plots"]


def test_a_video_scores_the_same_alone_and_among_others(videos: Videos, x3d_xs_archive: Path) -> None:
    files = [VideoFile(path.name, str(path)) for path in videos.paths]
    engine = InProcess(WorkerPlan(archive=x3d_xs_archive, share=WorkerShare()))
    for _ in range(2):
        for finished in engine.run(make_batches(files, 8), ScoringOptions()):
            for outcome in finished.outcomes:
                (sample,) = outcome.samples
                got = dict(zip(sample.class_ids, sample.scores, strict=True))
                expected = videos.probabilities[outcome.video]
                assert [got[index] for index in range(len(expected))] == pytest.approx(expected.tolist(), rel=1e-5)


def test_accuracy_is_what_the_single_answers_say(videos: Videos, arguments: list[str | Path], tmp_path: Path) -> None:
    printed = run("evaluate", *arguments, "--out", tmp_path / "r.json").stdout
    result = json.loads((tmp_path / "r.json").read_text())
    values = {name: metric["value"] for name, metric in result["metrics"].items()}
    assert values["top1_accuracy"] == pytest.approx(1 / 3)  # as the labels were chosen
    assert values["top5_accuracy"] == pytest.approx(2 / 3)
    predicted = {name: int(scores.argmax()) for name, scores in videos.probabilities.items()}
    classes = set(predicted.values()) | set(videos.labels.values())
    shares = []
    for one in classes:
        names = [name for name, label in videos.labels.items() if label == one]
        shares.append(sum(predicted[name] == one for name in names) / len(names) if names else 0.0)
    assert values["mean_class_accuracy"] == pytest.approx(sum(shares) / len(shares))
    assert "33.33 %" in printed
    (environment,) = result["environment"]
    assert environment["runtime"] == {
        "runtime": "openvino", "runtime_version": environment["runtime"]["runtime_version"], "device": "cpu",
        "precision": "float32",
    }  # fmt: skip
    assert environment["versions"]["torch"] == version("torch")
    assert (environment["cpu"], environment["commit"]) == (cpu_model(), git_state()["commit"])
    per_class = list(csv.DictReader((tmp_path / "r.classes.csv").open()))
    assert sum(int(row["right"]) for row in per_class) == COUNT / 3
    assert "RANDOM WEIGHTS: the figures mean nothing" in printed
    assert "published" not in printed


def test_accuracy_is_what_the_server_answers(
    server: TorchServe, videos: Videos, arguments: list[str | Path], tmp_path: Path
) -> None:
    run("evaluate", *arguments, "--out", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    saved = {record["video"]: record["samples"][0]["scores"] for record in result["videos"]}
    right = 0
    for path in videos.paths:
        answer = requests.post(
            f"{server.inference_url}/predictions/x3d_xs",
            data=path.read_bytes(),
            headers={**server.headers(), "Content-Type": "video/mp4", "X-Top-K": "400", "X-Format": "list"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        rows = answer.json()
        right += rows[0]["class_id"] == videos.labels[path.name]
        assert [saved[path.name][row["class_id"]] for row in rows] == pytest.approx(
            [row["score"] for row in rows], rel=1e-5
        )
    assert result["metrics"]["top1_accuracy"]["value"] == right / len(videos.paths)


def test_a_killed_evaluation_ends_in_the_same_bytes(arguments: list[str | Path], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    arguments = [*arguments, "--batch-size", "2"]
    run("evaluate", *arguments, "--out", whole)
    run_and_kill("evaluate", *arguments, "--out", killed, when=lambda: journal_lines(killed) >= 3)
    done = journal_lines(killed)
    assert 3 <= done < COUNT / 2
    content = killed.read_bytes()
    killed.write_bytes(content[:-7])  # and the last line was cut short
    run("evaluate", *arguments, "--out", killed, "--limit", "5", status=1)
    run("evaluate", *arguments, "--out", killed)
    assert killed.read_bytes() == whole.read_bytes()
    run("evaluate", *arguments, "--out", killed)  # complete: nothing is computed again
    assert killed.read_bytes() == whole.read_bytes()


def test_missing_and_broken_videos_are_counted(videos: Videos, x3d_xs_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"not a video at all")
    (tmp_path / "good.mp4").write_bytes(videos.paths[0].read_bytes())
    (tmp_path / "val.csv").write_text("path,label\njunk.mp4,1\ngone.mp4,1\ngood.mp4,1\n")
    options: list[str | Path] = [
        "--annotations",
        tmp_path / "val.csv",
        "--videos",
        tmp_path,
        "--out",
        tmp_path / "r.json",
    ]
    printed = run("evaluate", x3d_xs_archive, *options, "--views", "10x3", "--average-clips", "none").stdout
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["counts"] == {"annotated": 3, "scored": 1, "missing": 1, "broken": 1, "samples": 30}
    assert (result["missing"], result["broken"][0]["type"]) == (["gone.mp4"], "UnsupportedVideo")
    assert "missing: 1: gone.mp4" in printed
    assert "1 video:" in (tmp_path / "r.classes.svg").read_text()


@pytest.mark.parametrize("views", ["10x1", pytest.param("10x3", marks=pytest.mark.slow)])
def test_views_are_those_of_the_pipeline(videos: Videos, x3d_xs_archive: Path, tmp_path: Path, views: str) -> None:
    name = videos.paths[-1].name
    (tmp_path / "val.txt").write_text(f"{name} 7\n")
    options: list[str | Path] = ["--annotations", tmp_path / "val.txt", "--videos", videos.folder, "--no-plots"]
    clips, crops = (int(part) for part in views.split("x"))
    with VideoClassifier.from_archive(x3d_xs_archive) as classifier:
        wanted = RequestOptions(sampling=Sampling(num_clips=clips, num_crops=crops))
        (scores,) = classifier.classify([VideoRequest(videos.paths[-1].read_bytes(), wanted)])
    assert isinstance(scores, VideoScores)
    for average in ("prob", "score"):
        out = tmp_path / f"{average}.json"
        run("evaluate", x3d_xs_archive, *options, "--views", views, "--average-clips", average, "--out", out)
        saved = json.loads(out.read_text())["videos"][0]["samples"][0]["scores"]
        assert saved == pytest.approx(aggregate(scores, average).tolist(), rel=1e-5)


def test_one_pass_gives_the_figures_of_fewer_views(
    videos: Videos, arguments: list[str | Path], x3d_xs_archive: Path, tmp_path: Path
) -> None:
    views = tmp_path / "views.npy"
    one_pass = [*arguments, "--views", "10x3", "--out", tmp_path / "10x3.json", "--save-views", views, "--limit", "6"]
    printed = run("evaluate", *one_pass).stdout
    assert "1x1 views of the same pass: top1 accuracy" in printed
    result = json.loads((tmp_path / "10x3.json").read_text())
    logits = np.load(views)
    assert logits.shape == (6, 30, 400)
    softmax = np.exp(logits - logits.max(axis=-1, keepdims=True))
    mean = (softmax / softmax.sum(axis=-1, keepdims=True)).mean(axis=1)
    saved = [record["samples"][0]["scores"] for record in result["videos"]]
    assert mean == pytest.approx(np.array(saved), rel=1e-4)
    for fewer in ("1x1", "10x1"):
        out = tmp_path / f"{fewer}.json"
        run("evaluate", *arguments, "--views", fewer, "--out", out, "--limit", "6")
        alone = json.loads(out.read_text())
        # The middle one of three crops may lie a pixel beside the single one, and these scores are close together.
        for record, other in zip(result["videos"], alone["videos"], strict=True):
            assert record["by_views"][fewer]["top_scores"][0] == pytest.approx(
                max(other["samples"][0]["scores"]), rel=0.05
            )
    again = run("evaluate", *one_pass)
    assert "is complete; nothing is computed again" in again.stderr
    views.unlink()
    assert "is gone; --force begins anew" in run("evaluate", *one_pass, status=1).stderr


@pytest.fixture(scope="session")
def rows_in_one_go(videos: Videos, x3d_xs_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rows") / "out"
    run("classify", x3d_xs_archive, videos.folder, "--out", out)
    return out


def test_classify_gives_the_pipelines_answers(videos: Videos, x3d_xs_archive: Path, rows_in_one_go: Path) -> None:
    rows = timeless(rows_of(rows_in_one_go))
    labels = read_model(x3d_xs_archive).labels
    assert set(rows) == {str(path) for path in videos.paths}
    for path in videos.paths:
        row, expected = rows[str(path)], videos.probabilities[path.name]
        best = np.argsort(-expected, kind="stable")[:5]
        assert row["class_ids"] == best.tolist()
        assert row["labels"] == [labels[index] for index in best]
        assert row["scores"] == pytest.approx(expected[best].tolist(), rel=1e-5)
        assert (row["status"], row["codec"], row["height"], row["clips"]) == ("ok", "h264", 120, 1)


def test_a_killed_classification_has_every_video_once(
    videos: Videos, x3d_xs_archive: Path, rows_in_one_go: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments: list[str | Path] = [
        x3d_xs_archive,
        videos.folder,
        "--out",
        out,
        "--batch-size",
        "2",
        "--shard-rows",
        "5",
    ]
    run_and_kill("classify", *arguments, when=lambda: len(list(out.glob("part-*"))) >= 1 if out.exists() else False)
    assert not (out / "manifest.json").exists() or not json.loads((out / "manifest.json").read_text())["complete"]
    run("classify", *arguments)
    assert timeless(rows_of(out)) == timeless(rows_of(rows_in_one_go))


def test_failures_are_rows_and_videos_can_be_added(videos: Videos, x3d_xs_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"not a video at all")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty.mp4").touch()
    out, good = tmp_path / "out", videos.paths[0]
    first = run("classify", x3d_xs_archive, tmp_path, "--out", out, "--format", "parquet", status=1)
    assert "3 rows, 3 new, 3 of all failed" in first.stdout
    assert "failed: 1 MissingVideo, 1 MissingFile, 1 UnsupportedVideo" in first.stdout
    assert "3 videos in " in first.stdout
    again = run("classify", x3d_xs_archive, tmp_path / "junk.mp4", good, "--out", out, "--format", "parquet")
    assert "4 rows, 1 new, 3 of all failed" in again.stdout
    assert "1 of 2 videos have their row from an earlier run and are kept" in again.stderr
    rows = timeless(rows_of(out))
    assert {Path(path).name: row["error_type"] for path, row in rows.items()} == {
        "junk.mp4": "UnsupportedVideo",
        "gone.mp4": "MissingFile",
        "empty.mp4": "MissingVideo",
        good.name: None,
    }
    other = run("classify", x3d_xs_archive, good, "--out", out, "--format", "parquet", "--views", "2x1", status=1)
    assert "holds rows of another options" in other.stderr


def test_two_worker_processes_give_the_same_rows(
    videos: Videos, x3d_xs_archive: Path, rows_in_one_go: Path, tmp_path: Path
) -> None:
    run("classify", x3d_xs_archive, videos.folder, "--out", tmp_path / "out", "--workers", "2", "--batch-size", "3")
    found, expected = timeless(rows_of(tmp_path / "out")), timeless(rows_of(rows_in_one_go))
    assert found.keys() == expected.keys()
    for path, row in found.items():
        assert row["class_ids"] == expected[path]["class_ids"]
        assert row["scores"] == pytest.approx(expected[path]["scores"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (
            ["nope", "{tmp}/x.mp4", "--out", "o"],
            "neither an archive, by its path or in model_store, nor a spec; specs: x3d_xs",
            2,
        ),
        (["nope.mar", "{tmp}/x.mp4", "--out", "o"], "the archive nope.mar does not exist", 2),
        (["{archive}", "{tmp}/y.mp4", "--out", "{tmp}/o"], "y.mp4 does not exist", 2),
        (["{archive}", "{tmp}/*.avi", "--out", "{tmp}/o"], "matches no file", 2),
        (
            ["{archive}", "{tmp}/x.mp4", "--out", "{tmp}/o", "--top-k", "401"],
            "--top-k 401: the model has 400 classes",
            1,
        ),
        (["{archive}", "{tmp}/x.mp4", "--out", "{tmp}/o", "--shared-storage"], "belong to --ray", 1),
        (
            ["{archive}", "{tmp}/x.mp4", "--out", "{tmp}/o", "--ray", "ray://h:1"],
            "Ray Client (ray://) carries no datasets",
            1,
        ),
    ],
)
def test_refusals_are_one_sentence(
    x3d_xs_archive: Path, tmp_path: Path, arguments: list[str], message: str, status: int
) -> None:
    (tmp_path / "x.mp4").touch()
    done = run("classify", *(text.format(archive=x3d_xs_archive, tmp=tmp_path) for text in arguments), status=status)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
