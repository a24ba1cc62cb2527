"""Many videos into a table: `python -m scripts.classify SPEC_OR_MAR PATHS_OR_DIR... --out DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from bulk.archives import Model
from bulk.files import Selection, select_files
from bulk.outcomes import ScoringOptions
from bulk.progress import Progress, rate_of
from bulk.rows import row_of
from bulk.shards import RowFormat, ShardWriter, check_format
from bulk.work import make_batches
from handlers import __version__
from handlers.errors import InvalidConfig
from handlers.request.option_table import Average
from handlers.video.sampling import Sampling
from scripts._bulk import (
    VIEWS_HELP,
    EngineOptions,
    add_engine_arguments,
    add_model_argument,
    engine_options,
    opened_model,
    positive,
    run_command,
    started_engine,
    views,
)

_EXAMPLES = """\
examples:
  python -m scripts.classify x3d_s clips/ --out labels
      every video under clips/, one JSON line each, in labels/part-*.jsonl
  python -m scripts.classify model_store/x3d_s.mar 'in/**/*.mp4' @more.txt --out labels --format parquet --top-k 3
  python -m scripts.classify x3d_m /data/videos --out labels --format parquet --ray auto --shared-storage
      on a Ray cluster whose nodes all have /data

The exit code is 1 if all videos failed, 2 if a path is not there; some failed videos are rows and no error.
A run that was killed goes on when the same command is given again; added videos are classified, the others kept.
docs/evaluation.md describes the columns.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifyOptions:
    """The command's options."""

    model: str
    videos: tuple[str, ...]
    out: Path
    row_format: RowFormat = "jsonl"
    sampling: Sampling = field(default_factory=Sampling)
    average: Average = "prob"
    top_k: int = 5
    batch_size: int = 8
    shard_rows: int = 1000
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, slots=True)
class Classified:
    """What the folder holds now: rows in all, and failed ones among them by the type of their error; how many of the
    rows, and of those that failed, are from this run, and what these took."""

    rows: int
    failures: Mapping[str, int]
    new: int
    new_failed: int
    seconds: float

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def nothing_worked(self) -> bool:
        """No video of this run has an answer; of a run that had nothing to do, none of the folder has."""
        return self.new_failed == self.new if self.new else self.failed == self.rows


def classify(options: ClassifyOptions) -> Classified:
    """One row for every video, in shards under `out`; goes on where an earlier run stopped. Raises SetupError."""
    check_format(options.row_format)
    selection = select_files(options.videos)
    _tell("passed over {} files without a video's suffix", selection.passed_over)
    _tell("passed over {} hidden files and folders", selection.hidden)
    _tell("{} videos are named more than once and get one row", selection.repeated)
    with opened_model(options.model) as model:
        _check_top_k(options.top_k, model)
        writer = ShardWriter(options.out, _job(options, model), options.row_format, shard_rows=options.shard_rows)
        try:
            kept, kept_failed = len(writer.done), writer.failed
            seconds = _write_rows(options, model, selection, writer)
            writer.finish()
        finally:
            writer.close()
    return Classified(
        rows=len(writer.done),
        failures=dict(writer.failures.most_common()),
        new=len(writer.done) - kept,
        new_failed=writer.failed - kept_failed,
        seconds=seconds,
    )


def _write_rows(options: ClassifyOptions, model: Model, selection: Selection, writer: ShardWriter) -> float:
    """Adds the rows that are missing, as their batches are finished; the seconds that they took."""
    waiting = [file for file in selection.files if file.name not in writer.done]
    kept = len(selection.files) - len(waiting)
    _tell(f"{{}} of {len(selection.files)} videos have their row from an earlier run and are kept", kept)
    if not waiting:
        return 0.0
    scoring = ScoringOptions(sampling=options.sampling, average=options.average, top_k=options.top_k)
    with (
        Progress(len(selection.files), kept=kept) as progress,
        started_engine(model, options.engine) as engine,
    ):
        for finished in engine.run(make_batches(waiting, options.batch_size), scoring):
            writer.add([row_of(outcome, model.labels) for outcome in finished.outcomes])
            failed = sum(outcome.failure is not None for outcome in finished.outcomes)
            progress.add(len(finished.outcomes), failed=failed)
    return progress.seconds


def _job(options: ClassifyOptions, model: Model) -> dict[str, Any]:
    """What decides a row, JSON values; a folder with rows of another job is not added to."""
    return {
        "model": model.identity(),
        "options": {
            "views": f"{options.sampling.num_clips}x{options.sampling.num_crops}",
            "average": options.average,
            "top_k": options.top_k,
        },
        "package_version": __version__,
    }


def _check_top_k(top_k: int, model: Model) -> None:
    if top_k > len(model.labels):
        raise InvalidConfig(f"--top-k {top_k}: the model has {len(model.labels)} classes")


def _tell(text: str, count: int) -> None:
    if count:
        print(f"note: {text.format(count)}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.classify",
        description="Classify a folder, a list or a glob of videos into Parquet or JSON lines, one row per video.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_argument(parser)
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="PATHS_OR_DIR",
        help="folders (searched to the bottom, hidden ones left out), globs, lists (@FILE or *.txt, a path a line), "
        "files, URIs",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the rows go")
    parser.add_argument(
        "--format",
        choices=get_args(RowFormat),
        default="jsonl",
        dest="row_format",
        help="jsonl (default), or parquet (pip install -r requirements/ray.txt)",
    )
    parser.add_argument("--views", type=views, default=Sampling(), metavar="NxM", help=VIEWS_HELP)
    parser.add_argument(
        "--average",
        "--average-clips",
        choices=get_args(Average),
        default="prob",
        help="how a video's views are joined (default prob)",
    )
    parser.add_argument("--top-k", type=positive, default=5, metavar="K", help="labels in a row (default 5)")
    parser.add_argument(
        "--shard-rows", type=positive, default=1000, metavar="N", help="rows of a shard file (default 1000)"
    )
    add_engine_arguments(parser)
    return parser


def _options(argv: Sequence[str] | None) -> ClassifyOptions:
    arguments = _parser().parse_args(argv)
    return ClassifyOptions(
        model=arguments.model,
        videos=tuple(arguments.videos),
        out=arguments.out,
        row_format=arguments.row_format,
        sampling=arguments.views,
        average=arguments.average,
        top_k=arguments.top_k,
        batch_size=arguments.batch_size,
        shard_rows=arguments.shard_rows,
        engine=engine_options(arguments),
    )


def _run(argv: Sequence[str] | None) -> int:
    options = _options(argv)
    done = classify(options)
    print(summary(done, options.out))
    return 1 if done.nothing_worked else 0


def summary(done: Classified, out: Path) -> str:
    """What the folder holds, why videos failed, and how fast it went."""
    lines = [f"{out}: {done.rows} rows, {done.new} new, {done.failed} of all failed"]
    if done.failures:
        lines.append("  failed: " + ", ".join(f"{count} {kind}" for kind, count in done.failures.items()))
    if done.new:
        lines.append(f"  {rate_of(done.new, done.seconds)}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when every video has its row, failed ones too; 1 when all of them failed or something stopped it;
    2 for wrong arguments, as a path to nothing; 130 after Ctrl-C."""
    return run_command(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
