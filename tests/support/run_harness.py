"""Runs one of tests.support.harnesses for a while: `python -m tests.support.run_harness plan --seconds 60`.

With atheris (pip install -r requirements/fuzz.txt) inputs are led by the coverage of `handlers`, else they are mutants
of the seeds. A failure ends it with a traceback and the input.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

MODULE = "tests.support.harnesses"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("harness")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        harness = importlib.import_module(MODULE).HARNESSES[options.harness]
        print(f"{with_mutants(harness, options.seconds)} mutants, without atheris")
    else:
        _with_atheris(options.harness, options.seconds)


def with_mutants(harness: Any, seconds: float, *, at_least: int = 0) -> int:
    """Calls the harness with its seeds, then with mutants of them; returns how many those were."""
    from tests.support.mutation import mutate

    seeds = harness.seeds()
    for seed in seeds:
        harness.check(seed)
    count, end = 0, time.monotonic() + seconds
    while count < at_least or time.monotonic() < end:
        content = mutate(seeds, count)
        try:
            harness.check(content)
        except BaseException:
            print(f"mutant {count}: {content.hex()}", file=sys.stderr)
            raise
        count += 1
    return count


def _with_atheris(name: str, seconds: float) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["handlers"]):
        harness = importlib.import_module(MODULE).HARNESSES[name]
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(harness.seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds:g}", "-max_len=1500", f"-artifact_prefix={corpus}/"]
        atheris.Setup([sys.argv[0], *limits, corpus], harness.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
