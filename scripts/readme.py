"""Write the generated tables of README.md: models from their specs, speed from a benchmark's result file.

python -m scripts.readme            rewrite the tables
python -m scripts.readme --check    exit with 1 if they are stale; a test does this
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.results import read_result
from benchmarks.table import markdown
from handlers.specs import SPECS, ModelSpec
from serving.environment import REPOSITORY

README = REPOSITORY / "README.md"
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
        f"{published.flops_g:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def benchmark_table(result: Path) -> str:
    """The table of a result file; a sentence while there is none."""
    return markdown(read_result(result)) if result.is_file() else "No measurement has been recorded yet."


def rendered(text: str) -> str:
    """The README with both tables as they should be."""
    text = _replaced(text, "models", model_table())
    return _replaced(text, "benchmark", benchmark_table(RESULT))


def _replaced(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise SystemExit(f"README.md has no place for the {name} table: {begin.strip()} and {end}")
    return f"{before}{begin}{content}\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated tables of README.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table is stale")
    options = parser.parse_args()
    text = README.read_text(encoding="utf-8")
    wanted = rendered(text)
    if options.check:
        if text != wanted:
            print("README.md is stale: run `python -m scripts.readme`", file=sys.stderr)
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
