"""The model card: what the model is, how it was made, what it measures. No figure is typed here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from camera_motion import motion, virtual_camera
from camera_motion.loop import Phase
from camera_motion.measure import Report, Reversals
from handlers.specs import get_spec

_UNITS = {"zoom": "times", "roll": "degrees"}
_MEANING = {
    "static": "the camera rests; objects may move",
    "pan left": "the camera turns left, the picture's content moves right",
    "pan right": "the camera turns right, the content moves left",
    "tilt up": "the camera turns up, the content moves down",
    "tilt down": "the camera turns down, the content moves up",
    "zoom in": "the content grows",
    "zoom out": "the content shrinks",
    "roll clockwise": "the camera turns clockwise as its operator sees it, the content turns counter-clockwise",
    "roll counter-clockwise": "the camera turns counter-clockwise, the content turns clockwise",
    "shake": "irregular jitter, as from an unsteady hand, without net direction",
}


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What the training run was: it travels in the weights file's metadata."""

    seed: int
    minutes: float
    machine: str
    versions: str
    clips_per_size: dict[str, int]


def _travel(name: str, bounds: tuple[float, float], unit: str) -> str:
    low, high = bounds
    return f"| {name} | {low:.3g} to {high:.3g} {unit} |"


def _speeds() -> str:
    """The ranges of the ten labels, from the constants that training uses."""
    zoom = (math.exp(motion.ZOOM_TRAVEL[0]), math.exp(motion.ZOOM_TRAVEL[1]))
    roll = (math.degrees(motion.ROLL_TRAVEL[0]), math.degrees(motion.ROLL_TRAVEL[1]))
    return "\n".join(
        (
            f"| motion | within {motion.REFERENCE_SEC} s |",
            "|---|---|",
            f"| static | drift below {motion.STATIC_DRIFT:.1%} and jitter below {motion.STATIC_JITTER:.1%} (root mean "
            "square) of the short side |",
            _travel("pan, tilt", motion.PAN_TRAVEL, "of the picture's short side"),
            _travel("zoom", zoom, "times"),
            _travel("roll", roll, "degrees"),
            _travel(
                "shake", motion.SHAKE_STEP, "of the short side between picked frames (0.5 s apart), on average; "
            ).removesuffix(" |")
            + f"net displacement at most {motion.SHAKE_NET:.0%} of the distance covered |",
        )
    )


def _bounds() -> str:
    """The independent generator's speeds."""
    rows = [f"| within {virtual_camera.TRAVEL_SEC} s | {' | '.join(virtual_camera.BANDS)} |", "|---" * 5 + "|"]
    for name, edges in virtual_camera.EDGES.items():
        cells = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        rows.append(f"| {name}, {_UNITS.get(name, 'short sides')} | {' | '.join(cells)} |")
    return "\n".join(rows)


def model_card(
    record: TrainingRecord, phases: tuple[Phase, ...], reports: list[Report], reversals: Reversals, size_bytes: int
) -> str:
    """The card as Markdown."""
    spec = get_spec("camera_motion")
    labels = "\n".join(f"| {index} | {label} | {_MEANING[label]} |" for index, label in enumerate(motion.LABELS))
    seen = "\n".join(
        f"| {phase.size} | {record.clips_per_size.get(str(phase.size), 0):,} | {phase.encoded_share:.0%} |"
        for phase in phases
    )
    return f"""# camera_motion

Names the motion of the camera in a clip. X3D-XS ({spec.published.params_m} million parameters, the spec `x3d_xs` with a
head of {len(motion.LABELS)} classes), trained from scratch by `python -m scripts.train_camera_motion` on clips that the
same script makes; no photograph or video was used. The weights file holds float16 and takes {size_bytes / 1e6:.1f} MB.
This card is written by the script, and its figures are those that it printed.

## Labels

Directions follow the camera, so the picture's content moves the other way.

| id | label | meaning |
|---|---|---|
{labels}

## Input

As for `x3d_xs`: {spec.num_frames} frames picked uniformly from {spec.clip_duration_sec} s of video, scaled to
{spec.short_side} pixels on the short side, the central {spec.crop_size} x {spec.crop_size} pixels, mean {spec.mean[0]},
deviation {spec.std[0]}.

## What counts as which motion

Clips were made with these speeds, drawn uniformly on a logarithmic scale; between static and the slowest motions lies
a margin in which the answer is undefined.

{_speeds()}

A motion's other components (a pan that also tilts, zooms or rolls a little) stay below {motion.CROSS_TALK:.0%} of it.

## Training

Procedural scenes (1/f noise, occluding shapes, rooms, pages of text, landscapes) with up to three objects that move by
themselves, seen through the moving camera; brightness, contrast, fades, vignettes, marks, softness, noise, motion blur,
frame rate (10 to 60), size, aspect and H.264 quality vary. Part of the clips went through H.264 and the package's own
resize and crop, the others were rendered at the model's size. AdamW, one cycle, cross-entropy on the label; beside it,
in training alone, the camera's steps between frames are learnt from the last features, and the picture's local motion
from the first three residual stages.

| pixels | clips | of them encoded |
|---|---|---|
{seen}

Seed {record.seed}, {record.minutes:.0f} minutes on {record.machine}; {record.versions}.

## Accuracy

All clips are encoded, decoded, and preprocessed as the server does it; one view. The fresh clips come from training's
own generator and a seed that training never used. The others come from an independent one
(`camera_motion/virtual_camera.py`), with paths, sampling, sizes, frame rates and encoders that training does not share:
a virtual camera moves over still frames of real recordings, none of which was trained on. Their pictures are real, the
motion is not, and nothing but the camera moves. Test cards and titles, which are drawn, are counted apart. Frames and
windows without visible texture on both axes, and near-duplicate frames, are left out.

{chr(10).join(report.table() + chr(10) for report in reports)}
### Per speed

The independent clips are drawn from these speeds, the slowest and the fastest of which training did not have:

{_bounds()}

For static the figure is the drift, for shake the root mean square displacement per axis.

{chr(10).join(report.speed_table() + chr(10) for report in reports[1:])}
{reversals}.

## Limits

- One label per clip: of a pan that also zooms, the larger motion is meant to win, but mixtures were not measured.
- Faster than the table's speeds, four frames in {spec.clip_duration_sec} s no longer overlap enough to be matched: the
  answer is often shake.
- On flat drawings, and on patterns that repeat (a perforated board), many moves are taken for static or shake.
- Parallax, lens distortion, rolling shutter and cuts are not in the training data.
- A scene without texture, or one that an object fills, has no camera motion to see; the answer is then arbitrary.
- Measured on made motion alone: how it does on hand-labelled recordings of real camera work is not known.
"""
