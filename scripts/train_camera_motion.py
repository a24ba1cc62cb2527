"""Make the embedded model `camera_motion`: data, training, evaluation, weights, labels and model card.

    python -m scripts.train_camera_motion --seed 0 --output weights/

takes under an hour on two CPU cores, and writes camera_motion.safetensors, camera_motion.labels.txt and
camera_motion.md into the output folder. The weights that come with the repository were then refined:

    python -m scripts.train_camera_motion --seed 1 --start weights/camera_motion.safetensors --output weights/
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import Subset

from camera_motion.card import Refinement, TrainingRecord, model_card
from camera_motion.loop import DEFAULT_PHASES, REFINEMENT_PHASES, REFINEMENT_RATE, SMOKE_PHASES, Phase, Settings, train
from camera_motion.measure import FreshClips, Measured, measure, reversals, scorer
from camera_motion.motion import LABELS
from camera_motion.realframes import Still, read_stills
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
    parser.add_argument("--start", type=Path, help="refine these .safetensors weights, at the two largest sizes alone")
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
    phases = SMOKE_PHASES if options.smoke else DEFAULT_PHASES if options.start is None else REFINEMENT_PHASES
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
        start=options.start,
        rate=1.0 if options.start is None else REFINEMENT_RATE,
        result=result,
    )


def scaled(phase: Phase, factor: float) -> Phase:
    return Phase(**{**asdict(phase), "clips": max(phase.batch, round(phase.clips * factor))})


def write_weights(result: Path, target: Path, seed: int, *, refined: TrainingRecord | None = None) -> TrainingRecord:
    """The trained state as float16 safetensors, with the record of the run in its metadata.

    `refined`: the record of the weights that the run went on from.
    """
    trained = torch.load(result, weights_only=True)
    seen = {str(size): clips for size, clips in trained["seen"].items()}
    if refined is not None:
        earlier = refined.refinement or Refinement(minutes=0.0, clips_per_size={})
        record = replace(refined, refinement=earlier.then(trained["minutes"], seen))
    else:
        record = TrainingRecord(
            seed=seed,
            minutes=trained["minutes"],
            machine=f"{os.cpu_count()} cores ({platform.machine()})",
            versions=f"torch {torch.__version__}, Python {platform.python_version()}",
            clips_per_size=seen,
        )
    state = {key: value.half() if value.is_floating_point() else value for key, value in trained["model"].items()}
    state = {key: value.contiguous() for key, value in state.items()}
    save_file(state, target, metadata={RECORD_KEY: json.dumps(asdict(record))})
    return record


def read_record(weights: Path) -> TrainingRecord:
    """The record of the run that made the weights."""
    with safe_open(weights, framework="pt") as file:
        return TrainingRecord.from_json(json.loads(file.metadata()[RECORD_KEY]))


def stills_of(options: argparse.Namespace) -> list[Still]:
    """The frames to measure over, read before the training: a wrong folder is said at once."""
    folder = options.real_frames
    if folder is None:
        return []
    stills = read_stills(folder, per_video=options.per_video)
    if not stills:
        raise SystemExit(f"train_camera_motion: no video with a usable frame lies directly in {folder}")
    return stills


def record_of(start: Path | None) -> TrainingRecord | None:
    """The record of the weights to refine, read before the training too."""
    if start is None:
        return None
    try:
        return read_record(start)
    except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
        reason = "there is no such file" if not start.is_file() else "this command has not written it"
        raise SystemExit(f"train_camera_motion: {start} cannot be refined: {reason}") from error


def evaluate(weights: Path, stills: list[Still], options: argparse.Namespace) -> Measured:
    """Print accuracy per class on fresh clips and, where there are stills, per class and speed over these."""
    model = load_model(get_spec(NAME), weights, num_classes=len(LABELS), head="pytorchvideo").float()
    score = scorer(model)
    per_class = 1 if options.smoke else options.per_class
    fresh = [
        measure(name, score, FreshClips(per_class, options.seed + 1_000_000, wide), total=per_class * len(LABELS))
        for name, wide in (("fresh clips, ordinary moves", False), ("fresh clips, all that the refinement has", True))
    ]
    real = []
    if stills:
        clips = VirtualCameraClips(stills, seed=options.seed)
        for name, drawn in (("real pictures", False), ("test cards and titles", True)):
            parts = [part for part, still in enumerate(stills) if still.drawn == drawn]
            real.append(measure(name, score, Subset(clips, parts), total=len(parts) * len(LABELS)))
    measured = Measured(fresh, real, reversals(score, seeds=range(1 if options.smoke else 20)))
    for table in measured.tables():
        print(f"\n{table}")
    print(f"\n{measured.reversals}")
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    stills, refined = stills_of(options), record_of(options.start)
    options.output.mkdir(parents=True, exist_ok=True)
    weights = options.output / f"{NAME}.safetensors"
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        settings = settings_of(options, Path(folder) / "result.pt")
        if not options.evaluate_only:
            train(settings)
            write_weights(Path(folder) / "result.pt", weights, options.seed, refined=refined)
            (options.output / f"{NAME}.labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    measured = evaluate(weights, stills, options)
    card = model_card(read_record(weights), measured, weights.stat().st_size)
    (options.output / f"{NAME}.md").write_text(card, encoding="utf-8")
    print(f"\nwrote {weights} ({weights.stat().st_size / 1e6:.1f} MB), its labels and {NAME}.md")


if __name__ == "__main__":
    main()
