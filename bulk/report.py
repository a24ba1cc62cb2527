"""Outcomes of an evaluation -> the result's content, and its summary for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bulk.annotations import Annotation
from bulk.class_rows import class_rows
from bulk.files import InvalidSelection
from bulk.metrics import confusion_matrix
from bulk.outcomes import AverageClips, MissingFile, Outcome, Sample
from bulk.samples import Metric, Samples, metrics_of, samples_of
from handlers.specs import ModelSpec

SavedScores = Literal["all", "top5"]
_SAVED_TOP = 5
_METRICS_OF_VIEWS: tuple[Metric, ...] = ("top_k_accuracy", "mean_class_accuracy", "mean_average_precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What goes into the result."""

    metrics: tuple[Metric, ...] = get_args(Metric)
    average: AverageClips = "prob"
    views: str = "1x1"


def saved_record(
    annotation: Annotation, outcome: Outcome, saved: SavedScores, *, several_labels: bool = False
) -> dict[str, Any]:
    """What the result keeps of one video, JSON values; metrics are computed from this alone.

    Scores are by class id (`all`), or of the five best classes; what took how long is not kept, so that a repeated
    run gives the same bytes. `several_labels`: the record has `labels`, any number of them, instead of `label`.
    """
    truth: dict[str, Any] = {"labels": list(annotation.labels)} if several_labels else {"label": annotation.label}
    record: dict[str, Any] = {"video": outcome.video, **truth}
    if outcome.failure is not None or outcome.facts is None:
        return {**record, "error": None if outcome.failure is None else asdict(outcome.failure)}
    samples = []
    for sample in outcome.samples:
        kept = {**_ranked(sample, annotation), "top": list(sample.class_ids[:_SAVED_TOP])}
        if saved == "all":
            kept["scores"] = _by_class(sample)
        else:
            kept["top_scores"] = list(sample.scores[:_SAVED_TOP])
        samples.append(kept)
    facts = {"duration_sec": outcome.facts.duration_sec, "clips": outcome.facts.clips}
    record |= {**facts, "warnings": list(outcome.facts.warnings), "samples": samples}
    if outcome.by_views:
        record["by_views"] = {
            name: _of_views(sample, annotation, several_labels=several_labels)
            for name, sample in outcome.by_views.items()
        }
    return record


def _of_views(sample: Sample, annotation: Annotation, *, several_labels: bool) -> dict[str, Any]:
    """As little as the figures of fewer views need."""
    kept = {**_ranked(sample, annotation), "top_scores": [sample.scores[0]]}
    if several_labels:
        kept["scores"] = _by_class(sample)
    return kept


def _ranked(sample: Sample, annotation: Annotation) -> dict[str, Any]:
    """The best class, and the place of the true one, or of the first true one; None where the video has none."""
    places = [sample.class_ids.index(label) for label in annotation.labels]
    return {"predicted": sample.class_ids[0], "rank": min(places, default=None)}


def _by_class(sample: Sample) -> list[float]:
    return [score for _, score in sorted(zip(sample.class_ids, sample.scores, strict=True))]


def build_result(
    job: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    *,
    labels: Sequence[str],
    spec: ModelSpec,
    options: ReportOptions,
    environment: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The result file's content; the same records give the same content. `environment`: what computed them."""
    failed = [record for record in records if "error" in record]
    missing = [record for record in failed if (record["error"] or {}).get("type") == MissingFile.__name__]
    scored = [record for record in records if "samples" in record]
    samples = samples_of(scored, len(labels), several_labels=spec.activation == "sigmoid")
    return {
        "job": job,
        "complete": True,
        "environment": list(environment),
        "labels": list(labels),
        "counts": {
            "annotated": len(records),
            "scored": len(scored),
            "missing": len(missing),
            "broken": len(failed) - len(missing),
            "samples": len(samples),
        },
        "metrics": metrics_of(samples, options.metrics) if len(samples) else {},
        "by_views": _metrics_by_views(scored, samples, options),
        # Beside random weights' accuracy they would be taken for a comparison.
        "published": [] if _random_weights(job) else published_figures(spec, options.views),
        "missing": [record["video"] for record in missing],
        "broken": [{"video": record["video"], **(record["error"] or {})} for record in failed if record not in missing],
        "classes": class_rows(samples, labels),
        "confusion": _confusion(samples),
        "videos": list(records),
    }


def _metrics_by_views(
    scored: Sequence[Mapping[str, Any]], samples: Samples, options: ReportOptions
) -> dict[str, dict[str, Any]]:
    """Figures of fewer views of the same pass, by name: those that authors publish, as far as they are asked for."""
    wanted = [metric for metric in _METRICS_OF_VIEWS if metric in options.metrics]
    if samples.labels is not None:
        wanted = [metric for metric in wanted if metric != "mean_average_precision"]
    found = {}
    for views in scored[0].get("by_views", {}) if scored else ():
        records = [{**record, "samples": [record["by_views"][views]]} for record in scored]
        part = samples_of(records, samples.classes, several_labels=samples.labels is None)
        found[views] = metrics_of(part, wanted)
    return found


def _confusion(samples: Samples) -> dict[str, Any] | None:
    """Where a video has several labels no class is taken for another one."""
    if samples.labels is None:
        return None
    counts = confusion_matrix(samples.labels, samples.predicted, samples.classes)
    return {"rows": "true class", "columns": "predicted class", "counts": counts.tolist()}


def result_bytes(result: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys; one line for every video and every class, so that it can be read and compared."""
    lines = []
    for key in sorted(result):
        value = result[key]
        if isinstance(value, list) and value:
            rows = ",\n".join("  " + _compact(row) for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        elif key == "confusion" and value is not None:
            rows = ",\n".join("  " + _compact(row) for row in value["counts"])
            head = ", ".join(f"{json.dumps(name)}: {json.dumps(value[name])}" for name in ("columns", "rows"))
            lines.append(f'{json.dumps(key)}: {{{head}, "counts": [\n{rows}\n]}}')
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8", "backslashreplace")


def read_result(path: Path) -> dict[str, Any]:
    """A finished result of scripts.evaluate; raises InvalidSelection for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSelection(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        content = None
    if not isinstance(content, dict) or not content.get("complete") or "videos" not in content:
        raise InvalidSelection(f"{path} is not a finished result of scripts.evaluate")
    if "labels" not in content:
        raise InvalidSelection(f"{path} is of an older version; give its evaluate command again to bring it up to date")
    return content


def published_figures(spec: ModelSpec, views: str) -> list[dict[str, Any]]:
    """What the spec's authors claim, percent; the figure for these views first."""
    published = spec.published
    figures: list[dict[str, Any]] = [
        {"views": item.views, "top1": item.top1, "top5": None, "reference_top1": item.reference_top1}
        for item in published.accuracies
    ]
    if published.top1 is not None and all(figure["views"] != published.views for figure in figures):
        figures.append(
            {"views": published.views, "top1": published.top1, "top5": published.top5, "reference_top1": None}
        )
    for figure in figures:
        figure["source"] = published.source
    return sorted(figures, key=lambda figure: figure["views"] != views)


def summary(result: Mapping[str, Any], options: ReportOptions) -> str:
    """A table for people: percent, 95 % intervals, the published figure beside it, and what was not scored."""
    counts = result["counts"]
    unit = "videos" if options.average != "none" else "views"
    lines = [
        f"{counts['scored']} of {counts['annotated']} videos scored, {options.views} views ({counts['samples']} {unit})"
    ]
    if _random_weights(result["job"]):
        lines.append("  RANDOM WEIGHTS: the figures mean nothing")
    for name, metric in result["metrics"].items():
        interval = ""
        if metric["interval"] is not None:
            interval = f"95 % interval {metric['low'] * 100:.2f} to {metric['high'] * 100:.2f} ({metric['interval']})"
        published = _published_for(name, result["published"])
        line = f"  {name.replace('_', ' '):<24}{metric['value'] * 100:6.2f} %   {interval}{published}"
        lines.append(line.rstrip())
    for views, metrics in result["by_views"].items():
        figures = ", ".join(f"{name.replace('_', ' ')} {each['value'] * 100:.2f} %" for name, each in metrics.items())
        lines.append(f"  {views} views of the same pass: {figures}")
    for kind in ("missing", "broken"):
        lines += _listed(kind, result[kind])
    return "\n".join(lines)


def _random_weights(job: Mapping[str, Any]) -> bool:
    archive = job.get("model", {}).get("archive", {})
    return bool(archive.get("weights", {}).get("kind") == "random")


def _published_for(name: str, figures: Sequence[Mapping[str, Any]]) -> str:
    key = {"top1_accuracy": "top1", "top5_accuracy": "top5"}.get(name, "")
    shown = [figure for figure in figures if figure.get(key) is not None]
    if not shown:
        return ""
    return "   published " + ", ".join(f"{figure[key]:.2f} % ({figure['views']})" for figure in shown)


def _listed(kind: str, rows: Sequence[Any], shown: int = 5) -> list[str]:
    if not rows:
        return []
    names = [row if isinstance(row, str) else f"{row['video']} ({row['type']})" for row in rows[:shown]]
    more = f", and {len(rows) - shown} more" if len(rows) > shown else ""
    return [f"  {kind}: {len(rows)}: {', '.join(names)}{more}"]


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(", ", ": "))
