"""Make the embedded model `camera_motion`: data, training, evaluation, weights, labels and model card.

    python -m scripts.train_camera_motion --seed 0 --output weights/

takes under an hour on two CPU cores, and writes camera_motion.safetensors, camera_motion.labels.txt and
camera_motion.md into the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import Subset

from camera_motion.card import TrainingRecord, model_card
from camera_motion.loop import DEFAULT_PHASES, SMOKE_PHASES, Phase, Settings, train
from camera_motion.measure import FreshClips, Report, Reversals, measure, reversals, scorer
from camera_motion.motion import LABELS
from camera_motion.realframes import read_stills
from camera_motion.virtual_camera import VirtualCameraClips
from handlers.cpu import cores
from handlers.model.network import load_model
from handlers.specs import get_spec

NAME = "camera_motion"
RECORD_KEY = "training"
"""Key of the weights file's metadata that holds the TrainingRecord."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.train_camera_motion",
        description="Train and measure the embedded camera_motion model; under an hour on two CPU cores.",
    )
    parser.add_argument("--output", type=Path, default=Path("weights"), help="folder of the three files written")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the first weights")
    parser.add_argument("--minutes", type=float, help="squeeze training into this time: fewer clips at every size")
    parser.add_argument("--epochs", type=float, default=1.0, help="scale the number of clips at every size")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU")
    parser.add_argument("--processes", type=int, default=cores(), help="CPU processes that train together")
    parser.add_argument("--checkpoint", type=Path, help="save the state of training here once a minute")
    parser.add_argument("--resume", type=Path, help="go on from such a file")
    parser.add_argument("--real-frames", type=Path, help="folder of videos over whose frames a virtual camera measures")
    parser.add_argument("--per-class", type=int, default=60, help="fresh clips per label to measure with")
    parser.add_argument("--per-video", type=int, default=1, help="frames of each of these videos to measure with")
    parser.add_argument("--evaluate-only", action="store_true", help="measure the weights that are in --output")
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps: checks the machinery, learns nothing")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace, result: Path) -> Settings:
    """The run that the options ask for."""
    phases = SMOKE_PHASES if options.smoke else DEFAULT_PHASES
    on_cpu = options.device == "cpu"
    return Settings(
        phases=tuple(scaled(phase, options.epochs) for phase in phases),
        seed=options.seed,
        device=torch.device(options.device),
        minutes=options.minutes,
        textures=4 if options.smoke else 32,
        processes=options.processes if on_cpu and not options.smoke else 1,
        workers=0 if on_cpu else cores(),
        checkpoint=options.checkpoint,
        resume=options.resume,
        result=result,
    )


def scaled(phase: Phase, factor: float) -> Phase:
    return Phase(**{**asdict(phase), "clips": max(phase.batch, round(phase.clips * factor))})


def write_weights(result: Path, target: Path, seed: int) -> TrainingRecord:
    """The trained state as float16 safetensors, with the record of the run in its metadata."""
    trained = torch.load(result, weights_only=True)
    record = TrainingRecord(
        seed=seed,
        minutes=trained["minutes"],
        machine=f"{os.cpu_count()} cores ({platform.machine()})",
        versions=f"torch {torch.__version__}, Python {platform.python_version()}",
        clips_per_size={str(size): clips for size, clips in trained["seen"].items()},
    )
    state = {key: value.half() if value.is_floating_point() else value for key, value in trained["model"].items()}
    state = {key: value.contiguous() for key, value in state.items()}
    save_file(state, target, metadata={RECORD_KEY: json.dumps(asdict(record))})
    return record


def read_record(weights: Path) -> TrainingRecord:
    """The record of the run that made the weights."""
    with safe_open(weights, framework="pt") as file:
        return TrainingRecord(**json.loads(file.metadata()[RECORD_KEY]))


def evaluate(weights: Path, options: argparse.Namespace) -> tuple[list[Report], Reversals]:
    """Print accuracy per class on fresh clips and, where a folder is given, per class and speed over real frames."""
    model = load_model(get_spec(NAME), weights, num_classes=len(LABELS), head="pytorchvideo").float()
    score = scorer(model)
    per_class = 1 if options.smoke else options.per_class
    fresh = FreshClips(per_class, seed=options.seed + 1_000_000)
    reports = [measure("fresh clips", score, fresh, total=per_class * len(LABELS))]
    if options.real_frames is not None:
        stills = read_stills(options.real_frames, per_video=options.per_video)
        clips = VirtualCameraClips(stills, seed=options.seed)
        for name, drawn in (("real pictures", False), ("test cards and titles", True)):
            parts = [part for part, still in enumerate(stills) if still.drawn == drawn]
            reports.append(measure(name, score, Subset(clips, parts), total=len(parts) * len(LABELS)))
    turned = reversals(score, seeds=range(1 if options.smoke else 20))
    for report in reports:
        print(f"\n{report.table()}")
    for report in reports[1:]:
        print(f"\n{report.speed_table()}")
    print(f"\n{turned}")
    return reports, turned


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    weights = options.output / f"{NAME}.safetensors"
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        settings = settings_of(options, Path(folder) / "result.pt")
        if not options.evaluate_only:
            train(settings)
            write_weights(Path(folder) / "result.pt", weights, options.seed)
            (options.output / f"{NAME}.labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    reports, turned = evaluate(weights, options)
    card = model_card(read_record(weights), settings.phases, reports, turned, weights.stat().st_size)
    (options.output / f"{NAME}.md").write_text(card, encoding="utf-8")
    print(f"\nwrote {weights} ({weights.stat().st_size / 1e6:.1f} MB), its labels and {NAME}.md")


if __name__ == "__main__":
    main()
