"""Accuracy of the served pipeline on labelled videos: `python -m scripts.evaluate SPEC_OR_MAR --annotations FILE`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from benchmarks.machine import git_state
from bulk.annotations import LAYOUTS, Annotation, AnnotationList, Layout, read_annotations
from bulk.archives import Model
from bulk.class_rows import class_csv
from bulk.files import VideoFolder
from bulk.journal import Journal, is_journal, write_atomically
from bulk.outcomes import AverageClips, ScoringOptions
from bulk.plots import plots_available, write_plots
from bulk.progress import Progress
from bulk.report import (
    ReportOptions,
    SavedScores,
    build_result,
    result_bytes,
    saved_record,
    summary,
)
from bulk.samples import Metric
from bulk.work import Batch, make_batches
from handlers import __version__
from handlers.errors import InvalidConfig
from handlers.video.sampling import Sampling
from scripts._bulk import (
    VIEWS_HELP,
    EngineOptions,
    add_engine_arguments,
    add_model_argument,
    engine_options,
    opened_model,
    run_command,
    started_engine,
    views,
    whole,
)

_EXAMPLES = """\
examples:
  python -m scripts.evaluate x3d_s --annotations val.csv --videos kinetics400/val --views 10x3 --out x3d_s.json
  python -m scripts.evaluate model_store/gestures.mar --annotations val.txt --videos val --out gestures.json
      killed? the same command goes on where it stopped, and ends in the same bytes

annotations: 'path label' a line, MMAction2's 'video_id frames label', or a CSV with a header (video and label columns,
or Kinetics' own label,youtube_id,time_start,time_end). docs/evaluation.md has the details.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """The command's options."""

    model: str
    annotations: Path
    videos: Path
    sampling: Sampling = field(default_factory=Sampling)
    metrics: tuple[Metric, ...] = get_args(Metric)
    average: AverageClips = "prob"
    out: Path | None = None
    limit: int | None = None
    layout: Layout | None = None
    scores: SavedScores = "all"
    batch_size: int = 8
    plots: bool = True
    force: bool = False
    engine: EngineOptions = field(default_factory=EngineOptions)

    @property
    def report(self) -> ReportOptions:
        views = f"{self.sampling.num_clips}x{self.sampling.num_crops}"
        return ReportOptions(metrics=self.metrics, average=self.average, views=views)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The result file's content, and what it was made from."""

    result: dict[str, Any]
    labels: tuple[str, ...]
    listed: AnnotationList


@dataclass(frozen=True, slots=True)
class Found:
    """Every video's record in the annotations' order, and what computed them, each environment once."""

    records: list[dict[str, Any]]
    environment: list[dict[str, Any]]


def evaluate(options: EvaluateOptions) -> Evaluated:
    """Runs to the end, or goes on where an earlier run stopped. Raises SetupError."""
    with opened_model(options.model) as model:
        listed = read_annotations(
            options.annotations,
            labels=model.labels,
            folder=VideoFolder(options.videos),
            layout=options.layout,
            several_labels=_several_labels(model),
        )
        if _several_labels(model) and options.scores != "all":
            raise InvalidConfig("--scores top5: the model gives several labels, whose metrics need all scores")
        annotations = listed.annotations[: options.limit]
        job = _job(options, model, annotations)
        found = _finished(options, job) or _scored(options, model, annotations, job)
        result = build_result(
            job,
            found.records,
            labels=model.labels,
            spec=model.spec,
            options=options.report,
            environment=found.environment,
        )
        if options.out is not None:
            write_atomically(options.out, result_bytes(result))
        return Evaluated(result=result, labels=model.labels, listed=listed)


def _several_labels(model: Model) -> bool:
    """Whether a video may have any number of the model's labels: each has a probability of its own."""
    return model.spec.activation == "sigmoid"


def _job(options: EvaluateOptions, model: Model, annotations: Sequence[Annotation]) -> dict[str, Any]:
    """What decides the per-video scores, JSON values; a journal or result of another job is not gone on with."""
    truths = [list(each.labels) if _several_labels(model) else each.label for each in annotations]
    listed = json.dumps([[each.video.name, truth] for each, truth in zip(annotations, truths, strict=True)])
    return {
        "model": model.identity(),
        "options": {
            "views": options.report.views,
            "average_clips": options.average,
            "scores": options.scores,
            "batch_size": options.batch_size,
        },
        "annotations": {"videos": len(annotations), "sha256": hashlib.sha256(listed.encode()).hexdigest()},
        "package_version": __version__,
    }


def _finished(options: EvaluateOptions, job: Mapping[str, Any]) -> Found | None:
    """The videos of a result that is there already; None when there is none, or a journal to go on with."""
    out = options.out
    if out is None or not out.exists() or out.stat().st_size == 0 or options.force or is_journal(out):
        return None
    try:
        found = json.loads(out.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("job") != json.loads(json.dumps(job)):
        raise InvalidConfig(f"{out} is there and is not this run's result; --force replaces it")
    print(f"note: {out} is complete; nothing is computed again (--force begins anew)", file=sys.stderr)
    return Found(found["videos"], found.get("environment", []))


def _scored(options: EvaluateOptions, model: Model, annotations: Sequence[Annotation], job: Mapping[str, Any]) -> Found:
    """Every video's record in the annotations' order: from the journal, or scored now."""
    batches = make_batches([annotation.video for annotation in annotations], options.batch_size)
    done: dict[int, dict[str, Any]] = {}
    if options.out is not None and options.force:
        options.out.unlink(missing_ok=True)
    with ExitStack() as stack:
        journal = None if options.out is None else stack.enter_context(Journal(options.out, job))
        if journal is not None:
            done = {entry["batch"]: entry for entry in journal.entries}
        finished = sum(len(entry["videos"]) for entry in done.values())
        if finished:
            print(f"note: {finished} of {len(annotations)} videos are kept from an earlier run", file=sys.stderr)
        progress = stack.enter_context(Progress(len(annotations), kept=finished))
        for entry in _score(options, model, annotations, [b for b in batches if b.number not in done]):
            if journal is not None:
                journal.append(entry)
            done[entry["batch"]] = entry
            progress.add(len(entry["videos"]), failed=sum("error" in record for record in entry["videos"]))
    environment = {json.dumps(entry.get("made_by"), sort_keys=True) for entry in done.values()} - {"null"}
    return Found(
        records=[record for batch in batches for record in done[batch.number]["videos"]],
        environment=[json.loads(each) for each in sorted(environment)],
    )


def _score(
    options: EvaluateOptions, model: Model, annotations: Sequence[Annotation], batches: Sequence[Batch]
) -> Iterator[dict[str, Any]]:
    """The journal's entry of each batch as it is finished: its number, its videos' records, what computed them."""
    if not batches:
        return
    several, commit = _several_labels(model), git_state()
    scoring = ScoringOptions(sampling=options.sampling, average=options.average)
    with started_engine(model, options.engine) as engine:
        for finished in engine.run(batches, scoring):
            start = finished.number * options.batch_size
            truths = annotations[start : start + len(finished.outcomes)]
            pairs = zip(truths, finished.outcomes, strict=True)
            records = [saved_record(truth, outcome, options.scores, several_labels=several) for truth, outcome in pairs]
            yield {"batch": finished.number, "videos": records, "made_by": {**finished.made_by, **commit}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate",
        description="Measure a model's accuracy on labelled videos, through the pipeline that serves it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_argument(parser)
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="the labelled list")
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="the folder its paths start from")
    parser.add_argument("--views", type=views, default=Sampling(), metavar="NxM", help=VIEWS_HELP)
    parser.add_argument(
        "--eval",
        nargs="+",
        choices=get_args(Metric),
        default=list(get_args(Metric)),
        dest="metrics",
        metavar="METRIC",
        help=f"which metrics (default: all): {', '.join(get_args(Metric))}; docs/evaluation.md defines them",
    )
    parser.add_argument(
        "--average",
        "--average-clips",
        choices=get_args(AverageClips),
        default="prob",
        help="how a video's views are joined: mean of probabilities (default), of scores before the softmax, "
        "or not at all: then every view counts as a sample",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="the result, plots beside it; a journal until done"
    )
    parser.add_argument("--limit", type=whole, metavar="N", help="the first N annotated videos alone")
    parser.add_argument("--layout", choices=LAYOUTS, help="how to read the annotations (default: recognise it)")
    parser.add_argument(
        "--scores",
        choices=get_args(SavedScores),
        default="all",
        help="per-video scores in the result: of all classes (default; 80 MB for Kinetics-400) or of the best five",
    )
    parser.add_argument("--no-plots", action="store_true", help="write no pictures")
    parser.add_argument("--force", action="store_true", help="begin anew, whatever FILE.json holds")
    add_engine_arguments(parser)
    return parser


def _options(argv: Sequence[str] | None) -> EvaluateOptions:
    arguments = _parser().parse_args(argv)
    return EvaluateOptions(
        model=arguments.model,
        annotations=arguments.annotations,
        videos=arguments.videos,
        sampling=arguments.views,
        metrics=tuple(arguments.metrics),
        average=arguments.average,
        out=arguments.out,
        limit=arguments.limit,
        layout=arguments.layout,
        scores=arguments.scores,
        batch_size=arguments.batch_size,
        plots=not arguments.no_plots,
        force=arguments.force,
        engine=engine_options(arguments),
    )


def _run(argv: Sequence[str] | None) -> int:
    options = _options(argv)
    if options.out is not None and options.plots and not plots_available():
        print("note: no plots, matplotlib is not installed (pip install -r requirements/bench.txt)", file=sys.stderr)
    evaluated = evaluate(options)
    if evaluated.listed.repeated:
        print(f"note: {evaluated.listed.repeated} lines repeat others and were not counted", file=sys.stderr)
    print(summary(evaluated.result, options.report))
    if options.out is not None:
        print(f"  result: {options.out}")
        classes = options.out.with_name(f"{options.out.stem}.classes.csv")
        write_atomically(classes, class_csv(evaluated.result["classes"]))
        print(f"  classes: {classes}")
        if options.plots and plots_available() and evaluated.result["counts"]["scored"]:
            for path in write_plots(evaluated.result, evaluated.labels, options.out):
                print(f"  plot:   {path}")
    return 0 if evaluated.result["counts"]["scored"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0; 1 when nothing could be scored or anything else is wrong; 2 for wrong arguments, as a path
    to nothing; 130 after Ctrl-C."""
    return run_command(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
