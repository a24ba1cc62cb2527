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
            if "no_verdict" in result:
                raise NotMeasured(result["no_verdict"])
            measured = self.measure(result)
        except NotMeasured as error:
            return {**entry, "measured": None, "met": None, "missed_by_percent": None, "note": str(error)}
        in_bound = _COMPARE[self.relation](measured.value, self.bound)
        missed = None if in_bound else round(abs(measured.value - self.bound) / self.bound * 100, 1)
        return {
            **entry,
            "measured": round(measured.value, 3),
            "met": in_bound and measured.objection is None,
            "missed_by_percent": missed,
            "note": measured.objection or (None if in_bound else self._why_missed(result)),
        }

    def _why_missed(self, result: Result) -> str | None:
        try:
            return None if self.reason is None else self.reason(result)
        except NotMeasured:
            return None


def evaluate_targets(result: Result) -> list[dict[str, Any]]:
    """Every target against that result, in order. They are promises for x3d_s; a quick run says nothing about them."""
    model = result["settings"]["model"]
    if model != MODEL:
        result = {"no_verdict": f"the targets are for {MODEL}, this is {model}"}
    elif result["settings"].get("quick"):
        result = {"no_verdict": "not judged: a quick run is too short for it"}
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


def _latency_ratio(resolution: str, contender: str = "ours") -> Callable[[Result], Measured]:
    def measure(result: Result) -> Measured:
        ratio = _latency(result, resolution, "recipe") / _latency(result, resolution, contender)
        at = ("load", "latency", "http", resolution)
        ours, recipe = find(result, *at, contender), find(result, *at, "recipe")
        objection = _objection(result, *at, contender) or _objection(result, *at, "recipe")
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


def _in_bfloat16(measure: Callable[[Result], Measured]) -> Callable[[Result], Measured]:
    """Only where the processor has bfloat16 in hardware."""

    def measured(result: Result) -> Measured:
        if "ours_bfloat16" not in find(result, "load", "throughput"):
            raise NotMeasured("not measured: a processor with bfloat16 in hardware")
        return measure(result)

    return measured


def _throughput_ratio(contender: str = "ours") -> Callable[[Result], Measured]:
    def measure(result: Result) -> Measured:
        clients, resolution = (find(result, "load", "throughput", key) for key in ("clients", "resolution"))
        if (clients, resolution) != (8, "320x240"):
            raise NotMeasured(f"not measured: 8 clients at 320x240; there were {clients} at {resolution}")
        ours = find(result, "load", "throughput", contender, "rate", "median")
        recipe = find(result, "load", "throughput", "recipe", "rate", "median")
        at = ("load", "throughput")
        return Measured(float(ours / recipe), _objection(result, *at, contender) or _objection(result, *at, "recipe"))

    return measure


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


def _beside(result: Result, scene: str) -> dict[str, Any]:
    """A quick request's times in that scene, with the settings that packaging gives."""
    found: dict[str, Any] = find(result, "beside", "scenes", scene, "several")
    return found


def _beside_ratio(scene: str, among: str) -> Callable[[Result], Measured]:
    def measure(result: Result) -> Measured:
        replaced = find(result, "beside", "forms", "several").get("replaced")
        objection = f"{replaced} workers were replaced meanwhile" if replaced else None
        return Measured(float(_beside(result, scene)["median"] / _beside(result, among)["median"]), objection)

    return measure


def _longest_beside_uploads(result: Result) -> Measured:
    return Measured(float(_beside(result, "beside uploads of 100 MB")["maximum"]))


def _worker_memory(result: Result) -> Measured:
    return Measured(float(max(find(result, "beside", "forms", "several", "memory_mb"))))


def _all_workers_memory(result: Result) -> Measured:
    return Measured(float(sum(find(result, "beside", "forms", "several", "memory_mb"))))


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
        for resolution, bound in (("320x240", 4.0), ("1280x720", 8.0), ("1920x1080", 10.0))
    ),
    *(
        Target(
            name=f"bfloat16 latency {resolution}",
            what=f"the same with precision bfloat16, {resolution}",
            relation=">=",
            bound=bound,
            unit="times",
            measure=_in_bfloat16(_latency_ratio(resolution, "ours_bfloat16")),
        )
        for resolution, bound in (("320x240", 5.0), ("1280x720", 9.0), ("1920x1080", 11.0))
    ),
    Target(
        name="throughput",
        what="HTTP, 8 clients, 320x240: requests per second over the recipe's",
        relation=">=",
        bound=4.2,
        unit="times",
        measure=_throughput_ratio(),
        reason=_throughput_at_best,
    ),
    Target(
        name="bfloat16 throughput",
        what="the same with precision bfloat16",
        relation=">=",
        bound=5.5,
        unit="times",
        measure=_in_bfloat16(_throughput_ratio("ours_bfloat16")),
    ),
    Target(
        name="torchcodec",
        what="in-process, 1920x1080: torchcodec with OpenVINO, its median over this package's",
        relation=">=",
        bound=1.4,
        unit="times",
        measure=_torchcodec_ratio,
    ),
    *(
        Target(
            name=f"floor {resolution}",
            what=f"HTTP, one client, {resolution}: this package's median over the floor's: the wanted packets decoded, "
            "the bare model, and an echo's round trip",
            relation="<=",
            bound=1.1,
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
        what="register call to the last worker that is ready",
        relation="<=",
        bound=2.5,
        unit="s",
        measure=_startup,
    ),
    *(
        Target(
            name=f"beside {name}",
            what=f"HTTP, 320x240: a quick request's median beside {what} over its median among {among}",
            relation="<=",
            bound=1.5,
            unit="times",
            measure=_beside_ratio(scene, f"among {among}"),
        )
        for name, what, scene, among in (
            ("long ones", "three clients that ask for 90 views each", "beside 3 of 90 views", "4 quick"),
            ("a giant", "a request of 12,288 views", "beside 1 of 12,288 views", "2 quick"),
        )
    ),
    Target(
        name="beside uploads",
        what="HTTP, 320x240: the longest quick request while 100 MB are uploaded",
        relation="<=",
        bound=500.0,
        unit="ms",
        measure=_longest_beside_uploads,
    ),
    Target(
        name="memory of a worker",
        what="the largest worker with its decoding process, ready",
        relation="<=",
        bound=320.0,
        unit="MB",
        measure=_worker_memory,
    ),
    Target(
        name="memory of all workers",
        what="all workers of a model together, ready",
        relation="<=",
        bound=1258.0,
        unit="MB",
        measure=_all_workers_memory,
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
