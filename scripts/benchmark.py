"""Measure speed and memory against baselines, in one run: `python -m scripts.benchmark`."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.baselines.archives import HUB_MODELS, prepare_archives
from benchmarks.beside_others import BesideOptions, measure_beside
from benchmarks.load import PROTOCOLS, LoadOptions, measure_load
from benchmarks.memory import MemoryOptions, measure_memory
from benchmarks.plots import plots_available, write_plots
from benchmarks.progress import Progress
from benchmarks.result_file import FORMAT, InvalidResult, read_result, write_result
from benchmarks.stages import StageOptions, measure_stages
from benchmarks.startup import StartupOptions, measure_startup
from benchmarks.table import markdown
from benchmarks.targets import evaluate_targets
from benchmarks.videos import VIDEOS, describe_video, ensure_video
from handlers.errors import SetupError
from serving.environment import REPOSITORY, ServerError

PARTS = ("stages", "load", "beside", "memory", "startup")
RESOLUTIONS = ("320x240", "1280x720", "1920x1080")
LARGE = "3840x2160"
_LOAD_BEFORE_NOTE = 0.5  # of the cores; above it someone else is measured, too

_EXAMPLES = """\
examples:
  python -m scripts.benchmark all --output benchmarks/results/two-cores.json
      everything, about a quarter of an hour on two cores; use a machine that does nothing else
  python -m scripts.benchmark load --quick
      a look at whether it works, in a minute or two; the figures mean little
  python -m scripts.benchmark --table benchmarks/results/two-cores.json
  python -m scripts.benchmark --plot benchmarks/results/two-cores.json --images docs/images
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOptions:
    """What to measure; the fields are the command's options."""

    parts: tuple[str, ...] = PARTS
    model: str = "x3d_s"
    weights: str = "random"
    seed: int = 0
    archive: Path | None = None
    resolutions: tuple[str, ...] = RESOLUTIONS
    large: str = LARGE
    recipe_workers: int = 1
    quick: bool = False
    progress: bool = True
    stages: StageOptions = field(default_factory=StageOptions)
    load: LoadOptions = field(default_factory=LoadOptions)
    beside: BesideOptions = field(default_factory=BesideOptions)
    bfloat16: bool = field(default_factory=machine.has_bfloat16)
    memory: MemoryOptions = field(default_factory=MemoryOptions)
    startup: StartupOptions = field(default_factory=StartupOptions)

    def shortened(self) -> BenchmarkOptions:
        """The smallest run that goes through everything: one small video, a few rounds."""
        return replace(
            self,
            quick=True,
            resolutions=RESOLUTIONS[:1],
            large=RESOLUTIONS[0],
            stages=replace(self.stages, rounds=2),
            load=replace(self.load, rounds=2, clients=2, blocks=2, block_sec=1.0, view_rounds=1),
            beside=replace(self.beside, rounds=1, seconds=1.0, scenes=("alone", "among 2 quick")),
            memory=replace(self.memory, requests=6),
            startup=replace(self.startup, rounds=1),
        )


def run_benchmark(options: BenchmarkOptions, *, command: str) -> dict[str, Any]:
    """The result, ready for `write_result`. Raises SetupError and ServerError."""
    progress = Progress(visible=options.progress)
    result: dict[str, Any] = {
        "format": FORMAT,
        "command": command,
        "settings": _settings(options),
        "machine": machine.machine(),
        "versions": machine.versions(),
        "git": machine.git_state(),
        "load_average": {"before": machine.load_average()},
    }
    videos = _videos(options, progress)
    result["videos"] = {name: describe_video(VIDEOS[name], path) for name, path in videos.items()}
    # A short path: worker sockets live below the server's folder.
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        archives = prepare_archives(
            Path(folder),
            spec=options.model,
            weights=options.weights,
            seed=options.seed,
            archive=options.archive,
            recipe_workers=options.recipe_workers,
            bfloat16=options.bfloat16,
        )
        result["settings"] |= {"model": archives.spec.name, "weights_sha256": archives.weights_sha256}
        measured = {name: videos[name] for name in options.resolutions}
        if "stages" in options.parts:
            result["stages"] = measure_stages(archives.model_dir, measured, options.stages, progress)
        if "load" in options.parts:
            result["load"] = measure_load(archives, measured, options.load, progress)
        if "beside" in options.parts:
            video = videos[options.load.throughput_resolution].read_bytes()
            result["beside"] = measure_beside(archives, video, options.beside, progress)
        if "memory" in options.parts:
            result["memory"] = measure_memory(archives, videos, options.large, options.memory, progress)
        if "startup" in options.parts:
            result["startup"] = measure_startup(archives, options.startup, progress)
    result["load_average"]["after"] = machine.load_average()
    result["targets"] = evaluate_targets(result)
    return result


def _settings(options: BenchmarkOptions) -> dict[str, Any]:
    """What decides the figures. Nothing that names a machine, a user or a folder."""
    settings = asdict(options)
    for unneeded in ("progress", "archive"):
        del settings[unneeded]
    settings["archive"] = None if options.archive is None else options.archive.name
    return settings


def _videos(options: BenchmarkOptions, progress: Progress) -> dict[str, Path]:
    """Those that the parts need, made the first time."""
    names = list(options.resolutions)
    if "memory" in options.parts and options.large not in names:
        names.append(options.large)
    with progress.part("videos", sum(VIDEOS[name].num_frames for name in names)) as bar:
        videos = {}
        for name in names:
            made = bar.n
            videos[name] = ensure_video(VIDEOS[name], on_frame=lambda: bar.update(1))
            bar.update(made + VIDEOS[name].num_frames - bar.n)  # nothing was made of a video that is there
    return videos


def summary(result: Mapping[str, Any]) -> str:
    """The targets, a line each."""
    marks = {True: "met   ", False: "MISSED", None: "-     "}
    lines = []
    for target in result["targets"]:
        measured = target["note"] if target["met"] is None else f"{target['measured']:.3g} {target['unit']}"
        more = f"  ({target['note']})" if target["note"] and target["met"] is not None else ""
        lines.append(f"  {marks[target['met']]}  {target['name']:<20} {target['target']:<14} {measured}{more}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.benchmark",
        description="Measure this package against the documented recipe, torchcodec with OpenVINO and the floor, in "
        "turns in one run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "part",
        nargs="?",
        choices=(*PARTS, "all"),
        default="all",
        help="stages: in-process, stage by stage. load: latency and throughput over HTTP and gRPC. beside: what a "
        "quick request waits for beside others. memory: the worker's. startup: register to ready. all (default)",
    )
    parser.add_argument("--model", choices=HUB_MODELS, default="x3d_s", help="which model (default x3d_s)")
    parser.add_argument(
        "--weights",
        choices=("random", "published"),
        default="random",
        help="speed does not depend on them; all contenders get the same (default random)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights (default 0)")
    parser.add_argument("--archive", type=Path, metavar="FILE.mar", help="measure this archive instead of a new one")
    parser.add_argument("--rounds", type=_whole, metavar="N", help="timed runs of each contender (default 30)")
    parser.add_argument("--clients", type=_whole, default=8, metavar="N", help="of the throughput part (default 8)")
    parser.add_argument(
        "--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="of the load part (default both)"
    )
    parser.add_argument(
        "--recipe-workers", type=_whole, default=1, metavar="N", help="workers that serve the recipe (default 1)"
    )
    parser.add_argument(
        "--recipe-memory", action="store_true", help="also ask the recipe for the 4K clip: it takes more than 8 GB"
    )
    parser.add_argument(
        "--bfloat16",
        action=argparse.BooleanOptionalAction,
        default=machine.has_bfloat16(),
        help="also measure precision bfloat16 (default: where the processor has it in hardware)",
    )
    parser.add_argument("--quick", action="store_true", help="one small video, a few rounds: does it work at all?")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="where to write the result (default: nowhere)")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    made_from = parser.add_argument_group("made from a result, without measuring")
    made_from.add_argument("--table", type=Path, metavar="FILE.json", help="print its Markdown tables")
    made_from.add_argument("--plot", type=Path, metavar="FILE.json", help="draw its plots into --images")
    made_from.add_argument(
        "--images", type=Path, metavar="FOLDER", default=REPOSITORY / "docs" / "images", help="default docs/images"
    )
    return parser


def _whole(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def options_from(arguments: argparse.Namespace) -> BenchmarkOptions:
    """Parsed arguments -> options."""
    options = BenchmarkOptions(
        parts=PARTS if arguments.part == "all" else (arguments.part,),
        model=arguments.model,
        weights=arguments.weights,
        seed=arguments.seed,
        archive=arguments.archive,
        recipe_workers=arguments.recipe_workers,
        progress=not arguments.no_progress,
        load=LoadOptions(protocols=tuple(arguments.protocols), clients=arguments.clients),
        bfloat16=arguments.bfloat16,
        memory=MemoryOptions(with_recipe=arguments.recipe_memory),
    )
    if arguments.quick:
        options = options.shortened()
    if arguments.rounds is not None:
        options = replace(
            options,
            stages=replace(options.stages, rounds=arguments.rounds),
            load=replace(options.load, rounds=arguments.rounds),
            beside=replace(options.beside, rounds=max(1, arguments.rounds // 10)),
        )
    return options


def _from_result(arguments: argparse.Namespace) -> int:
    if arguments.table is not None:
        print(markdown(read_result(arguments.table)), end="")
    if arguments.plot is not None:
        if not plots_available():
            print("error: plots need matplotlib: pip install -r requirements/bench.txt", file=sys.stderr)
            return 1
        for path in write_plots(read_result(arguments.plot), arguments.images):
            print(path)
    return 0


def _measure(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    options = options_from(arguments)
    cores = machine.machine()["cores"]
    if (load := machine.load_average()[0]) > _LOAD_BEFORE_NOTE * cores:
        print(
            f"note: load average {load} on {cores} cores: others run here, so figures are worse than true",
            file=sys.stderr,
        )
    result = run_benchmark(options, command=shlex.join(["python", "-m", "scripts.benchmark", *argv]))
    print(summary(result))
    for name, reason in result.get("stages", {}).get("absent", {}).items():
        print(f"  absent  {name}: {reason}")
    if arguments.output is not None:
        write_result(result, arguments.output)
        print(f"  result: {arguments.output}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when it measured, targets met or not; 1 when it could not; 130 after Ctrl-C."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    # A terminated run stops its server as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if arguments.table is not None or arguments.plot is not None:
            return _from_result(arguments)
        return _measure(arguments, given)
    except (SetupError, ServerError, InvalidResult, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
