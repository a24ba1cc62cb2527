"""The training loop: X3D-XS from scratch, picture sizes growing to the spec's own, one learning-rate cycle."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from handlers.models import build_model
from handlers.specs import get_spec
from scripts.camera_motion.clips import ExampleSource, sized_spec, to_input
from scripts.camera_motion.motion import LABELS
from scripts.camera_motion.team import Team, run_team

PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
WARM_UP = 0.04  # part of the run
HEAD = "blocks.5"
"""The classification head's name in pytorchvideo's X3D."""


@dataclass(frozen=True, slots=True)
class Phase:
    """`clips` examples at one picture size, `batch` per step and process."""

    size: int
    clips: int
    batch: int
    encoded_share: float
    encode_every: int
    ease_in: int = 0
    """Clips per process over which the first ones grow from easy to what is wanted."""


DEFAULT_PHASES = (
    Phase(size=64, clips=60_000, batch=16, encoded_share=0.15, encode_every=200, ease_in=2_500),
    Phase(size=96, clips=11_000, batch=16, encoded_share=0.2, encode_every=100),
    Phase(size=128, clips=5_000, batch=12, encoded_share=0.25, encode_every=60),
    Phase(size=182, clips=2_800, batch=8, encoded_share=0.4, encode_every=16),
)
SMOKE_PHASES = (
    Phase(size=32, clips=16, batch=8, encoded_share=0.2, encode_every=8),
    Phase(size=182, clips=4, batch=2, encoded_share=0.5, encode_every=2),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is: phases in order, seed, device, and an optional limit on its minutes."""

    phases: tuple[Phase, ...]
    seed: int
    device: torch.device
    minutes: float | None = None
    textures: int = 80
    processes: int = 1
    workers: int = 0  # per process, making data
    result: Path | None = None
    checkpoint: Path | None = None
    resume: Path | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """The model in eval mode, the clips seen at each size, and the minutes it took."""

    model: nn.Module
    clips_per_size: dict[int, int]
    minutes: float


Item = tuple[torch.Tensor, int, torch.Tensor]
"""Pictures (3, T, S, S), class id, the camera's steps ((T - 1) * 4,)."""


class _Stream(IterableDataset[Item]):
    """Examples of one phase, each followed by itself played backwards; each loader process has a seed of its own.

    Both have the same pictures and, but for static and shake, other labels: what cannot tell them apart is not worth
    learning, and cancels out of the gradient.
    """

    def __init__(self, phase: Phase, seed: int, textures: int) -> None:
        self._phase, self._seed, self._textures = phase, seed, textures

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        phase, spec = self._phase, sized_spec(self._phase.size)
        source = ExampleSource(
            self._seed * 1000 + phase.size + 7919 * (worker.id if worker else 0),  # rank is part of the seed
            spec,
            encoded_share=phase.encoded_share,
            encode_every=phase.encode_every,
            textures=self._textures,
            ease_in=phase.ease_in,
        )
        while True:
            example = source.next()
            for each in (example, example.reversed()):
                yield torch.from_numpy(to_input(each.frames, spec)), each.label, torch.from_numpy(each.steps.ravel())


def new_model() -> nn.Module:
    """The spec's architecture, trainable, with outputs for the ten labels and, in training alone, the camera's steps.

    To be asked how far the camera went, not only in which direction, speeds training up. The builder's dropout of 0.5
    would slow it down.
    """
    spec = get_spec("x3d_xs")
    outputs = len(LABELS) + 4 * (spec.num_frames - 1)
    model = build_model(spec, num_classes=outputs, head="pytorchvideo").requires_grad_(True)
    model.get_submodule(f"{HEAD}.dropout").p = 0.1
    return model


def pool_globally(model: nn.Module, fixed_pool: nn.Module | None) -> nn.Module:
    """Put `fixed_pool` back, or a global pool where None, so that any picture size fits; answers the pool that was."""
    previous = model.get_submodule(f"{HEAD}.pool.pool")
    model.get_submodule(f"{HEAD}.pool").pool = nn.AdaptiveAvgPool3d(1) if fixed_pool is None else fixed_pool
    return previous


def served_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without the outputs that only training needs."""
    state = dict(model.state_dict())
    for key in (f"{HEAD}.proj.weight", f"{HEAD}.proj.bias"):
        state[key] = state[key][: len(LABELS)].clone()
    return state


def learning_rate(progress: float) -> float:
    """A linear warm-up, then half a cosine down to nearly zero; `progress` in [0, 1] of the whole run."""
    if progress < WARM_UP:
        return PEAK_LEARNING_RATE * (0.05 + 0.95 * progress / WARM_UP)
    rest = (progress - WARM_UP) / (1 - WARM_UP)
    return PEAK_LEARNING_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0))))


class _Clock:
    """Progress of the run in [0, 1]: by clips, or by minutes where that is further along."""

    def __init__(self, settings: Settings) -> None:
        self._phases, self._minutes = settings.phases, settings.minutes
        self._work = sum(phase.clips * phase.size**2 for phase in settings.phases)
        self._started = time.monotonic()
        self._offset = 0.0

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._started) / 60

    def resume_at(self, progress: float) -> None:
        self._offset = progress

    def end_of(self, index: int) -> float:
        """Progress at which phase `index` is over; a clip's work grows with its area."""
        return sum(phase.clips * phase.size**2 for phase in self._phases[: index + 1]) / self._work

    def progress(self, index: int, clips: int) -> float:
        phase = self._phases[index]
        start = self.end_of(index - 1) if index else 0.0
        by_clips = start + (self.end_of(index) - start) * min(1.0, clips / phase.clips)
        if self._minutes is None:
            return by_clips
        return max(by_clips, self._offset + (1 - self._offset) * self.minutes / self._minutes)


def train(settings: Settings) -> None:
    """Train from scratch (or from `resume`) and save to `result`; the same seed and phases give the same data."""
    run_team(partial(_train, settings), settings.processes)


def _train(settings: Settings, team: Team) -> None:
    torch.manual_seed(settings.seed)
    model = new_model().to(settings.device).to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(_groups(model), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.99))
    clock = _Clock(settings)
    first = 0
    if settings.resume is not None:
        saved = torch.load(settings.resume, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["phase"]
        clock.resume_at(saved["progress"])
    fixed_pool = pool_globally(model, None)
    seen: dict[int, int] = {}
    for index, phase in enumerate(settings.phases):
        last = index == len(settings.phases) - 1
        if last:
            pool_globally(model, fixed_pool)
        if index >= first:
            seen[phase.size] = _run_phase(model, optimizer, clock, settings, team, index)
    settle_batch_norms(model, settings, batches=2 if len(seen) and phase.clips < 100 else 60)
    if team.leads and settings.result is not None:
        torch.save({"model": served_state(model), "seen": seen, "minutes": clock.minutes}, settings.result)


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels alone."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


def _loader(phase: Phase, settings: Settings, seed: int) -> DataLoader[Item]:
    stream = _Stream(phase, seed, settings.textures)
    prefetch = 6 if settings.workers else None
    return DataLoader(stream, batch_size=phase.batch, num_workers=settings.workers, prefetch_factor=prefetch)


def _run_phase(
    model: nn.Module, optimizer: torch.optim.Optimizer, clock: _Clock, settings: Settings, team: Team, index: int
) -> int:
    """One phase; answers the clips seen."""
    phase, clips, right, loss_sum = settings.phases[index], 0, 0.0, 0.0
    saved = time.monotonic()
    model.train()
    with tqdm(total=phase.clips, unit="clip", desc=f"{phase.size} px", mininterval=2.0, disable=not team.leads) as bar:
        for pictures, labels, steps in _loader(phase, settings, settings.seed * 100 + team.rank):
            progress = team.agree(clock.progress(index, clips))
            if progress >= clock.end_of(index) - 1e-9:
                break
            loss, correct = _step(model, optimizer, team, pictures, labels, steps, learning_rate(progress))
            clips += len(labels) * team.size
            weight = 0.02 if clips > 1000 else 0.1
            right += weight * (correct - right)
            loss_sum += weight * (loss - loss_sum)
            bar.set_postfix(loss=f"{loss_sum:.3f}", accuracy=f"{right:.1%}", progress=f"{progress:.1%}", refresh=False)
            bar.update(len(labels) * team.size)
            if team.leads and settings.checkpoint is not None and time.monotonic() - saved > 60:
                saved = time.monotonic()
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "phase": index, "progress": progress}, settings.checkpoint)
    return clips


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    team: Team,
    pictures: torch.Tensor,
    labels: torch.Tensor,
    steps: torch.Tensor,
    rate: float,
) -> tuple[float, float]:
    """One update; the loss and the batch's accuracy before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    device = next(model.parameters()).device
    pictures = pictures.to(device).contiguous(memory_format=torch.channels_last_3d)
    labels = labels.to(device)
    answers = model(pictures)
    logits, guessed_steps = answers[:, : len(LABELS)], answers[:, len(LABELS) :]
    loss = nn.functional.cross_entropy(logits, labels)
    step_loss = nn.functional.smooth_l1_loss(guessed_steps, steps.to(device))
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss + step_loss)
    team.average_gradients(model.parameters())
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach()), float((logits.argmax(1) == labels).float().mean())


def settle_batch_norms(model: nn.Module, settings: Settings, *, batches: int) -> None:
    """Replace the running statistics by plain averages over fresh batches: small batches leave noisy ones."""
    phase = settings.phases[-1]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    loader = _loader(phase, settings, settings.seed * 100 + 99)
    with torch.no_grad(), tqdm(total=batches, unit="batch", desc="batch norms") as bar:
        for done, (pictures, _, _) in enumerate(loader, start=1):
            model(pictures.to(settings.device).contiguous(memory_format=torch.channels_last_3d))
            bar.update()
            if done == batches:
                break
    model.eval()
