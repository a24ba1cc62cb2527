"""The training script, run for a few tiny steps, and the weights, labels and card that the repository holds."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from camera_motion.clips import STEP_UNITS, decode, preprocess, sized_spec, to_input
from camera_motion.flow import FLOW_UNIT, FlowHeads, camera_flow
from camera_motion.loop import (
    DEFAULT_PHASES,
    PEAK_LEARNING_RATE,
    learning_rate,
    load_served_state,
    new_model,
    pool_globally,
    served_state,
)
from camera_motion.measure import FreshClips, Measured, Report, Reversals, Scorer, scorer
from camera_motion.render import encode_h264
from camera_motion.sample_clips import LABELS, make_clip, make_frames
from handlers.model.network import load_model
from handlers.specs import get_spec
from scripts import train_camera_motion
from scripts.train_camera_motion import main, parse_arguments, read_record, scaled

WEIGHTS = Path(__file__).resolve().parents[3] / "weights"
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    main(["--smoke", "--output", str(folder)])
    return folder


def test_smoke_run_writes_weights_that_the_package_loads(smoke: Path) -> None:
    model = load_model(
        get_spec("camera_motion"), smoke / "camera_motion.safetensors", num_classes=10, head="pytorchvideo"
    )
    logits = model.float()(torch.zeros(1, 3, 4, 182, 182))
    assert logits.shape == (1, 10)
    assert torch.isfinite(logits).all()


def test_a_refinement_goes_on_from_trained_weights(
    smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but its evaluation, which does not know of it and takes most of the time."""
    weights = smoke / "camera_motion.safetensors"
    measured = Measured([], [], Reversals((0.9,), (0.8,)))
    monkeypatch.setattr(train_camera_motion, "evaluate", lambda *_: measured)
    main(["--smoke", "--start", str(weights), "--output", str(tmp_path)])
    first, refined = read_record(weights), read_record(tmp_path / "camera_motion.safetensors")
    assert refined.refinement is not None
    assert refined.refinement.clips_per_size == first.clips_per_size
    assert replace(refined, refinement=None) == first
    assert "The refinement (`--start`) went on from those weights" in (tmp_path / "camera_motion.md").read_text()
    twice = refined.refinement.then(1.0, {"182": 2})
    assert twice.clips_per_size["182"] == refined.refinement.clips_per_size["182"] + 2


def test_served_weights_are_where_a_refinement_begins(smoke: Path) -> None:
    served = load_file(smoke / "camera_motion.safetensors")
    model = new_model()
    load_served_state(model, served)
    found = served_state(model)
    assert found.keys() == served.keys()
    assert all(torch.equal(found[key], tensor.to(found[key])) for key, tensor in served.items())


def test_smoke_run_writes_labels_card_and_record(smoke: Path) -> None:
    assert (smoke / "camera_motion.labels.txt").read_text().splitlines() == list(LABELS)
    card = (smoke / "camera_motion.md").read_text()
    assert "| **all** | **10** |" in card
    assert f"{(smoke / 'camera_motion.safetensors').stat().st_size / 1e6:.1f} MB" in card
    record = read_record(smoke / "camera_motion.safetensors")
    assert record.clips_per_size == {"32": 16, "182": 4}
    assert record.seed == 0


def test_evaluate_only_leaves_the_weights_alone_and_prints_the_cards_table(
    smoke: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (smoke / "camera_motion.safetensors").read_bytes()
    main(["--smoke", "--evaluate-only", "--output", str(smoke)])
    assert (smoke / "camera_motion.safetensors").read_bytes() == before
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert all(any(line.startswith(f"| {label} |") for line in printed) for label in LABELS)
    card = (smoke / "camera_motion.md").read_text()
    assert len(printed) == 2 * 12
    assert all(line in card for line in printed)


def test_a_folder_without_videos_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(SystemExit, match=f"no video with a usable frame lies directly in {tmp_path}"):
        main(["--smoke", "--output", str(tmp_path / "out"), "--real-frames", str(tmp_path)])
    assert not (tmp_path / "out").exists()


def test_weights_that_cannot_be_refined_are_refused_before_any_work(tmp_path: Path) -> None:
    missing, foreign, broken = (tmp_path / name for name in ("missing", "foreign", "broken"))
    save_file({"weight": torch.zeros(1)}, foreign)
    broken.write_bytes(b"no weights")
    for file, reason in (
        (missing, "there is no such file"),
        (foreign, "this command has not written it"),
        (broken, "this command has not written it"),
    ):
        with pytest.raises(SystemExit, match=f"{file} cannot be refined: {reason}"):
            main(["--smoke", "--output", str(tmp_path / "out"), "--start", str(file)])
    assert not (tmp_path / "out").exists()


def test_report_counts() -> None:
    by_band = np.zeros((4, 10, 10), np.int64)
    by_band[0, 0, 0], by_band[1, 1, 1], by_band[2, 1, 2], by_band[2, 1, 1] = 4, 2, 1, 1
    report = Report("made", by_band)
    assert report.accuracy == 7 / 8
    assert report.class_accuracy(1) == 3 / 4
    assert report.confusion(1) == "pan right 1"
    assert "| pan left | 4 | 75.0% | pan right 1 |" in report.table()
    assert "| made | barely visible | slow | medium | fast |\n|---|---|---|---|---|\n" in report.speed_table()
    assert "| static | 100% of 4 | none | none | none |" in report.speed_table()
    assert "| pan | none | 100% of 2 | 50% of 2 | none |" in report.speed_table()
    assert "| all motions | 100% of 4 | 100% of 2 | 50% of 2 | none |" in report.speed_table()


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    rates = [learning_rate(part / 100) for part in range(101)]
    assert max(rates) == pytest.approx(PEAK_LEARNING_RATE, rel=0.01)
    assert rates[0] < PEAK_LEARNING_RATE / 10
    assert rates[-1] == pytest.approx(PEAK_LEARNING_RATE / 100)


def test_epochs_scale_the_clips_of_a_phase() -> None:
    phase = DEFAULT_PHASES[0]
    assert scaled(phase, 0.5).clips == phase.clips // 2
    assert scaled(phase, 0.0).clips == phase.batch
    assert parse_arguments(["--minutes", "3"]).minutes == 3.0


def test_the_last_phase_trains_the_served_picture_size() -> None:
    assert DEFAULT_PHASES[-1].size == get_spec("camera_motion").crop_size


def test_served_state_answers_as_the_trained_model() -> None:
    torch.manual_seed(0)
    model = new_model().eval()
    served = load_served(served_state(model))
    pictures = torch.randn(1, 3, 4, 182, 182)
    assert torch.allclose(served(pictures), model(pictures)[:, :10], atol=1e-5)


def load_served(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    from handlers.model.network import build_model

    model = build_model(get_spec("camera_motion"), num_classes=10, head="pytorchvideo")
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("axis", range(4))
def test_camera_flow_is_how_the_seen_point_moves(axis: int) -> None:
    """Against the renderer's own geometry, for a small step of one component of the pose."""
    pose = np.zeros(4)
    pose[axis] = 0.01
    steps = torch.tensor((pose / STEP_UNITS).reshape(1, 1, 4), dtype=torch.float32)
    found = camera_flow(steps, 4, 4)[0] * FLOW_UNIT
    for row in range(4):
        for column in range(4):
            at = np.array([(column + 0.5) / 4 - 0.5, (row + 0.5) / 4 - 0.5])
            x, y, log_zoom, roll = pose
            turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]]) * np.exp(-log_zoom)
            wanted = turn @ at + (x, y) - at
            assert found[:, row, column].numpy() == pytest.approx(wanted, abs=1e-4)


def test_flow_heads_start_at_zero_and_teach_the_early_stages() -> None:
    torch.manual_seed(0)
    model = new_model().train()
    heads = FlowHeads(model, num_frames=4)
    pool_globally(model, None)
    model(torch.randn(2, 3, 4, 64, 64))
    steps = torch.randn(2, 3, 4)
    loss = heads.loss(steps)
    zero = [torch.nn.functional.smooth_l1_loss(torch.zeros(2, 6, s, s), camera_flow(steps, s, s)) for s in (16, 8, 4)]
    assert float(loss.detach()) == pytest.approx(float(sum(zero)))
    torch.autograd.backward(loss)
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in heads.parameters() if parameter.grad is not None)
    assert {name for name, parameter in heads.named_parameters() if parameter.grad is None} == set()


def test_global_pool_is_put_back() -> None:
    model = new_model().eval()
    fixed = pool_globally(model, None)
    assert model(torch.zeros(1, 3, 4, 32, 32)).shape[0] == 1
    pool_globally(model, fixed)
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 3, 4, 32, 32))


def test_direct_and_served_preprocessing_normalise_alike() -> None:
    """A grey clip is the same tensor whether rendered at the model's size or resized by the served transform."""
    spec = sized_spec(64)
    direct = to_input(np.full((4, 64, 64, 3), 90, np.uint8), spec)
    served = preprocess(np.full((48, 120, 160, 3), 90, np.uint8), 30.0, spec)
    assert np.allclose(direct, served, atol=1e-5)


@pytest.fixture(scope="module")
def bundled() -> Scorer:
    model = load_model(
        get_spec("camera_motion"), WEIGHTS / "camera_motion.safetensors", num_classes=10, head="pytorchvideo"
    )
    return scorer(model.float())


def test_bundled_weights_are_float16_and_small() -> None:
    path = WEIGHTS / "camera_motion.safetensors"
    assert path.stat().st_size <= MOST_BYTES
    kinds = {value.dtype for value in load_file(path).values() if value.is_floating_point()}
    assert kinds == {torch.float16}


def test_bundled_labels_are_the_ten() -> None:
    assert (WEIGHTS / "camera_motion.labels.txt").read_text(encoding="utf-8") == "\n".join(LABELS) + "\n"


def test_bundled_card_reports_the_promised_accuracy() -> None:
    card = (WEIGHTS / "camera_motion.md").read_text(encoding="utf-8")
    shares = re.findall(r"\| \*\*all\*\* \| \*\*\d+\*\* \| \*\*([\d.]+)%\*\* \|", card)
    # The last one counts drawn pictures, which are not promised.
    ordinary, _, real, _ = (float(share) for share in shares)
    assert ordinary >= 96
    assert real >= 93
    assert "| all motions |" in card


@pytest.fixture(scope="module")
def cores() -> Iterator[ProcessPoolExecutor]:
    """Clips take seconds each to draw."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="module")
def sample_clips(cores: ProcessPoolExecutor) -> dict[str, list[bytes]]:
    """Two of each label."""
    drawn = {label: [cores.submit(make_clip, label, seed=seed) for seed in (101, 102)] for label in LABELS}
    return {label: [clip.result() for clip in clips] for label, clips in drawn.items()}


@pytest.mark.parametrize("label", LABELS)
def test_bundled_model_names_sample_clips(bundled: Scorer, sample_clips: dict[str, list[bytes]], label: str) -> None:
    answers = [LABELS[int(bundled(clip).argmax())] for clip in sample_clips[label]]
    assert answers == [label] * 2


def test_bundled_model_tells_pans_from_their_reversals(bundled: Scorer, cores: ProcessPoolExecutor) -> None:
    """Every one, and nine of ten with a score over 0.8: large moving objects in a dim scene leave some doubt."""
    left, right = LABELS.index("pan left"), LABELS.index("pan right")
    drawn = [drawing.result() for drawing in [cores.submit(make_frames, "pan left", seed=s) for s in range(201, 211)]]
    forwards = [bundled(encode_h264(frames, fps=30)) for frames in drawn]
    backwards = [bundled(encode_h264(frames[::-1], fps=30)) for frames in drawn]
    assert [int(scores.argmax()) for scores in forwards] == [left] * 10
    assert [int(scores.argmax()) for scores in backwards] == [right] * 10
    scores = [scores[left] for scores in forwards] + [scores[right] for scores in backwards]
    assert sum(score > 0.8 for score in scores) >= 18, scores


def test_a_part_of_the_fresh_clips_has_every_label_once() -> None:
    clips = FreshClips(2, seed=5, wide=True)
    assert sorted(label for _, label, _ in clips[0]) == list(range(len(LABELS)))
    with pytest.raises(IndexError):
        clips[2]


def test_sample_clip_decodes_to_what_was_rendered() -> None:
    frames, fps = decode(make_clip("static", seed=1, duration_sec=0.5, width=64, height=48))
    assert (frames.shape, fps) == ((15, 48, 64, 3), 30.0)
