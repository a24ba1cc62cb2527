"""Installs pinned requirements, and this repository's client, into the running virtual environment, once.

`python -m serving.install base` is what `./scripts/quickstart` runs, `dev` what `./scripts/test` and `./scripts/check`
run. A stamp in the environment remembers what was installed, file by file, so the second run does nothing. Only the
standard library is imported here: nothing else is there yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

from serving.pip_progress import PipFailed, run_pip

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPOSITORY / "requirements"
CLIENT = REPOSITORY / "clients"
STAMP = Path(sys.prefix) / ".requirements.json"
LOG = Path(sys.prefix) / "install.log"


def closure(file: Path) -> list[Path]:
    """The requirements file and all that it includes with `-r` or `-c`, each once."""
    found: list[Path] = []
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.append(current)
        for line in current.read_text().splitlines():
            if line.startswith(("-r ", "-c ")):
                waiting.append(current.parent / line[3:].strip())
    return found


def digests(file: Path) -> dict[str, str]:
    """File name -> SHA-256 of each file of the closure and of the client's, and the interpreter they are for."""
    files = [*closure(file), CLIENT / "pyproject.toml"]
    values = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files}
    return values | {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def installed(file: Path, stamp: Path = STAMP) -> bool:
    """Whether the environment holds exactly what the file asks for, as far as the stamp knows."""
    return stamp.is_file() and digests(file).items() <= json.loads(stamp.read_text()).items()


def install(file: Path, stamp: Path = STAMP) -> None:
    """Install the file's packages with one line of progress; pip's log is LOG. Raises PipFailed."""
    names = {each.name for each in closure(file)}
    size = " (about 3 GB the first time: torch brings its CUDA libraries)" if "base.txt" in names else ""
    print(f"Installing {file.relative_to(REPOSITORY)}{size}", flush=True)
    # Three packages are sources: built in isolation, whatever the age of pip, with pinned builders.
    constraints = str(REQUIREMENTS / "constraints.txt")
    env = os.environ | {"PIP_CONSTRAINT": constraints, "PIP_BUILD_CONSTRAINT": constraints, "PIP_USE_PEP517": "1"}
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-r", str(file)]
    run_pip(command, env, packages=expected_packages(file), log=LOG)
    # The client as it lies here, with what was just installed: asks no index, so that it works offline too.
    editable = ["--quiet", "--no-deps", "--no-build-isolation", "--editable", str(CLIENT)]
    run_pip([*command[: command.index("-r")], *editable], env, packages=1, log=LOG)
    known = json.loads(stamp.read_text()) if stamp.is_file() else {}
    fresh = digests(file)
    # A shared file has changed: what was installed from other files may no longer be as they ask.
    known = {} if any(known.get(name, value) != value for name, value in fresh.items()) else known
    stamp.write_text(json.dumps(known | fresh, indent=2) + "\n")


def expected_packages(file: Path) -> int:
    """About how many packages pip will take up: the pins of the file, of what it includes, and of the constraints."""
    lines = [line for each in closure(file) for line in each.read_text().splitlines()]
    return len({line.split("==")[0].strip().lower() for line in lines if "==" in line and not line.startswith("#")})


def main() -> int:
    names = sorted(path.stem for path in REQUIREMENTS.glob("*.txt") if path.stem != "constraints")
    parser = argparse.ArgumentParser(prog="python -m serving.install", description=__doc__)
    parser.add_argument("requirements", choices=names)
    name = parser.parse_args().requirements
    file = REQUIREMENTS / f"{name}.txt"
    if sys.prefix == sys.base_prefix:
        parser.error(f"{sys.executable} is not in a virtual environment; run ./scripts/quickstart instead")
    if not installed(file):
        try:
            install(file)
        except PipFailed as error:
            print(f"{error}\npip could not install requirements/{name}.txt", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
