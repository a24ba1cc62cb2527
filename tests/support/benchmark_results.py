"""A made-up result of a whole run, in which every target is met by a little."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from benchmarks.result_file import FORMAT
from benchmarks.samples import summarise
from benchmarks.targets import evaluate_targets

LABELS = ["archery", "bowling", "yoga", "zumba", "abseiling"]


def summary(median: float) -> dict[str, Any]:
    return summarise([median]).to_json()


def replies(median: float, top5: list[str] | None = None) -> dict[str, Any]:
    return {"latency": summary(median), "errors": 0, "top5": top5 or []}


def _latency(recipe: float) -> dict[str, Any]:
    """100 ms here, 80 in bfloat16, 95 at the floor of which 5 are the echo's."""
    return {
        "ours": replies(100.0, LABELS),
        "ours_bfloat16": replies(80.0, LABELS),
        "recipe": replies(recipe, LABELS),
        "echo": replies(5.0, ["bytes"]),
        "floor": replies(90.0),
    }


def _contender(total: float) -> dict[str, Any]:
    return {
        "decode": summary(total / 2),
        "model": summary(total / 4),
        "total": summary(total),
        "top5": [1, 2, 3, 4, 5],
        "about": {},
    }


def make_result() -> dict[str, Any]:
    """A fresh copy each time, to be spoilt by a test."""
    latency = {"320x240": _latency(401.0), "1280x720": _latency(810.0), "1920x1080": _latency(1010.0)}
    result: dict[str, Any] = {
        "format": FORMAT,
        "command": "python -m scripts.benchmark all",
        "settings": {"model": "x3d_s"},
        "machine": {"cpu": "Test CPU", "cores": 2, "memory_gb": 8.0, "system": "Linux x86_64", "gpu": None},
        "versions": {"torch": "2.0", "openvino": "1.0", "av": "3.0", "torchserve": "0.1"},
        "git": {"commit": "0123456789abcdef", "modified": False},
        "load_average": {"before": [0.1, 0.1, 0.1], "after": [2.0, 1.0, 0.5]},
        "videos": {},
        "stages": {
            "unit": "ms",
            "absent": {},
            "resolutions": {
                "320x240": {"floor": _contender(80.0)},
                "1920x1080": {"ours": _contender(100.0), "torchcodec": _contender(145.0)},
            },
        },
        "load": {
            "unit": "ms",
            "latency": {"http": latency, "grpc": deepcopy(latency)},
            "views": {"320x240": replies(1400.0, LABELS)},
            "throughput": {
                "clients": 8,
                "resolution": "320x240",
                "unit": "requests/s",
                "ours": {"rate": summary(43.0), **replies(190.0, LABELS)},
                "ours_bfloat16": {"rate": summary(56.0), **replies(150.0, LABELS)},
                "recipe": {"rate": summary(10.0), **replies(800.0, LABELS)},
            },
        },
        "memory": {
            "unit": "MB",
            "large": "3840x2160",
            "contenders": {
                "ours": {
                    "idle": 700.0,
                    "sampled_peak": 1100.0,
                    "high_water_peak": 1150.0,
                    "above_idle": 450.0,
                    "processes": 3,
                    "replaced": False,
                    "errors": [],
                    "row": {"requests": 300, "errors": 0, "resident": {}, "warm_after": 100, "growth": 2.0},
                }
            },
        },
        "beside": {
            "unit": "ms",
            "forms": {
                "several": {
                    "workers": 4,
                    "ready_sec": 2.4,
                    "memory_mb": [305.0, 300.0, 300.0, 300.0],
                    "replaced": 0,
                    "memory_after_mb": [340.0, 310.0, 310.0, 310.0],
                    "stream_ms": {"first": 190.0, "last": 4000.0},
                },
                "one": {
                    "workers": 1,
                    "ready_sec": 1.5,
                    "memory_mb": [310.0],
                    "replaced": 0,
                    "memory_after_mb": [400.0],
                    "stream_ms": {"first": 180.0, "last": 3000.0},
                },
            },
            "scenes": {
                "among 2 quick": {"several": summary(140.0), "one": summary(160.0)},
                "among 4 quick": {"several": summary(260.0), "one": summary(300.0)},
                "beside 3 of 90 views": {"several": summary(380.0), "one": summary(17000.0)},
                "beside 1 of 12,288 views": {"several": summary(200.0)},
                "beside uploads of 100 MB": {"several": summary(450.0), "one": summary(800.0)},
            },
        },
        "startup": {"unit": "s", "ours": summary(2.4), "recipe": summary(7.0)},
    }
    result["targets"] = evaluate_targets(result)
    return result
