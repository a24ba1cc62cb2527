"""The training loop: X3D-XS from scratch, picture sizes growing to the spec's own, one learning-rate cycle."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from handlers.models import build_model
from handlers.specs import get_spec
from scripts.camera_motion.clips import ExampleSource, sized_spec, to_input
from scripts.camera_motion.depthwise import speed_up
from scripts.camera_motion.motion import LABELS
from scripts.camera_motion.team import Team, run_team

PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
WARM_UP = 0.04  # part of the run
BRANCH_SCALE = 0.5  # of a residual branch at the start
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
    Phase(size=64, clips=36_000, batch=16, encoded_share=0.15, encode_every=200, ease_in=1_500),
    Phase(size=96, clips=10_000, batch=16, encoded_share=0.2, encode_every=100),
    Phase(size=128, clips=4_000, batch=12, encoded_share=0.25, encode_every=60),
    Phase(size=182, clips=2_400, batch=8, encoded_share=0.4, encode_every=16),
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


Item = tuple[torch.Tensor, int, torch.Tensor]
"""Pictures (3, T, S, S), class id, the camera's steps ((T - 1) * 4,)."""


class _Stream(IterableDataset[Item]):
    """Examples of one phase, each followed by itself played backwards; each loader process has a seed of its own.

    Both have the same pictures and, but for static and shake, other labels: what cannot tell them apart is not worth
    learning, and cancels out of the gradient.
    """

    def __init__(self, phase: Phase, seed: int, textures: int, made: int) -> None:
        self._phase, self._seed, self._textures, self._made = phase, seed, textures, made

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        phase, spec = self._phase, sized_spec(self._phase.size)
        source = ExampleSource(
            [self._seed, phase.size, worker.id if worker else 0, self._made],
            spec,
            encoded_share=phase.encoded_share,
            encode_every=phase.encode_every,
            textures=self._textures,
            ease_in=phase.ease_in,
            made=self._made,
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
    setattr(model.get_submodule(f"{HEAD}.dropout"), "p", 0.1)  # noqa: B010 - a plain number, which nn.Module's types deny
    _awaken(model)
    return model


def _awaken(model: nn.Module) -> None:
    """Give the builder's first weights a start from which motion is found soon.

    It begins with every residual branch scaled by zero, which keeps the only convolutions that relate places at
    different times out of the first thousands of steps; and it scales depthwise kernels as if each output summed all
    channels, so that a step of Adam's is a tenth of such a kernel.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm3d) and name.endswith("branch2.norm_c"):
            nn.init.constant_(module.weight, BRANCH_SCALE)
        elif isinstance(module, nn.Conv3d) and module.groups == module.in_channels > 1:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


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
        self._minutes_before = 0.0

    @property
    def minutes(self) -> float:
        return self._minutes_before + (time.monotonic() - self._started) / 60

    def resume_at(self, progress: float, minutes: float) -> None:
        self._offset, self._minutes_before = progress, minutes

    def end_of(self, index: int) -> float:
        """Progress at which phase `index` is over; a clip's work grows with its area."""
        return sum(phase.clips * phase.size**2 for phase in self._phases[: index + 1]) / self._work

    def progress(self, index: int, clips: int) -> float:
        phase = self._phases[index]
        start = self.end_of(index - 1) if index else 0.0
        by_clips = start + (self.end_of(index) - start) * min(1.0, clips / phase.clips)
        if self._minutes is None:
            return by_clips
        part = (self.minutes - self._minutes_before) / self._minutes
        return max(by_clips, self._offset + (1 - self._offset) * part)


def train(settings: Settings) -> None:
    """Train from scratch (or from `resume`) and save to `result`; the same seed and phases give the same data."""
    run_team(partial(_train, settings), settings.processes)


def _train(settings: Settings, team: Team) -> None:
    torch.manual_seed(settings.seed)
    model = new_model().to(settings.device).to(memory_format=torch.channels_last_3d)
    if settings.device.type == "cpu":
        speed_up(model)
    optimizer = torch.optim.AdamW(_groups(model), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.99))
    clock = _Clock(settings)
    state = _resume(settings, model, optimizer, clock)
    fixed_pool = pool_globally(model, None)
    for index in range(len(settings.phases)):
        if index == len(settings.phases) - 1:
            pool_globally(model, fixed_pool)
        if index >= state.phase:
            state = replace(state, phase=index)
            _run_phase(model, optimizer, clock, settings, team, state)
    settle_batch_norms(model, settings, batches=max(2, min(60, settings.phases[-1].clips // 16)))
    if team.leads and settings.result is not None:
        torch.save({"model": served_state(model), "seen": state.seen, "minutes": clock.minutes}, settings.result)


@dataclass(frozen=True, slots=True)
class _State:
    """Where a run is: its phase, and the clips seen at each size."""

    phase: int = 0
    seen: dict[int, int] = field(default_factory=dict)


def _resume(settings: Settings, model: nn.Module, optimizer: torch.optim.Optimizer, clock: _Clock) -> _State:
    """The saved state, loaded into model and optimizer; the beginning where nothing is to be resumed."""
    if settings.resume is None:
        return _State()
    saved = torch.load(settings.resume, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    clock.resume_at(saved["progress"], saved["minutes"])
    return _State(saved["phase"], saved["seen"])


def _groups(model: nn.Module) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels alone."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


def _loader(phase: Phase, settings: Settings, seed: int, made: int = 0) -> DataLoader[Item]:
    stream = _Stream(phase, seed, settings.textures, made)
    prefetch = 6 if settings.workers else None
    return DataLoader(stream, batch_size=phase.batch, num_workers=settings.workers, prefetch_factor=prefetch)


def _run_phase(
    model: nn.Module, optimizer: torch.optim.Optimizer, clock: _Clock, settings: Settings, team: Team, state: _State
) -> None:
    """The phase that the state is in; its clips are counted there."""
    index, phase = state.phase, settings.phases[state.phase]
    clips, recent = state.seen.get(phase.size, 0), _Recent()
    made = clips // (2 * team.size)
    saved = time.monotonic()
    model.train()
    with tqdm(
        total=phase.clips, initial=clips, unit="clip", desc=f"{phase.size} px", mininterval=2.0, disable=not team.leads
    ) as bar:
        for pictures, labels, steps in _loader(phase, settings, settings.seed * 100 + team.rank, made):
            progress = team.agree(clock.progress(index, clips))
            if progress >= clock.end_of(index) - 1e-9:
                break
            loss, correct = _step(model, optimizer, team, pictures, labels, steps, learning_rate(progress))
            clips += len(labels) * team.size
            state.seen[phase.size] = clips
            recent.add(loss, correct)
            bar.set_postfix(recent.shown(), progress=f"{progress:.1%}", refresh=False)
            bar.update(len(labels) * team.size)
            if team.leads and settings.checkpoint is not None and time.monotonic() - saved > 60:
                saved = time.monotonic()
                _save(settings.checkpoint, model, optimizer, state, progress, clock.minutes)


class _Recent:
    """Mean loss and accuracy of the last hundred steps or so."""

    def __init__(self) -> None:
        self._steps, self._loss, self._accuracy = 0, 0.0, 0.0

    def add(self, loss: float, accuracy: float) -> None:
        self._steps += 1
        weight = max(0.01, 1 / self._steps)
        self._loss += weight * (loss - self._loss)
        self._accuracy += weight * (accuracy - self._accuracy)

    def shown(self) -> dict[str, str]:
        return {"loss": f"{self._loss:.3f}", "accuracy": f"{self._accuracy:.1%}"}


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: _State, progress: float, minutes: float
) -> None:
    """Everything that `_resume` needs; written whole or not at all."""
    partial_path = path.with_suffix(".partial")
    where = {"phase": state.phase, "seen": state.seen, "progress": progress, "minutes": minutes}
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), **where}, partial_path)
    partial_path.replace(path)


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
