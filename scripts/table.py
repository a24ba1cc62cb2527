"""Results of scripts.evaluate as a table for a paper or a README: `python -m scripts.table A.json B.json`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from bulk.report import read_result
from bulk.result_table import TableFormat, result_table
from scripts._bulk import run_command

_EXAMPLES = """\
examples:
  python -m scripts.table x3d_s.json x3d_m.json
  python -m scripts.table x3d_s.json --format latex --intervals > table.tex
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.table",
        description="Show results of scripts.evaluate as a table, in percent: one row for each model and views.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json", help="results of scripts.evaluate")
    parser.add_argument(
        "--format",
        choices=get_args(TableFormat),
        default="markdown",
        help="markdown (default), latex (a tabular for the booktabs package), or csv with shares from 0 to 1",
    )
    parser.add_argument("--intervals", action="store_true", help="add the 95 %% intervals")
    return parser


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    results = [read_result(path) for path in arguments.results]
    print(result_table(results, arguments.format, intervals=arguments.intervals))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0; 1 for a file that is no finished result; 2 for wrong arguments, as a path to nothing."""
    return run_command(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
