"""What this package promises of its speed and size, as data, and whether a result keeps it.

All figures are ratios within one run, or absolute where the promise is, on two CPU cores.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Relation = Literal[">=", "<="]
Result = Mapping[str, Any]

MODEL = "x3d_s"
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}
FLAT_MB = 16.0
"""Megabytes of growth over a row of requests that count as flat, since allocators return freed memory late."""


class NotMeasured(Exception):
    """This run did not measure what the target is about; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`value` in the target's unit. `objection`: why it does not count although the number may be good."""

    value: float
    objection: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`measure` reads the value from a result; `reason` explains a value that misses the target, from the same run's
    figures. Both raise NotMeasured."""

    name: str
    what: str
    relation: Relation
    bound: float
    unit: str
    measure: Callable[[Result], Measured]
    reason: Callable[[Result], str] | None = None

    def evaluate(self, result: Result) -> dict[str, Any]:
        """The entry of a result's `targets`. `missed_by_percent` is relative to the bound; None where it is met."""
        entry: dict[str, Any] = {
            "name": self.name,
            "what": self.what,
            "target": f"{self.relation} {self.bound:g} {self.unit}",
            "bound": self.bound,
            "unit": self.unit,
        }
        try:
            if "other_model" in result:
                raise NotMeasured(result["other_model"])
            measured = self.measure(result)
        except NotMeasured as error:
            return {**entry, "measured": None, "met": None, "missed_by_percent": None, "note": str(error)}
        kept = _COMPARE[self.relation](measured.value, self.bound)
        missed = None if kept else round(abs(measured.value - self.bound) / self.bound * 100, 1)
        return {
            **entry,
            "measured": round(measured.value, 3),
            "met": kept and measured.objection is None,
            "missed_by_percent": missed,
            "note": measured.objection or (None if kept else self._why_missed(result)),
        }

    def _why_missed(self, result: Result) -> str | None:
        try:
            return None if self.reason is None else self.reason(result)
        except NotMeasured:
            return None


def evaluate_targets(result: Result) -> list[dict[str, Any]]:
    """Every target against that result, in order. They are promises for x3d_s."""
    model = result["settings"]["model"]
    if model != MODEL:
        result = {"other_model": f"the targets are for {MODEL}, this is {model}"}
    return [target.evaluate(result) for target in TARGETS]


def find(result: Result, *path: str) -> Any:
    """The value at that path; raises NotMeasured."""
    value: Any = result
    for position, key in enumerate(path):
        if not isinstance(value, Mapping) or value.get(key) is None:
            raise NotMeasured(f"not measured: {' / '.join(path[: position + 1])}")
        value = value[key]
    return value


def _latency(result: Result, resolution: str, contender: str) -> float:
    return float(find(result, "load", "latency", "http", resolution, contender, "latency", "median"))


def _floor(result: Result, resolution: str) -> float:
    """What libav and the bare model take, and the way to a worker and back."""
    return _latency(result, resolution, "floor") + _latency(result, resolution, "echo")


def _objection(result: Result, *path: str) -> str | None:
    """Errors in a measurement make it worthless."""
    errors = find(result, *path)["errors"]
    return f"{errors} requests failed" if errors else None


def _latency_ratio(resolution: str) -> Callable[[Result], Measured]:
    def measure(result: Result) -> Measured:
        ratio = _latency(result, resolution, "recipe") / _latency(result, resolution, "ours")
        at = ("load", "latency", "http", resolution)
        ours, recipe = find(result, *at, "ours"), find(result, *at, "recipe")
        objection = _objection(result, *at, "ours") or _objection(result, *at, "recipe")
        if objection is None and (not ours["top5"] or ours["top5"] != recipe["top5"]):
            objection = f"the five best labels differ: {ours['top5']} and the recipe's {recipe['top5']}"
        return Measured(ratio, objection)

    return measure


def _latency_at_best(resolution: str) -> Callable[[Result], str]:
    def reason(result: Result) -> str:
        ratio = _latency(result, resolution, "recipe") / _floor(result, resolution)
        return f"the floor, libav and the bare model, is {ratio:.2f} times faster than the recipe in this run"

    return reason


def _floor_ratio(resolution: str) -> Callable[[Result], Measured]:
    def measure(result: Result) -> Measured:
        objection = _objection(result, "load", "latency", "http", resolution, "ours")
        return Measured(_latency(result, resolution, "ours") / _floor(result, resolution), objection)

    return measure


def _throughput_ratio(result: Result) -> Measured:
    clients, resolution = (find(result, "load", "throughput", key) for key in ("clients", "resolution"))
    if (clients, resolution) != (8, "320x240"):
        raise NotMeasured(f"not measured: 8 clients at 320x240; there were {clients} at {resolution}")
    ours = find(result, "load", "throughput", "ours", "rate", "median")
    recipe = find(result, "load", "throughput", "recipe", "rate", "median")
    objection = _objection(result, "load", "throughput", "ours") or _objection(result, "load", "throughput", "recipe")
    return Measured(float(ours / recipe), objection)


def _throughput_at_best(result: Result) -> str:
    """One clip keeps one core busy for its decoding and all of them for the model."""
    floor = find(result, "stages", "resolutions", "320x240", "floor")
    decode, model = find(floor, "decode", "median"), find(floor, "model", "median")
    rate = 1000 / (model + decode / find(result, "machine", "cores"))
    ratio = rate / find(result, "load", "throughput", "recipe", "rate", "median")
    return f"libav and the bare model keep these cores busy with {rate:.1f} clips per second, {ratio:.2f} times as many"


def _torchcodec_ratio(result: Result) -> Measured:
    absent = result.get("stages", {}).get("absent", {}).get("torchcodec")
    if absent is not None:
        raise NotMeasured(f"torchcodec is absent: {absent}")
    at = ("stages", "resolutions", "1920x1080")
    theirs, ours = find(result, *at, "torchcodec"), find(result, *at, "ours")
    return Measured(float(theirs["total"]["median"] / ours["total"]["median"]))


def _peak_memory(result: Result) -> Measured:
    large = find(result, "memory", "large")
    if large != "3840x2160":
        raise NotMeasured(f"not measured: a 3840x2160 clip; the largest was {large}")
    ours = find(result, "memory", "contenders", "ours")
    objection = f"{len(ours['errors'])} requests failed" if ours["errors"] else None
    if ours["replaced"]:
        objection = "a process of the worker was replaced meanwhile, so its peak is not known"
    return Measured(float(ours["above_idle"]), objection)


def _growth(result: Result) -> Measured:
    row = find(result, "memory", "contenders", "ours", "row")
    if row["requests"] < 300:
        raise NotMeasured(f"not measured: 300 requests in a row; there were {row['requests']}")
    return Measured(float(row["growth"]), f"{row['errors']} requests failed" if row["errors"] else None)


def _startup(result: Result) -> Measured:
    return Measured(float(find(result, "startup", "ours", "median")))


def _views(result: Result) -> Measured:
    at = ("load", "views", "320x240")
    return Measured(float(find(result, *at, "latency", "median")) / 1000, _objection(result, *at))


def _views_at_best(result: Result) -> str:
    model = find(result, "stages", "resolutions", "320x240", "floor", "model", "median")
    return f"30 calls of the bare model alone take {30 * model / 1000:.2f} s on this machine"


TARGETS: tuple[Target, ...] = (
    *(
        Target(
            name=f"latency {resolution}",
            what=f"HTTP, one client, {resolution}: the recipe's median over this package's; same five best labels",
            relation=">=",
            bound=bound,
            unit="times",
            measure=_latency_ratio(resolution),
            reason=_latency_at_best(resolution),
        )
        for resolution, bound in (("320x240", 4.0), ("1280x720", 6.0), ("1920x1080", 8.0))
    ),
    Target(
        name="throughput",
        what="HTTP, 8 clients, 320x240: requests per second over the recipe's",
        relation=">=",
        bound=4.0,
        unit="times",
        measure=_throughput_ratio,
        reason=_throughput_at_best,
    ),
    Target(
        name="torchcodec",
        what="in-process, 1920x1080: torchcodec with OpenVINO, its median over this package's",
        relation=">=",
        bound=1.2,
        unit="times",
        measure=_torchcodec_ratio,
    ),
    *(
        Target(
            name=f"floor {resolution}",
            what=f"HTTP, one client, {resolution}: this package's median over the floor's: the wanted packets decoded, "
            "the bare model, and an echo's round trip",
            relation="<=",
            bound=1.15,
            unit="times",
            measure=_floor_ratio(resolution),
        )
        for resolution in ("320x240", "1280x720", "1920x1080")
    ),
    Target(
        name="peak memory",
        what="the worker and its processes answering a 3840x2160 clip, above idle",
        relation="<=",
        bound=500.0,
        unit="MB",
        measure=_peak_memory,
    ),
    Target(
        name="flat memory",
        what="growth of the worker's memory over 300 requests in a row, once warm",
        relation="<=",
        bound=FLAT_MB,
        unit="MB",
        measure=_growth,
    ),
    Target(
        name="startup",
        what="register call to a ready worker",
        relation="<=",
        bound=8.0,
        unit="s",
        measure=_startup,
    ),
    Target(
        name="30 views",
        what="HTTP, 10 clips x 3 crops of a 10 s video of 320x240, median",
        relation="<=",
        bound=1.5,
        unit="s",
        measure=_views,
        reason=_views_at_best,
    ),
)
