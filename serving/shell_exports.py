"""Prints the shell commands that `source scripts/env` runs: one source of truth for shells and for Python."""

from __future__ import annotations

import os
import shlex
import sys

from serving.environment import CONFIG, REPOSITORY, ServerError, serving_variables


def main() -> int:
    try:
        variables = serving_variables(REPOSITORY, CONFIG)
    except ServerError as error:
        print(f"scripts/env: {error}", file=sys.stderr)
        return 1
    for name in sorted({"PYTHONPATH", *(key for key in os.environ if key.startswith("TS_"))} - set(variables)):
        print(f"unset {name}")
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
