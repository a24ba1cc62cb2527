"""Accuracy per class and speed on clips that were encoded, decoded and preprocessed as the server does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from camera_motion.clips import decode, encoded_video, preprocess
from camera_motion.motion import LABELS
from camera_motion.render import Texture
from camera_motion.sample_clips import make_clip
from camera_motion.scenes import make_texture
from camera_motion.virtual_camera import BANDS, LabelledClip
from handlers.cpu import cores
from handlers.specs import get_spec

MOTIONS = tuple(dict.fromkeys(label.split(" ")[0] for label in LABELS))
"""The labels without their directions."""

Scorer = Callable[[bytes], NDArray[np.float64]]
"""An mp4 -> one probability per label."""


@dataclass(frozen=True, slots=True)
class Report:
    """How often each label was answered for each, per speed: `by_band[band, true, answered]`."""

    name: str
    by_band: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """All speeds together, `[true, answered]`."""
        return np.asarray(self.by_band.sum(axis=0))

    @property
    def clips(self) -> int:
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Top-1 over all clips, in [0, 1]."""
        return float(np.trace(self.counts) / max(1, self.clips))

    def class_accuracy(self, label_id: int) -> float:
        """Top-1 of one label's clips, in [0, 1]."""
        return float(self.counts[label_id, label_id] / max(1, self.counts[label_id].sum()))

    def confusion(self, label_id: int) -> str:
        """What that label's clips were mistaken for, most often first."""
        wrong = [
            (int(count), LABELS[answer])
            for answer, count in enumerate(self.counts[label_id])
            if answer != label_id and count
        ]
        return ", ".join(f"{label} {count}" for count, label in sorted(wrong, reverse=True)[:3])

    def table(self) -> str:
        """A Markdown table, one row per label."""
        rows = [f"| {self.name} | clips | top-1 | mistaken for |", "|---|---|---|---|"]
        for label_id, label in enumerate(LABELS):
            number = int(self.counts[label_id].sum())
            rows.append(f"| {label} | {number} | {self.class_accuracy(label_id):.1%} | {self.confusion(label_id)} |")
        rows.append(f"| **all** | **{self.clips}** | **{self.accuracy:.1%}** | |")
        return "\n".join(rows)

    def speed_table(self) -> str:
        """A Markdown table: right answers of clips for each motion and quarter of its speeds."""
        rows = [f"| {self.name} | {' | '.join(BANDS)} |", "|---" * (1 + len(BANDS)) + "|"]
        for motion in MOTIONS:
            ids = [label_id for label_id, label in enumerate(LABELS) if label.split(" ")[0] == motion]
            cells = [_share(*_right(band[ids], ids)) for band in self.by_band]
            rows.append(f"| {motion} | {' | '.join(cells)} |")
        cells = [_share(*_right(band, list(range(len(LABELS))))) for band in self.by_band]
        rows.append(f"| all motions | {' | '.join(cells)} |")
        return "\n".join(rows)


def _right(rows: NDArray[np.int64], ids: list[int]) -> tuple[int, int]:
    """Right answers and clips of some labels' rows of counts."""
    return int(rows[np.arange(len(ids)), ids].sum()), int(rows.sum())


def _share(right: int, clips: int) -> str:
    return f"{right / clips:.0%} of {clips}" if clips else "none"


def scorer(model: nn.Module) -> Scorer:
    """The served recipe on a model in eval mode."""
    spec = get_spec("x3d_xs")

    def score(video: bytes) -> NDArray[np.float64]:
        frames, fps = decode(video)
        pictures = torch.from_numpy(preprocess(frames, fps, spec))[None]
        with torch.inference_mode():
            return np.asarray(torch.softmax(model(pictures).double(), dim=1)[0].numpy())

    return score


def measure(name: str, score: Scorer, parts: Dataset[list[LabelledClip]], *, total: int) -> Report:
    """Top-1 counts of `score` over the clips of all parts, which are made on every core, a part at a time."""
    counts = np.zeros((len(BANDS), len(LABELS), len(LABELS)), np.int64)
    workers = cores() if total > len(LABELS) else 0
    with tqdm(total=total, unit="clip", desc=name) as bar:
        for part in DataLoader(parts, batch_size=None, collate_fn=list, num_workers=workers):
            for video, label_id, band in part:
                counts[band, label_id, int(score(video).argmax())] += 1
                bar.update()
    return Report(name, counts)


@dataclass(frozen=True, slots=True)
class FreshClips(Dataset[list[LabelledClip]]):
    """`per_class` parts of one clip per label, as in training, from a seed that training never used; one speed band."""

    per_class: int
    seed: int
    wide: bool

    def __len__(self) -> int:
        return self.per_class

    def __getitem__(self, part: int) -> list[LabelledClip]:
        """Every clip brings a texture of its own beside those before it; each part has a seed of its own."""
        if not 0 <= part < self.per_class:
            raise IndexError(part)
        rng = np.random.default_rng([self.seed, 0x5EED, part])
        textures = [Texture(make_texture(rng)) for _ in range(2)]
        clips = []
        for label_id in rng.permutation(len(LABELS)):
            textures.append(Texture(make_texture(rng)))
            clips.append((encoded_video(rng, textures, int(label_id), wide=self.wide).video, int(label_id), 0))
        return clips


@dataclass(frozen=True, slots=True)
class Reversals:
    """Scores of the right label for clips of a pan left, and for the same clips played backwards (a pan right)."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]

    def __str__(self) -> str:
        forward, backward = min(self.forward), min(self.backward)
        return (
            f"{len(self.forward)} sample clips: pan left scored at least {forward:.3f} "
            f"(median {float(np.median(self.forward)):.3f}), played backwards pan right at least {backward:.3f} "
            f"(median {float(np.median(self.backward)):.3f})"
        )


def reversals(score: Scorer, *, seeds: range) -> Reversals:
    """Sample clips forwards and backwards."""
    left, right = LABELS.index("pan left"), LABELS.index("pan right")
    forward = tuple(float(score(make_clip("pan left", seed=seed))[left]) for seed in seeds)
    backward = tuple(float(score(make_clip("pan left", seed=seed, reverse=True))[right]) for seed in seeds)
    return Reversals(forward, backward)


@dataclass(frozen=True, slots=True)
class Measured:
    """All that a model's card says of its accuracy. `real` may be empty; the others' speeds are not told apart."""

    fresh: list[Report]
    real: list[Report]
    reversals: Reversals

    def tables(self) -> list[str]:
        """Accuracy per label of everything, then per speed."""
        return [each.table() for each in (*self.fresh, *self.real)] + [each.speed_table() for each in self.real]
