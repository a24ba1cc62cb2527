"""Markdown tables made from a result file alone: a short one for the README, all of them for docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MISSING = "-"


def markdown(result: Mapping[str, Any]) -> str:
    """A table of what was measured, a table of the targets, and a line that says on what."""
    blocks = [
        *_latency_tables(result),
        *_throughput_table(result),
        *_beside_tables(result),
        *_stage_table(result),
        *_targets_table(result),
    ]
    return "\n\n".join([*blocks, conditions(result)]) + "\n"


def short_table(result: Mapping[str, Any]) -> str:
    """The README's: latency at each resolution, throughput, peak memory, and a line that says on what."""
    model, cores = result["settings"]["model"], result["machine"]["cores"]
    load = result.get("load", {})
    rows = []
    for resolution, contenders in load.get("latency", {}).get("http", {}).items():
        ours, recipe = _median(contenders, "ours"), _median(contenders, "recipe")
        rows.append([f"{resolution}, one client", _ms(ours), _ms(recipe), _times(recipe, ours)])
    if throughput := load.get("throughput"):
        ours, recipe = (float(throughput[name]["rate"]["median"]) for name in ("ours", "recipe"))
        what = f"{throughput['resolution']}, {throughput['clients']} clients"
        rows.append([what, f"{ours:.1f} requests/s", f"{recipe:.1f} requests/s", _times(ours, recipe)])
    if memory := result.get("memory"):
        rows.append(
            [f"peak memory above idle, {memory['large']}", *(_peak(memory, name) for name in ("ours", "recipe")), ""]
        )
    head = [f"`{model}` over HTTP, {cores} cores", "this package", "the recipe", "faster"]
    where = f"Medians on {result['machine']['cpu']}, {cores} cores"
    return f"{_table(head, rows)}\n\n{where}; [all figures and the targets](docs/performance.md#what-was-measured).\n"


def _peak(memory: Mapping[str, Any], contender: str) -> str:
    found = memory["contenders"].get(contender)
    return "not measured" if found is None else f"{found['above_idle']:.0f} MB"


def conditions(result: Mapping[str, Any]) -> str:
    """One sentence: machine, model, versions, commit and load."""
    machine, versions, settings = result["machine"], result["versions"], result["settings"]
    parts = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "openvino", "av", "torchserve") if versions[name]
    )
    commit = (result["git"].get("commit") or "unknown")[:12]
    changed = " with changes" if result["git"].get("modified") else ""
    load = result["load_average"]["before"][0]
    return (
        f"{settings['model']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GiB, {parts}; commit "
        f"{commit}{changed}, load average before the run {load}. `{result['command']}`"
    )


def _latency_tables(result: Mapping[str, Any]) -> Iterator[str]:
    latency = result.get("load", {}).get("latency", {})
    for protocol, resolutions in latency.items():
        rows = []
        for resolution, contenders in resolutions.items():
            ours, recipe = _median(contenders, "ours"), _median(contenders, "recipe")
            floor, echo = _median(contenders, "floor"), _median(contenders, "echo")
            least = None if floor is None or echo is None else floor + echo
            rows.append([resolution, _ms(ours), _ms(recipe), _times(recipe, ours), _ms(least), _times(ours, least)])
            if "ours_bfloat16" in contenders:
                half = _median(contenders, "ours_bfloat16")
                name = f"{resolution}, bfloat16"
                rows.append([name, _ms(half), _ms(recipe), _times(recipe, half), _ms(least), _times(half, least)])
        yield _table(
            [f"{_protocol(protocol)}, one client", "this package", "recipe", "faster", "floor", "of the floor"], rows
        )


def _throughput_table(result: Mapping[str, Any]) -> Iterator[str]:
    throughput = result.get("load", {}).get("throughput")
    if throughput:
        recipe = throughput["recipe"]["rate"]["median"]
        label = f"HTTP, {throughput['clients']} clients, {throughput['resolution']}"
        rows = []
        for name, more in (("ours", ""), ("ours_bfloat16", ", bfloat16")):
            if name in throughput:
                ours = throughput[name]["rate"]["median"]
                rows.append([label + more, f"{ours:.1f}/s", f"{recipe:.1f}/s", _times(ours, recipe)])
        yield _table(["throughput", "this package", "recipe", "more"], rows)


def _beside_tables(result: Mapping[str, Any]) -> Iterator[str]:
    """What a quick request waits for, in both forms, and what the forms take."""
    if not (beside := result.get("beside")):
        return
    forms = {"several": "several workers (the default)", "one": "one worker that batches"}
    yield _table(
        ["a quick request, median (longest)", *forms.values()],
        [
            [scene, *(f"{_ms(found[form]['median'])} ({_ms(found[form]['maximum'])})" if form in found else _MISSING
                      for form in forms)]
            for scene, found in beside["scenes"].items()
        ],
    )  # fmt: skip
    rows = []
    for form, name in forms.items():
        facts = beside["forms"][form]
        memory = [_range(facts["memory_mb"]), _range(facts["memory_after_mb"])]
        stream = f"{_ms(facts['stream_ms']['first'])} of {_ms(facts['stream_ms']['last'])}"
        rows.append([name, str(facts["workers"]), f"{facts['ready_sec']:.1f} s", *memory, stream])
    head = ["form", "workers", "all ready after", "memory of each", "after all of this", "first line of a stream"]
    yield _table(head, rows)


def _range(megabytes: Sequence[float]) -> str:
    least, most = f"{min(megabytes):.0f}", f"{max(megabytes):.0f}"
    return f"{least} MB" if least == most else f"{least} to {most} MB"


def _stage_table(result: Mapping[str, Any]) -> Iterator[str]:
    resolutions = result.get("stages", {}).get("resolutions", {})
    rows = [
        [
            resolution,
            contender,
            *(_ms(found.get(stage, {}).get("median")) for stage in ("decode", "transform", "model", "total")),
        ]
        for resolution, contenders in resolutions.items()
        for contender, found in contenders.items()
    ]
    if rows:
        yield _table(["in-process", "", "decode", "transform", "model", "total"], rows)


def _targets_table(result: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for target in result["targets"]:
        verdict = {True: "met", False: "missed", None: "not measured"}[target["met"]]
        if target["missed_by_percent"] is not None:
            verdict += f" by {target['missed_by_percent']:g} %"
        if target["met"] is None:
            verdict = target["note"]
        elif target["note"]:
            verdict += f": {target['note']}"
        measured = _MISSING if target["measured"] is None else f"{target['measured']:.3g} {target['unit']}"
        rows.append([target["what"], target["target"], measured, verdict])
    yield _table(["target", "promised", "measured", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _median(contenders: Mapping[str, Any], name: str) -> float | None:
    latency = contenders.get(name, {}).get("latency")
    return None if latency is None else float(latency["median"])


def _ms(value: float | None) -> str:
    if value is None:
        return _MISSING
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _times(numerator: float | None, denominator: float | None) -> str:
    if numerator is None or not denominator:
        return _MISSING
    ratio = numerator / denominator
    return f"{ratio:.1f}x" if ratio >= 2 else f"{ratio:.2f}x"


def _protocol(name: str) -> str:
    return {"http": "HTTP", "grpc": "gRPC"}.get(name, name)
