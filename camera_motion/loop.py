"""The training loop: X3D-XS from scratch, picture sizes growing to the spec's own, one learning-rate cycle."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from camera_motion.clips import ExampleSource, sized_spec, to_input
from camera_motion.depthwise import speed_up
from camera_motion.flow import FlowHeads
from camera_motion.motion import LABELS
from camera_motion.team import Team, run_team
from handlers.model.network import build_model
from handlers.specs import get_spec

PEAK_LEARNING_RATE = 1.5e-3
WEIGHT_DECAY = 0.02
WARM_UP = 0.02  # part of the run
BRANCH_SCALE = 0.5  # of a residual branch at the start
STEP_WEIGHT = 10.0  # in the loss, of the camera's steps
FLOW_WEIGHT = 3.0  # in the loss, of the flow heads
FLOW_RATE = 3.0  # of the flow heads, times the learning rate
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
    wide: bool = False
    """Every speed that can be seen, and several encoders, instead of ordinary moves and H.264."""


# A batch that 16 does not divide takes twice the time: oneDNN's fast kernels work on blocks of 16 clips.
DEFAULT_PHASES = (
    Phase(size=64, clips=34_000, batch=16, encoded_share=0.15, encode_every=200, ease_in=5_000),
    Phase(size=96, clips=8_000, batch=16, encoded_share=0.2, encode_every=100),
    Phase(size=128, clips=4_800, batch=16, encoded_share=0.25, encode_every=60),
    Phase(size=182, clips=3_200, batch=16, encoded_share=0.4, encode_every=20),
)
REFINEMENT_PHASES = (
    Phase(size=128, clips=6_400, batch=16, encoded_share=0.3, encode_every=40, wide=True),
    Phase(size=182, clips=6_400, batch=16, encoded_share=0.5, encode_every=16, wide=True),
)
"""For weights that were trained before."""
REFINEMENT_RATE = 0.4
"""Of the learning rate, in a refinement."""
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
    start: Path | None = None
    """Served weights to go on from, instead of new ones."""
    rate: float = 1.0
    """Part of the learning rate that is used."""


Item = tuple[torch.Tensor, int, torch.Tensor]
"""Pictures (3, T, S, S), class id, the camera's steps (T - 1, 4)."""


class _Stream(IterableDataset[Item]):
    """Examples of one phase; each loader process has a seed of its own."""

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
            wide=phase.wide,
        )
        while True:
            example = source.next()
            steps = np.ascontiguousarray(example.steps)
            yield torch.from_numpy(to_input(example.frames, spec)), example.label, torch.from_numpy(steps)


def new_model() -> nn.Module:
    """The spec's architecture, trainable, with outputs for the ten labels and, in training alone, the camera's steps.

    The builder starts every residual branch scaled by zero, which keeps the only convolutions that relate places at
    different times out of the first hundreds of steps. Its dropout of 0.5 slows training down; no clip comes twice, so
    there is nothing to keep from being learnt by heart. The classifier starts at zero, so that its first answers add no
    noise to what the network is to learn.
    """
    spec = get_spec("x3d_xs")
    outputs = len(LABELS) + 4 * (spec.num_frames - 1)
    model = build_model(spec, num_classes=outputs, head="pytorchvideo").requires_grad_(True)
    setattr(model.get_submodule(f"{HEAD}.dropout"), "p", 0.0)  # noqa: B010 - a plain number, which nn.Module's types deny
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm3d) and name.endswith("branch2.norm_c"):
            nn.init.constant_(module.weight, BRANCH_SCALE)
    for parameter in model.get_submodule(f"{HEAD}.proj").parameters():
        nn.init.zeros_(parameter)
    return model


def pool_globally(model: nn.Module, fixed_pool: nn.Module | None) -> nn.Module:
    """Put `fixed_pool` back, or a global pool where None, so that any picture size fits; returns the previous pool."""
    previous = model.get_submodule(f"{HEAD}.pool.pool")
    model.get_submodule(f"{HEAD}.pool").pool = nn.AdaptiveAvgPool3d(1) if fixed_pool is None else fixed_pool
    return previous


def load_served_state(model: nn.Module, served: dict[str, torch.Tensor]) -> None:
    """The reverse of `served_state`: the outputs that only training needs stay as they are."""
    state = dict(model.state_dict())
    for key, tensor in served.items():
        if key.startswith(f"{HEAD}.proj."):
            state[key][: len(LABELS)] = tensor.to(state[key])
        else:
            state[key] = tensor.to(state[key])
    model.load_state_dict(state)


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


class _Learner:
    """The model, what teaches it, and the optimizer of both."""

    def __init__(self, device: torch.device, start: Path | None = None) -> None:
        model = new_model()
        if start is not None:
            load_served_state(model, load_file(start))
        self.model = model.to(device).to(memory_format=torch.channels_last_3d)
        self.heads = FlowHeads(self.model, get_spec("x3d_xs").num_frames).to(device)
        if device.type == "cpu":
            speed_up(self.model)
        groups = [*_groups(self.model, factor=1.0), *_groups(self.heads, factor=FLOW_RATE)]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self._device = device

    def step(self, batch: Sequence[torch.Tensor], rate: float, team: Team) -> tuple[float, float]:
        """One update from a batch of items; the classification loss and the batch's accuracy before it."""
        pictures, labels, steps = (part.to(self._device) for part in batch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        answers = self.model(pictures.contiguous(memory_format=torch.channels_last_3d))
        logits, guessed_steps = answers[:, : len(LABELS)], answers[:, len(LABELS) :]
        loss = nn.functional.cross_entropy(logits, labels)
        step_loss = nn.functional.smooth_l1_loss(guessed_steps, steps.flatten(1))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss + STEP_WEIGHT * step_loss + FLOW_WEIGHT * self.heads.loss(steps))
        team.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        return float(loss.detach()), float((logits.argmax(1) == labels).float().mean())

    def state(self) -> dict[str, object]:
        return {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])


def _train(settings: Settings, team: Team) -> None:
    torch.manual_seed(settings.seed)
    learner, clock = _Learner(settings.device, settings.start), _Clock(settings)
    state = _resume(settings, learner, clock)
    model = learner.model
    fixed_pool = pool_globally(model, None)
    for index in range(len(settings.phases)):
        if index == len(settings.phases) - 1:
            pool_globally(model, fixed_pool)
        if index >= state.phase:
            state = replace(state, phase=index)
            _run_phase(learner, clock, settings, team, state)
    if team.leads and settings.result is not None:
        settle_batch_norms(model, settings, batches=max(2, min(60, settings.phases[-1].clips // 16)))
        torch.save({"model": served_state(model), "seen": state.seen, "minutes": clock.minutes}, settings.result)


@dataclass(frozen=True, slots=True)
class _State:
    """Where a run is: its phase, and the clips seen at each size."""

    phase: int = 0
    seen: dict[int, int] = field(default_factory=dict)


def _resume(settings: Settings, learner: _Learner, clock: _Clock) -> _State:
    """The saved state, loaded into the learner; the beginning where nothing is to be resumed."""
    if settings.resume is None:
        return _State()
    saved = torch.load(settings.resume, weights_only=True)
    learner.load(saved)
    clock.resume_at(saved["progress"], saved["minutes"])
    return _State(saved["phase"], saved["seen"])


def _groups(module: nn.Module, *, factor: float) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels alone; `factor` of the learning rate."""
    decayed = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": WEIGHT_DECAY, "factor": factor},
        {"params": others, "weight_decay": 0.0, "factor": factor},
    ]


def _loader(phase: Phase, settings: Settings, seed: int, made: int = 0) -> DataLoader[Item]:
    stream = _Stream(phase, seed, settings.textures, made)
    prefetch = 6 if settings.workers else None
    return DataLoader(stream, batch_size=phase.batch, num_workers=settings.workers, prefetch_factor=prefetch)


def _run_phase(learner: _Learner, clock: _Clock, settings: Settings, team: Team, state: _State) -> None:
    """The phase that the state is in; its clips are counted there."""
    index, phase = state.phase, settings.phases[state.phase]
    clips, recent = state.seen.get(phase.size, 0), _Recent()
    made = clips // team.size
    saved = time.monotonic()
    learner.model.train()
    with tqdm(
        total=phase.clips, initial=clips, unit="clip", desc=f"{phase.size} px", mininterval=2.0, disable=not team.leads
    ) as bar:
        for batch in _loader(phase, settings, settings.seed * 100 + team.rank, made):
            progress = team.agree(clock.progress(index, clips))
            if progress >= clock.end_of(index) - 1e-9:
                break
            loss, correct = learner.step(batch, settings.rate * learning_rate(progress), team)
            clips += phase.batch * team.size
            state.seen[phase.size] = clips
            recent.add(loss, correct)
            bar.set_postfix(recent.shown(), progress=f"{progress:.1%}", refresh=False)
            bar.update(phase.batch * team.size)
            if team.leads and settings.checkpoint is not None and time.monotonic() - saved > 60:
                saved = time.monotonic()
                _save(settings.checkpoint, learner, state, progress, clock.minutes)


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


def _save(path: Path, learner: _Learner, state: _State, progress: float, minutes: float) -> None:
    """Everything that `_resume` needs; written whole or not at all."""
    partial_path = path.with_suffix(".partial")
    where = {"phase": state.phase, "seen": state.seen, "progress": progress, "minutes": minutes}
    torch.save({**learner.state(), **where}, partial_path)
    partial_path.replace(path)


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
