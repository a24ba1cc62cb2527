"""The run behind `scripts.evaluate`: annotations -> scored records -> result, gone on with after a kill."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from benchmarks.machine import git_state
from bulk.annotations import Annotation, AnnotationList, Layout, read_annotations
from bulk.archives import Model
from bulk.files import VideoFolder
from bulk.journal import Journal, is_journal, write_atomically
from bulk.outcomes import AverageClips, ScoringOptions
from bulk.plots import PictureFormat
from bulk.progress import Progress
from bulk.report import ReportOptions, SavedScores, build_result, result_bytes, saved_record
from bulk.samples import Metric
from bulk.view_scores import ViewScores
from bulk.work import Batch, make_batches
from handlers import __version__
from handlers.errors import InvalidConfig
from handlers.video.sampling import Sampling
from scripts._bulk import EngineOptions, opened_model, started_engine


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
    save_views: Path | None = None
    batch_size: int = 8
    plots: bool = True
    plot_format: PictureFormat = "svg"
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
        return Evaluated(result=result, listed=listed)


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
            **({} if options.save_views is None else {"save_views": options.save_views.name}),
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
    if options.save_views is not None and not options.save_views.exists():
        raise InvalidConfig(f"{out} is complete, but {options.save_views} is gone; --force begins anew")
    print(f"note: {out} is complete; nothing is computed again (--force begins anew)", file=sys.stderr)
    return Found(found["videos"], found.get("environment", []))


def _scored(options: EvaluateOptions, model: Model, annotations: Sequence[Annotation], job: Mapping[str, Any]) -> Found:
    """Every video's record in the annotations' order: from the journal, or scored now."""
    batches = make_batches([annotation.video for annotation in annotations], options.batch_size)
    done: dict[int, dict[str, Any]] = {}
    if options.force:
        for path in (options.out, options.save_views):
            if path is not None:
                path.unlink(missing_ok=True)
    journal_was_there = options.out is not None and options.out.exists()
    with ExitStack() as stack:
        journal = None if options.out is None else stack.enter_context(Journal(options.out, job))
        if journal is not None:
            done = {entry["batch"]: entry for entry in journal.entries}
        finished = sum(len(entry["videos"]) for entry in done.values())
        view_scores = None
        if options.save_views is not None:
            shape = (len(annotations), options.sampling.num_clips * options.sampling.num_crops, len(model.labels))
            is_begun = bool(done) or (journal_was_there and options.save_views.exists())
            view_scores = ViewScores(options.save_views, shape, is_begun=is_begun)
        if finished:
            print(f"note: {finished} of {len(annotations)} videos are kept from an earlier run", file=sys.stderr)
        progress = stack.enter_context(Progress(len(annotations), kept=finished))
        waiting = [batch for batch in batches if batch.number not in done]
        for entry in _score(options, model, annotations, waiting, view_scores):
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
    options: EvaluateOptions,
    model: Model,
    annotations: Sequence[Annotation],
    batches: Sequence[Batch],
    view_scores: ViewScores | None,
) -> Iterator[dict[str, Any]]:
    """The journal's entry of each batch as it is finished: its number, its videos' records, what computed them."""
    if not batches:
        return
    several, commit = _several_labels(model), git_state()
    scoring = ScoringOptions(
        sampling=options.sampling,
        average=options.average,
        # A model that looks at the whole video sees another part of it in the first of several clips.
        by_views=options.sampling != Sampling() and model.spec.temporal != "whole_video",
        logits=view_scores is not None,
    )
    with started_engine(model, options.engine) as engine:
        for finished in engine.run(batches, scoring):
            start = finished.number * options.batch_size
            if view_scores is not None:
                view_scores.write(start, finished.outcomes)
            truths = annotations[start : start + len(finished.outcomes)]
            pairs = zip(truths, finished.outcomes, strict=True)
            records = [saved_record(truth, outcome, options.scores, several_labels=several) for truth, outcome in pairs]
            yield {"batch": finished.number, "videos": records, "made_by": {**finished.made_by, **commit}}
