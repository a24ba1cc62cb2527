"""Which package may import which, across the whole repository."""

from __future__ import annotations

import ast

import pytest

from tests.support.paths import REPOSITORY

# In the order of dependence: a package may import those in lines above its own. Tests may import everything.
LAYERS = (
    ("handlers", "video_action_client"),
    ("camera_motion", "bulk"),
    ("serving",),
    ("demo", "benchmarks", "deploy"),
    ("scripts",),
)
PACKAGES = [name for names in LAYERS for name in names]


FOLDERS = {
    path.parent.name: path.parent
    for path in (*REPOSITORY.glob("*/__init__.py"), *REPOSITORY.glob("clients/*/__init__.py"))
}


def imported(package: str) -> set[str]:
    """Top-level names of everything that the package's files import, wherever in the file."""
    names: set[str] = set()
    for path in FOLDERS[package].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_every_package_has_a_layer() -> None:
    assert set(FOLDERS) - {"tests"} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_what_stands_above_them(package: str) -> None:
    layer = next(index for index, names in enumerate(LAYERS) if package in names)
    allowed = {name for names in LAYERS[:layer] for name in names}
    assert imported(package) & {*PACKAGES, "tests"} <= allowed | {package}


def test_tests_share_by_way_of_the_support_folder() -> None:
    """No test imports another one or a conftest, so that each can be moved and run alone."""
    found = {
        (str(path.relative_to(REPOSITORY)), node.module)
        for path in FOLDERS["tests"].rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests.")
        if not (node.module or "").startswith(("tests.support", "tests.golden"))
    }
    assert found == set()


def test_scripts_are_commands() -> None:
    """Each module can be run, but for the few that belong to one or two commands."""
    private = {"__init__", "_bulk", "_evaluation"}
    for path in (REPOSITORY / "scripts").glob("*.py"):
        assert path.stem in private or '__name__ == "__main__"' in path.read_text(), path.name
