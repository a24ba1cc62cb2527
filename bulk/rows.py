"""Outcomes -> the rows of bulk classification; one row per video, the same columns in every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bulk.outcomes import Outcome

Row = Mapping[str, Any]

COLUMNS: Mapping[str, str] = {
    "path": "string",
    "status": "string",
    "error_type": "string",
    "message": "string",
    "label": "string",
    "score": "float64",
    "class_id": "int32",
    "labels": "list<string>",
    "scores": "list<float64>",
    "class_ids": "list<int32>",
    "duration_sec": "float64",
    "width": "int32",
    "height": "int32",
    "fps": "float64",
    "codec": "string",
    "frames_decoded": "int32",
    "clips": "int32",
    "warnings": "list<string>",
    "decode_ms": "float64",
    "transform_ms": "float64",
    "inference_ms": "float64",
}
"""Every row has every column; a failed video's scores and facts, and what a container does not tell, are null."""


def row_of(outcome: Outcome, labels: Sequence[str]) -> Row:
    """One video's row; `label`, `score` and `class_id` are the best class's."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row["path"] = outcome.video
    if outcome.failure is not None:
        return {**row, "status": "failed", "error_type": outcome.failure.type, "message": outcome.failure.message}
    assert outcome.facts is not None
    best = outcome.samples[0]
    names = [labels[index] for index in best.class_ids]
    scores = {"labels": names, "scores": list(best.scores), "class_ids": list(best.class_ids)}
    first = {"label": names[0], "score": best.scores[0], "class_id": best.class_ids[0]}
    facts = {**asdict(outcome.facts), "warnings": list(outcome.facts.warnings)}
    return {**row, "status": "ok", **first, **scores, **facts}
