"""In-process: decode, transform and model of one clip, per resolution and contender, in turns in one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.baselines.contender import STAGES, ContenderAbsent, Run
from benchmarks.baselines.process import CONTENDERS, ContenderProcess
from benchmarks.progress import Progress
from benchmarks.samples import shuffled, summarise

_WARM_UP = 2
_PAUSE_SEC = 0.01  # before each run: threads that still spin after the one before come to rest


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """`rounds`: timed runs of each contender on each video."""

    rounds: int = 30
    contenders: Sequence[str] = CONTENDERS


@dataclass(slots=True)
class StartedContenders:
    """Those that run here, and why the others do not."""

    processes: list[ContenderProcess] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def start_contenders(names: Sequence[str], model_dir: Path, stack: ExitStack) -> StartedContenders:
    """Closed by `stack`."""
    started = StartedContenders()
    for name in names:
        try:
            started.processes.append(stack.enter_context(ContenderProcess(name, model_dir)))
        except ContenderAbsent as error:
            started.absent[name] = str(error)
    return started


def measure_stages(
    model_dir: Path, videos: Mapping[str, Path], options: StageOptions, progress: Progress
) -> dict[str, Any]:
    """The `stages` section of a result: resolution -> contender -> milliseconds."""
    with ExitStack() as stack:
        started = start_contenders(options.contenders, model_dir, stack)
        section: dict[str, Any] = {"unit": "ms", "resolutions": {}}
        steps = len(videos) * (options.rounds + _WARM_UP)
        with progress.part("stages", steps) as bar:
            for resolution, video in videos.items():
                runs: dict[str, list[Run]] = {}
                for turn in range(-_WARM_UP, options.rounds):
                    for contender in shuffled(started.processes, turn):
                        time.sleep(_PAUSE_SEC)
                        run = _run(contender, video, started)
                        if run is not None and turn >= 0:
                            runs.setdefault(contender.name, []).append(run)
                    bar.update(1)
                section["resolutions"][resolution] = {
                    contender.name: _summary(runs[contender.name], contender.about) for contender in started.processes
                }
        section["absent"] = started.absent
    return section


def _run(contender: ContenderProcess, video: Path, started: StartedContenders) -> Run | None:
    """None for a contender that turns out not to work here; it is dropped from the list."""
    try:
        return contender.run(video)
    except ContenderAbsent as error:
        started.absent[contender.name] = str(error)
        started.processes.remove(contender)
        return None


def _summary(runs: Sequence[Run], about: Mapping[str, str]) -> dict[str, Any]:
    stages = {
        stage: summarise([run.stages_ms[stage] for run in runs]).to_json()
        for stage in STAGES
        if stage in runs[0].stages_ms
    }
    total = summarise([run.total_ms for run in runs]).to_json()
    return {**stages, "total": total, "top5": list(runs[-1].top), "about": dict(about)}
