"""Write the generated tables of README.md and docs/: models, limits, and speed as a benchmark's result file has it.

python -m scripts.readme            rewrite the tables
python -m scripts.readme --check    exit with 1 if they are stale; a test does this
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from benchmarks.result_file import read_result
from benchmarks.sizing import RESULT as SIZING
from benchmarks.sizing import read_sizing, sizing_table
from benchmarks.table import markdown, short_table
from handlers.limits import Limits
from handlers.specs import SPECS, ModelSpec
from serving.environment import REPOSITORY

RESULT = REPOSITORY / "benchmarks" / "results" / "two-cores.json"


def model_table() -> str:
    """One Markdown row per spec."""
    head = "| model | frames x rate | short side, crop | alpha | top-1 | top-5 | views | params M | GFLOPs |"
    rows = [_row(spec) for spec in SPECS.values()]
    return "\n".join([head, "|---" * 9 + "|", *rows])


def _row(spec: ModelSpec) -> str:
    published = spec.published
    cells = [
        f"`{spec.name}`",
        f"{spec.num_frames}x{spec.sampling_rate}",
        f"{spec.short_side}, {spec.crop_size}",
        "" if spec.alpha is None else str(spec.alpha),
        "" if published.top1 is None else f"{published.top1:.2f}",
        "" if published.top5 is None else f"{published.top5:.2f}",
        published.views,
        f"{published.params_m:.2f}",
        "" if published.flops_g is None else f"{published.flops_g:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def benchmark_table(write: Callable[[Mapping[str, Any]], str]) -> str:
    """`write` applied to the recorded result; a sentence while there is none."""
    return write(read_result(RESULT)) if RESULT.is_file() else "No measurement has been recorded yet."


def limits_table() -> str:
    """One Markdown row per limit of a request."""
    rows = [
        f"| `{limit.name}` | {limit.default} | {limit.metadata['unit']} | {limit.metadata['help']} "
        f"| {limit.metadata['over']} |"
        for limit in fields(Limits)
    ]
    return "\n".join(["| setting | default | unit | what is bounded | over it |", "|---|---|---|---|---|", *rows])


PAGES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "README.md": {"speed": lambda: benchmark_table(short_table), "models": model_table},
    "docs/protocol.md": {"limits": limits_table},
    "docs/performance.md": {
        "benchmark": lambda: benchmark_table(markdown),
        "sizing": lambda: sizing_table(read_sizing(SIZING)),
    },
}
"""Page -> name of a pair of markers -> what stands between them."""


def rendered(page: str, text: str) -> str:
    """The page's text with every table as it should be."""
    for name, content in PAGES[page].items():
        text = _replaced(page, text, name, content())
    return text


def _replaced(page: str, text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise SystemExit(f"{page} has no place for the {name} table: {begin.strip()} and {end}")
    return f"{before}{begin}{content}\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated tables of README.md and docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table is stale")
    options = parser.parse_args()
    stale = 0
    for page in PAGES:
        path = REPOSITORY / page
        text = path.read_text(encoding="utf-8")
        wanted = rendered(page, text)
        if text == wanted:
            continue
        stale = 1
        if options.check:
            print(f"{page} is stale: run `python -m scripts.readme`", file=sys.stderr)
        else:
            path.write_text(wanted, encoding="utf-8")
    return stale if options.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
