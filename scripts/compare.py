"""Is one model better than another? `python -m scripts.compare A.json B.json`, two results of scripts.evaluate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bulk.comparison import compare, text_of
from bulk.report import read_result
from scripts._bulk import run_command

_EXAMPLES = """\
examples:
  python -m scripts.compare x3d_s.json x3d_m.json
  python -m scripts.compare float32.json bfloat16.json --json | jq .agreement.p_value

Both results have to be of the same list and the same classes. docs/evaluation.md says what the figures mean.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.compare",
        description="Compare two evaluations of the same videos: paired bootstrap and McNemar's exact test.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path, metavar="A.json", help="a result of scripts.evaluate")
    parser.add_argument("b", type=Path, metavar="B.json", help="another one; differences are B minus A")
    parser.add_argument("--json", action="store_true", help="one JSON object, shares from 0 to 1")
    return parser


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    found = compare(read_result(arguments.a), read_result(arguments.b))
    names = [str(arguments.a), str(arguments.b)]
    if arguments.json:
        print(json.dumps({"a": names[0], "b": names[1], **asdict(found)}, indent=1))
    else:
        print(text_of(found, names))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 whatever differs; 1 where the results cannot be compared; 2 for wrong arguments, as a path to
    nothing."""
    return run_command(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
