"""The model card: what the model is, how it was made, what it measures. No figure is typed here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from camera_motion import motion, virtual_camera
from camera_motion.loop import DEFAULT_PHASES, REFINEMENT_PHASES, Phase
from camera_motion.measure import Measured
from camera_motion.motion import ORDINARY, WIDE, Ranges
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
    refinement: Refinement | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TrainingRecord:
        refinement = content.get("refinement")
        return cls(**{**content, "refinement": None if refinement is None else Refinement(**refinement)})


@dataclass(frozen=True, slots=True)
class Refinement:
    """Runs that went on from trained weights, all together."""

    minutes: float
    clips_per_size: dict[str, int]

    def then(self, minutes: float, clips_per_size: dict[str, int]) -> Refinement:
        """With one more run."""
        both = Counter(self.clips_per_size) + Counter(clips_per_size)
        return Refinement(self.minutes + minutes, dict(both))


def _speeds() -> str:
    """The ranges of the ten labels, from the constants that training uses."""

    def row(name: str, cell: Callable[[Ranges], str]) -> str:
        return f"| {name} | {cell(WIDE)} | {cell(ORDINARY)} |"

    def span(bounds: tuple[float, float], unit: Callable[[float], float] = float) -> str:
        return f"{unit(bounds[0]):.3g} to {unit(bounds[1]):.3g}"

    still = f"drift below {motion.STATIC_DRIFT:.1%}, jitter below {motion.STATIC_JITTER:.1%}"
    return "\n".join(
        (
            f"| within {motion.REFERENCE_SEC} s | all | ordinary moves |",
            "|---|---|---|",
            row("static, of the short side", lambda ranges: still),
            row("pan and tilt, short sides", lambda ranges: span(ranges.pan)),
            row("zoom, times", lambda ranges: span(ranges.zoom, math.exp)),
            row("roll, degrees", lambda ranges: span(ranges.roll, math.degrees)),
            row("shake, short sides between picked frames (0.5 s apart)", lambda ranges: span(ranges.shake_step)),
            row("a shake's net displacement, of the distance", lambda ranges: f"at most {ranges.shake_net:.0%}"),
            row("jitter on top of a move, of its travel", lambda ranges: f"at most {ranges.jitter:.0%}"),
        )
    )


def _bounds() -> str:
    """The independent generator's speeds."""
    rows = [f"| within {virtual_camera.TRAVEL_SEC} s | {' | '.join(virtual_camera.BANDS)} |", "|---" * 5 + "|"]
    for name, edges in virtual_camera.EDGES.items():
        cells = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        rows.append(f"| {name}, {_UNITS.get(name, 'short sides')} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _phases(phases: tuple[Phase, ...], clips_per_size: dict[str, int], run: str) -> list[str]:
    """Rows of what a run saw."""
    return [
        f"| {run} | {phase.size} | {clips_per_size.get(str(phase.size), 0):,} | {phase.encoded_share:.0%} |"
        for phase in phases
    ]


def _runs(record: TrainingRecord) -> str:
    seen = _phases(DEFAULT_PHASES, record.clips_per_size, "first")
    told = [f"Seed {record.seed}, {record.minutes:.0f} minutes on {record.machine}; {record.versions}."]
    if record.refinement is not None:
        seen += _phases(REFINEMENT_PHASES, record.refinement.clips_per_size, "refinement")
        told.append(
            "The refinement (`--start`) went on from those weights for "
            f"{record.refinement.minutes:.0f} minutes, with all\n"
            "speeds and encoders; the first run had ordinary moves, and H.264 alone."
        )
    return "\n".join(("| run | pixels | clips | of them encoded |", "|---|---|---|---|", *seen, "", *told))


def model_card(record: TrainingRecord, measured: Measured, size_bytes: int) -> str:
    """The card as Markdown."""
    spec = get_spec("camera_motion")
    labels = "\n".join(f"| {index} | {label} | {_MEANING[label]} |" for index, label in enumerate(motion.LABELS))
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
frame rate (10 to 60), size, aspect, encoder and quality vary. Part of the clips went through an encoder (H.264, MPEG-4,
H.265) and the package's own resize and crop, the others were rendered at the model's size. AdamW, one cycle,
cross-entropy on the label; beside it, in training alone, the camera's steps between frames are learnt from the last
features, and the picture's local motion from the first three residual stages.

{_runs(record)}

## Accuracy

All clips are encoded, decoded, and preprocessed as the server does it; one view. The fresh clips come from training's
own generator and a seed that training never used. The others come from an independent one
(`camera_motion/virtual_camera.py`), with paths, sampling, sizes, frame rates and encoder settings that training does
not share: a virtual camera moves over still frames of real recordings, none of which was trained on. Their pictures are
real, the motion is not, and nothing but the camera moves. Test cards and titles, which are drawn, are counted apart.
Frames and windows without visible texture on both axes, and near-duplicate frames, are left out.

{chr(10).join(report.table() + chr(10) for report in (*measured.fresh, *measured.real))}
### Per speed

The independent clips are drawn from these speeds:

{_bounds()}

For static the figure is the drift, for shake the root mean square displacement per axis.

{chr(10).join(report.speed_table() + chr(10) for report in measured.real)}
{measured.reversals}.

## Limits

- One label per clip: of a pan that also zooms, the larger motion is meant to win, but mixtures were not measured.
- Faster than the table's speeds, four frames in {spec.clip_duration_sec} s no longer overlap enough to be matched: the
  answer is often shake.
- On flat drawings, and on patterns that repeat (a perforated board), many moves are taken for static or shake.
- Parallax, lens distortion, rolling shutter and cuts are not in the training data.
- A scene without texture, or one that an object fills, has no camera motion to see; the answer is then arbitrary.
- Measured on made motion alone: how it does on hand-labelled recordings of real camera work is not known.
"""
