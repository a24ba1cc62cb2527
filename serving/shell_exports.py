"""Prints the shell commands that `source scripts/env` runs, with the settings that `environment` gives Python too."""

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
    print(key_function())
    return 0


def key_function() -> str:
    """The shell function `key [inference|management]`, which prints a valid key; for bash and zsh, from any folder."""
    path = shlex.quote(f"{REPOSITORY}:{REPOSITORY / 'clients'}")
    python = shlex.quote(str(REPOSITORY / ".venv" / "bin" / "python"))
    # -P: a folder called `scripts` where the user happens to be is not this repository's.
    return f'key() {{ PYTHONPATH={path} {python} -P -m scripts.models key "$@"; }}'


if __name__ == "__main__":
    sys.exit(main())
