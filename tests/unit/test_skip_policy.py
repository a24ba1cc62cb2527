"""What runs by default, and REQUIRE_ALL, which turns skips into failures: of all tests, or of the markers it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.decoding import wait_until
from tests.support.paths import REPOSITORY

# The real policy, with other folders beside the repository.
CONFTEST = """
from pathlib import Path
from tests.support import paths
from tests.conftest import *

paths.CORPUS, paths.DIALECTS = Path({corpus!r}), Path({dialects!r})
"""

TESTS = """
import pytest

def test_passes():
    pass

@pytest.mark.e2e
def test_skips_for_want_of_java():
    pytest.skip("no Java")

@pytest.mark.gpu
def test_skips_for_want_of_a_gpu():
    pytest.skip("no GPU")

@pytest.mark.browser
@pytest.mark.skipif(True, reason="no browser")
def test_skips_for_want_of_a_browser():
    pass

def test_is_expected_to_fail(request):
    pytest.xfail("known")
"""

BESIDE = """
import pytest

@pytest.mark.corpus
def test_skips_for_want_of_the_corpus():
    pytest.skip("no corpus")

@pytest.mark.dialects
@pytest.mark.skipif(True, reason="no dialects")
def test_skips_for_want_of_the_dialects():
    pass
"""

SLOW = """
import pytest

def test_quick():
    pass

@pytest.mark.slow
def test_slow():
    pytest.skip("would take minutes")
"""


def run(
    folder: Path,
    *arguments: str,
    require_all: str = "",
    corpus: bool = False,
    dialects: bool = False,
    processes: str | None = "0",
) -> str:
    """pytest's output in `folder`; the shared folders are there or missing as told."""
    shared = {name: folder if there else folder / "missing" for name, there in
              (("corpus", corpus), ("dialects", dialects))}  # fmt: skip
    (folder / "conftest.py").write_text(CONFTEST.format(**{name: str(path) for name, path in shared.items()}))
    options = ("-p", "no:cacheprovider", "--continue-on-collection-errors", f"--rootdir={folder}", "-o", "testpaths=.")
    processes_option = () if processes is None else ("-n", processes)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *options,
            "-c",
            str(REPOSITORY / "pyproject.toml"),
            *processes_option,
            *arguments,
        ],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "REQUIRE_ALL": require_all},
        capture_output=True,
        text=True,
        check=False,
    )
    return str(done.stdout)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    (tmp_path / "test_samples.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text('import pytest\npytest.importorskip("nonesuch")\n')
    return tmp_path


def test_without_it_skips_are_skips(samples: Path) -> None:
    output = run(samples)
    assert "1 passed, 4 skipped, 1 xfailed in" in output, output


def test_all_but_a_gpu_is_required(samples: Path) -> None:
    output = run(samples, require_all="1")
    # Skipped in its body is a failed test, before it or as a whole module an error.
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors in" in output, output
    assert "test_skips_for_want_of_java was skipped but is required (REQUIRE_ALL): Skipped: no Java" in output
    assert "test_module.py was skipped but is required (REQUIRE_ALL)" in output


def test_markers_can_be_required_alone(samples: Path) -> None:
    output = run(samples, require_all="browser,gpu")
    assert "1 failed, 1 passed, 2 skipped, 1 xfailed, 1 error in" in output, output


@pytest.mark.parametrize(
    ("corpus", "dialects", "outcome"),
    [
        (False, False, "2 skipped in"),
        (True, False, "1 failed, 1 skipped in"),
        (False, True, "1 skipped, 1 error in"),
        (True, True, "1 failed, 1 error in"),
    ],
)
def test_what_lies_beside_the_repository_is_required_where_it_is(
    tmp_path: Path, corpus: bool, dialects: bool, outcome: str
) -> None:
    (tmp_path / "test_beside.py").write_text(BESIDE)
    output = run(tmp_path, require_all="1", corpus=corpus, dialects=dialects)
    assert outcome in output, output
    for name, there in (("corpus", corpus), ("dialects", dialects)):
        (line,) = (line for line in output.splitlines() if line.startswith(f"{name}: "))
        wanted = "is there, with REQUIRE_ALL=1 none of its tests may be skipped"
        assert line.endswith(wanted if there else "is missing, its tests may be skipped")


def test_a_missing_corpus_can_be_required_by_name(tmp_path: Path) -> None:
    (tmp_path / "test_beside.py").write_text(BESIDE)
    output = run(tmp_path, require_all="corpus")
    assert "1 failed, 1 skipped in" in output, output


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        ((), "1 passed, 1 deselected in"),
        (("-k", "slow or quick"), "1 passed, 1 deselected in"),
        (("--all",), "1 failed, 1 passed in"),
        (("-m", "slow"), "1 failed, 1 deselected in"),
        (("test_slow.py",), "1 failed, 1 passed in"),
        (("test_slow.py::test_slow",), "1 failed in"),
    ],
)
def test_slow_tests_run_when_they_are_asked_for(tmp_path: Path, arguments: tuple[str, ...], outcome: str) -> None:
    """And one that is left out is no skip, which REQUIRE_ALL would make a failure."""
    (tmp_path / "test_slow.py").write_text(SLOW)
    output = run(tmp_path, *arguments, require_all="1")
    assert outcome in output, output


FILES = """
import os
import pytest

@pytest.mark.parametrize("number", range(3))
def test_one(number, tmp_path_factory):
    (tmp_path_factory.getbasetemp().parent / f"{__name__}-{number}").write_text(str(os.getpid()))

@pytest.mark.slow
def test_slow():
    pass
"""


def test_the_whole_suite_takes_two_processes_and_a_file_stays_in_one(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"test_{name}.py").write_text(FILES)
    output = run(tmp_path, f"--basetemp={tmp_path / 'base'}", processes=None)
    # What the two left out counts once, and the last line is about both.
    assert output.splitlines()[-1].strip("= ").startswith("12 passed, 4 deselected in "), output
    found = {name: {path.read_text() for path in (tmp_path / "base").glob(f"test_{name}-*")} for name in "abcd"}
    assert {name: len(pids) for name, pids in found.items()} == dict.fromkeys("abcd", 1)
    assert len(set.union(*found.values())) == 2


ENDS = """
import os
import subprocess
import sys
from pathlib import Path

def test_ends():
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    Path("server").write_text(str(server.pid))
    os._exit(1)

def test_after():
    pass
"""


def test_a_test_that_ends_its_process_is_a_failure_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(ENDS)
    (tmp_path / "test_b.py").write_text("def test_other():\n    pass\n")
    output = run(tmp_path, processes=None)
    assert "1 failed, 2 passed in" in output, output
    assert "crashed while running 'test_a.py::test_ends'" in output
    wait_until("its server to be gone", lambda: not psutil.pid_exists(int((tmp_path / "server").read_text())))


def test_named_tests_and_those_in_a_worker_run_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    (tmp_path / "test_b.py").write_text("def test_b():\n    pass\n")
    output = run(tmp_path, "test_a.py", "test_b.py", processes=None)
    assert "2 passed in" in output, output
    assert "workers" not in output
