"""Several single-threaded processes that train one model together, by averaging their gradients at every step.

X3D at small pictures is hundreds of tiny operators; two threads inside each of them wait for one another more than they
work, and much more when the machine is busy. One process per core meets once per step instead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among `size` processes; rank 0 leads."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def agree(self, value: float) -> float:
        """The leader's value, in every process."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, src=0)
        return float(shared)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, torch.split(flat, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))


def run_team(job: Callable[[Team], None], size: int) -> None:
    """Run `job` in `size` processes; this one leads. The job must be picklable."""
    if size == 1:
        job(Team())
        return
    with tempfile.TemporaryDirectory(prefix="team-") as folder:
        meeting = str(Path(folder) / "meeting")
        others = [
            mp.get_context("spawn").Process(target=_member, args=(job, rank, size, meeting), daemon=True)
            for rank in range(1, size)
        ]
        for process in others:
            process.start()
        _member(job, 0, size, meeting)
        for process in others:
            process.join(timeout=60)


def _member(job: Callable[[Team], None], rank: int, size: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    try:
        job(Team(rank, size))
    finally:
        dist.destroy_process_group()
