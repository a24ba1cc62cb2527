"""Pictures of a result file, from it alone. The only module of the benchmarks that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_COLOURS = {"recipe": "#9a9a9a", "torchcodec": "#e0a030", "ours": "#2060b0", "floor": "#70b070"}
_NAMES = {
    "recipe": "documented recipe",
    "torchcodec": "torchcodec + OpenVINO",
    "ours": "this package",
    "floor": "floor",
}


def plots_available() -> bool:
    return find_spec("matplotlib") is not None


def write_plots(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """`benchmark-latency.png`, `benchmark-throughput.png` and `benchmark-stages.png`, where measured; their paths."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    load, written = result.get("load", {}), []
    if load.get("latency", {}).get("http"):
        written.append(_latency(load["latency"]["http"], result, folder / "benchmark-latency.png"))
    if load.get("throughput"):
        written.append(_throughput(load["throughput"], result, folder / "benchmark-throughput.png"))
    if result.get("stages", {}).get("resolutions"):
        written.append(_stages(result["stages"]["resolutions"], result, folder / "benchmark-stages.png"))
    return written


def latency_bars(latency: Mapping[str, Any]) -> dict[str, list[float]]:
    """Contender -> median ms per resolution; the floor with the echo's round trip, as the target counts it."""
    bars: dict[str, list[float]] = {}
    for contenders in latency.values():
        medians = {name: found["latency"]["median"] for name, found in contenders.items() if found["latency"]}
        if "floor" in medians:
            medians["floor"] += medians.get("echo", 0.0)
        for name in ("recipe", "ours", "floor"):
            bars.setdefault(name, []).append(medians.get(name, 0.0))
    return bars


def _latency(latency: Mapping[str, Any], result: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    bars = latency_bars(latency)
    width = 0.8 / len(bars)
    for offset, (name, heights) in enumerate(bars.items()):
        positions = [index + (offset - (len(bars) - 1) / 2) * width for index in range(len(heights))]
        drawn = axes.bar(positions, heights, width, color=_COLOURS[name], label=_NAMES[name])
        axes.bar_label(drawn, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(latency)), list(latency))
    axes.set_ylabel("median latency, ms (HTTP, one client)")
    axes.legend(frameon=False)
    return _save(figure, axes, result, path)


def _throughput(throughput: Mapping[str, Any], result: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4.2), layout="constrained")
    names = ["recipe", "ours"]
    rates = [throughput[name]["rate"] for name in names]
    spread = [
        [rate["median"] - rate["minimum"] for rate in rates],
        [rate["maximum"] - rate["median"] for rate in rates],
    ]
    drawn = axes.bar(
        [_NAMES[name] for name in names],
        [rate["median"] for rate in rates],
        0.6,
        yerr=spread,
        capsize=4,
        color=[_COLOURS[name] for name in names],
    )
    axes.bar_label(drawn, fmt="%.1f", label_type="center", color="white")
    axes.set_ylabel(f"requests/s ({throughput['clients']} clients, {throughput['resolution']})")
    return _save(figure, axes, result, path)


def _stages(resolutions: Mapping[str, Any], result: Mapping[str, Any], path: Path) -> Path:
    """Stacked stages, a bar per contender and resolution; the rest of the total is what no stage covers."""
    from matplotlib import pyplot as plt

    rows = [(resolution, name, found) for resolution, each in resolutions.items() for name, found in each.items()]
    figure, axes = plt.subplots(figsize=(7.5, 0.4 * len(rows) + 1.2), layout="constrained")
    left = [0.0] * len(rows)
    for stage, colour in (("decode", "#2060b0"), ("transform", "#e0a030"), ("model", "#70b070")):
        widths = [found.get(stage, {}).get("median", 0.0) for _, _, found in rows]
        axes.barh(range(len(rows)), widths, 0.7, left=left, color=colour, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(rows)), [f"{_NAMES.get(name, name)}, {resolution}" for resolution, name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("median, ms (in-process, one clip)")
    axes.legend(frameon=False)
    return _save(figure, axes, result, path)


def _save(figure: Any, axes: Any, result: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    machine = result["machine"]
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{result['settings']['model']}, {machine['cpu']}, {machine['cores']} cores", fontsize=9)
    # No software name or date in the file: the same result gives the same bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
    return path
