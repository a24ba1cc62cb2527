# Sourced by quickstart, test and check: a Python, the .venv, the pinned packages. Needs bash and Python 3.11 or newer.
# shellcheck shell=bash

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV_PYTHON="$REPOSITORY/.venv/bin/python"

# An exported PYTHONPATH would shadow the pinned packages here, and an archive's own code in TorchServe's workers.
unset PYTHONPATH PYTHONHOME

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# The first interpreter that is new enough; 3.11 first, because every package was tested with it.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.14 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and was not found on PATH; install it, or name it: PYTHON=/path/to/python3 $0"
}

make_venv() {
    local python
    python="$(find_python)" || exit 1
    echo "Creating .venv with $("$python" --version 2>&1) ($python)"
    # Built aside and moved last would break the paths inside it; a marker says that it is complete instead.
    if ! "$python" -m venv --clear "$REPOSITORY/.venv" >/dev/null 2>&1; then
        # Debian keeps ensurepip in a package of its own; an installed pip can stand in for it.
        "$python" -m venv --clear --without-pip "$REPOSITORY/.venv" >/dev/null 2>&1 &&
            "$python" -m pip --python "$VENV_PYTHON" install --quiet pip >/dev/null 2>&1 ||
            fail "$python cannot create a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
    fi
    touch "$REPOSITORY/.venv/.created"
}

# require FILE: the packages of requirements/FILE.txt are installed when this returns.
require() {
    if ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
        make_venv
    fi
    (cd "$REPOSITORY" && exec "$VENV_PYTHON" -m serving.install "$1")
}
