"""REQUIRE_ALL turns skips into failures: all of them, or those of the markers it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving.environment import REPOSITORY

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


def run(tmp_path: Path, require_all: str) -> str:
    (tmp_path / "conftest.py").write_text((REPOSITORY / "tests" / "conftest.py").read_text())
    (tmp_path / "test_samples.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text('import pytest\npytest.importorskip("nonesuch")\n')
    options = ("-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", f"--rootdir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", str(REPOSITORY / "pyproject.toml"), str(tmp_path)],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "REQUIRE_ALL": require_all},
        capture_output=True,
        text=True,
        check=False,
    )
    return str(done.stdout)


def test_without_it_skips_are_skips(tmp_path: Path) -> None:
    output = run(tmp_path, "")
    assert "1 passed, 4 skipped, 1 xfailed in" in output, output


def test_all_but_a_gpu_is_required(tmp_path: Path) -> None:
    output = run(tmp_path, "1")
    # Skipped in its body is a failed test, before it or as a whole module an error.
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors in" in output, output
    assert "test_skips_for_want_of_java was skipped but is required (REQUIRE_ALL): Skipped: no Java" in output
    assert "test_module.py was skipped but is required (REQUIRE_ALL)" in output


def test_markers_can_be_required_alone(tmp_path: Path) -> None:
    output = run(tmp_path, "browser,gpu")
    assert "1 failed, 1 passed, 2 skipped, 1 xfailed, 1 error in" in output, output
