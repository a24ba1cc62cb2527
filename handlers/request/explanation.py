"""The heat of all windows of a video -> the answer of /explanations: where and when the model saw a class.

Heat below 0 speaks against the class and is left out, as in Grad-CAM. What is left is divided by the highest value of
the whole answer, so that heat is 0 to 1 and can be compared between its maps; so are the weights, the mean heat of a
map or of a step.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlers.errors import InternalError
from handlers.request.heat import FloatArray, WindowHeat, steps_of
from handlers.request.sheet import sheet
from handlers.specs import ModelSpec
from handlers.video.sampling import VideoReport
from handlers.video.transforms import crop_origins, resized

_HEAT_DIGITS = 3
_WEIGHT_DIGITS = 5
_PATHWAYS = ("slow", "fast")


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The class that is explained, and the heat of each window, in order."""

    class_id: int
    method: str
    windows: tuple[WindowHeat, ...]


def explanation_entry(
    explanation: Explanation,
    report: VideoReport,
    spec: ModelSpec,
    *,
    label: str,
    score: float,
    image: bool,
) -> dict[str, Any]:
    """The answer, ready for JSON; raises InternalError when the model gave no finite numbers."""
    windows = explanation.windows
    combined = _scaled([window.combined for window in windows])
    crops = _crops(report, spec, num_crops=len(combined[0]))
    answer: dict[str, Any] = {
        "label": label,
        "class_id": explanation.class_id,
        "score": score,
        "method": explanation.method,
        "times": _times(windows, combined),
        "maps": _maps(windows, combined, crops),
    }
    if spec.pathways == 2:
        for number, name in enumerate(_PATHWAYS):
            own = _scaled([window.pathways[number] for window in windows])
            answer.setdefault("pathways", {})[name] = _maps(windows, own, crops)
    if image:
        rows = [(window.pictures, heat) for window, heat in zip(windows, combined, strict=True)]
        pictures = [(pictures, heat) for pictures, heat in rows if pictures is not None]
        answer["image"] = base64.b64encode(sheet(pictures)).decode()
    return answer


def _scaled(heats: Sequence[FloatArray]) -> list[FloatArray]:
    """Without what is below 0, and the highest value of all of them 1; all 0 where nothing speaks for the class."""
    if not all(np.isfinite(heat).all() for heat in heats):
        raise InternalError("the model gave feature maps that are not finite numbers")
    highest = max(float(heat.max()) for heat in heats)
    scale = np.float32(1 / highest if highest > 0 else 0)
    return [(np.maximum(heat, 0) * scale).astype(np.float32) for heat in heats]


def _times(windows: Sequence[WindowHeat], heats: Sequence[FloatArray]) -> list[dict[str, float]]:
    """Each step of each window with its weight, in order of time."""
    weights = _weights([heat.mean(axis=(0, 2, 3)) for heat in heats])
    entries = [
        {"start_sec": step.start_sec, "end_sec": step.end_sec, "weight": weight}
        for window, of_window in zip(windows, weights, strict=True)
        for step, weight in zip(steps_of(window, len(of_window)), of_window, strict=True)
    ]
    return sorted(entries, key=lambda entry: (entry["start_sec"], entry["end_sec"]))


def _maps(
    windows: Sequence[WindowHeat], heats: Sequence[FloatArray], crops: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """Each map with its weight, by window, crop and step."""
    weights = _weights([heat.mean(axis=(2, 3)).ravel() for heat in heats])
    maps: list[dict[str, Any]] = []
    for window, heat, of_window in zip(windows, heats, weights, strict=True):
        steps = steps_of(window, heat.shape[1])
        rounded = np.round(heat.astype(np.float64), _HEAT_DIGITS).tolist()
        left = iter(of_window)
        for crop, of_crop in zip(crops, rounded, strict=True):
            maps += [
                {"time_sec": step.time_sec, "weight": next(left), "heatmap": values, "crop": crop}
                for step, values in zip(steps, of_crop, strict=True)
            ]
    return maps


def _weights(means: Sequence[FloatArray]) -> list[list[float]]:
    """Divided by the highest of all."""
    highest = max(float(mean.max()) for mean in means)
    return [
        np.round(mean.astype(np.float64) / (highest if highest > 0 else 1.0), _WEIGHT_DIGITS).tolist() for mean in means
    ]


def _crops(report: VideoReport, spec: ModelSpec, *, num_crops: int) -> list[dict[str, float]]:
    """Where each crop lies in the frame as it is shown, in shares of its width and height."""
    height, width = resized(spec, report.height, report.width)
    return [
        {
            "left": round(left / width, 6),
            "top": round(top / height, 6),
            "width": round(spec.crop_size / width, 6),
            "height": round(spec.crop_size / height, 6),
        }
        for top, left in crop_origins(spec, height, width, num_crops)
    ]
